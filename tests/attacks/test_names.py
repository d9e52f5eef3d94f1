"""Packages under other packages' names: another owner's, and those that build roots are made of."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm import wire
from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Build, BuildRequest, Step
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.target import Limits
from farm.model.work import AnyResult, StepResult
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.steps.build import BuildResult
from farm.steps.upload import UPLOAD
from farm.store import schema
from farm.store.in_flight import WAIT
from farm.store.scheduling import Committed
from farm.store.store import Store
from farm.targets.load import find_target
from tests.contract.test_store import AROUND, drive
from tests.fake_workers import Answer, artifact, picked, report_for, settle_reports, succeed, token_of
from tests.messages import KINDS
from tests.rpms import make_rpm, sha256
from tests.scheduling import ready
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.formats.rpm.dnf import pinned_repositories
from workers.formats.rpm.native import native_roots


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/farm.db", create=True)
    yield opened
    opened.close()


def answers(package: str, *binaries: str) -> dict[str, Answer]:
    """Steps of a package whose build makes these."""
    rpms = tuple(artifact(f"{name}-1-1.x86_64.rpm", ArtifactKind.RPM, f"{name}-1-1.x86_64") for name in binaries)
    made: dict[str, Answer] = {kind: succeed(kind, package) for kind in KINDS}
    built: AnyResult = StepResult(outcome=Outcome.SUCCEEDED, output=BuildResult(rpms=rpms))
    made["build"] = built
    return made


def built(store: Store, owner: str, package: str, *binaries: str, target: str = "demo") -> Build:
    source = Source(kind=SourceKind.GIT, url=f"https://git/{package}")
    request = BuildRequest(source=source, target=target, arches=(Arch.X86_64,))
    build_id = store.add_batch([request], owner=owner).builds[0].id
    given = answers(package, *binaries)
    if target != "demo":
        upload = succeed("upload")
        given["upload"] = StepResult(outcome=upload.outcome, output=type(upload.output)(versions=()))  # type: ignore[call-arg,misc]
    drive(store, given)
    return store.build(build_id)


def test_a_source_package_that_another_owner_published_is_not_replaced(store: Store) -> None:
    assert built(store, "honest", "hello", "hello").outcome is Outcome.SUCCEEDED
    build = built(store, "mallory", "hello", "hello")
    assert build.outcome is Outcome.FAILED
    assert "honest published the source package hello of target demo first" in (build.reason or "")
    statuses = {step.kind: step.outcome for step in build.steps}
    assert statuses["srpm"] is Outcome.FAILED
    assert built(store, "honest", "hello", "hello").outcome is Outcome.SUCCEEDED


def test_a_subpackage_with_the_name_of_anothers_package_is_not_published(store: Store) -> None:
    assert built(store, "honest", "ncurses", "ncurses", "ncurses-devel").outcome is Outcome.SUCCEEDED
    build = built(store, "mallory", "sly", "sly", "ncurses-devel")
    assert build.outcome is Outcome.FAILED
    assert "honest published the packages ncurses-devel of target demo first" in (build.reason or "")
    uploads = [step for step in build.steps if step.kind == "upload"]
    assert [attempt for step in uploads for attempt in step.attempts if attempt.outcome is Outcome.SUCCEEDED] == []


def test_an_unpublished_package_claims_no_name(store: Store) -> None:
    source = Source(kind=SourceKind.GIT, url="https://git/hello")
    store.add_batch([BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))], owner="mallory")
    failed: AnyResult = StepResult(outcome=Outcome.FAILED, reason="make: error")
    drive(store, answers("hello", "hello") | {"upload": failed})
    assert built(store, "honest", "hello", "hello").outcome is Outcome.SUCCEEDED


def test_a_name_is_one_targets_and_can_be_released(store: Store) -> None:
    assert built(store, "honest", "hello", "hello").outcome is Outcome.SUCCEEDED
    assert built(store, "mallory", "hello", "hello").outcome is Outcome.FAILED
    with store.writing() as connection:
        connection.execute(sa.delete(schema.package_owner).where(schema.package_owner.c.name == "hello"))
    assert built(store, "mallory", "hello", "hello").outcome is Outcome.SUCCEEDED
    assert built(store, "honest", "hello", "hello").outcome is Outcome.FAILED


def test_an_older_farms_names_are_those_of_their_first_builders(tmp_path: Path) -> None:
    from alembic import command

    from farm.store.database import make_engine
    from farm.store.migrate import alembic_config

    url = f"sqlite:///{tmp_path}/old.db"
    engine = make_engine(url)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        columns = "batch_id, package, source, target, arches, options, priority, owner, status, outcome, created_at"
        connection.execute(schema.batch.insert(), {"owner": "x", "created_at": datetime.now(UTC)})
        for owner, outcome in (("early", "failed"), ("honest", "succeeded"), ("late", "succeeded")):
            connection.execute(
                sa.text(
                    f"INSERT INTO build ({columns}) VALUES (1, 'hello', '{{}}', 'demo', '[]', '{{}}', 0,"
                    " :owner, 'finished', :outcome, '2026-01-01')"
                ),
                {"owner": owner, "outcome": outcome},
            )
    engine.dispose()
    store = Store.open(url, create=True)
    with store.reading() as connection:
        found = connection.execute(sa.select(schema.package_owner.c.name, schema.package_owner.c.owner)).all()
    store.close()
    assert [tuple(row) for row in found] == [("hello", "honest")]


def test_the_farms_own_repository_is_told_to_leave_the_templates_packages_out() -> None:
    names = ["bash", "libstdc++", "evil*", "a,b", "a b"]
    (own,) = pinned_repositories([("farm", "file:///r")], without=names)
    assert dict(own.options)["excludepkgs"] == "bash,libstdc++"
    (plain,) = pinned_repositories([("farm", "file:///r")])
    assert "excludepkgs" not in dict(plain.options)


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root fills roots")
def test_a_real_build_root_takes_no_bash_from_the_farms_own_repository(tmp_path: Path, demo_distribution: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "data")})
    (settings.data / "demo").mkdir(parents=True)
    (settings.data / "demo/distribution").symlink_to(demo_distribution)
    package = make_rpm(tmp_path, "bash", version="99", arch="x86_64")
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
    repositories = DirectoryRepositories(settings.repositories_dir)
    given = RepositoryPackage(path=package, sha256=sha256(package), filename=package.name)
    version = repositories.add(name, [given])
    (tmp_path / "work").mkdir()
    with StepLog(tmp_path / "log", limit_bytes=2**20) as log:
        context = StepContext(
            attempt="1.build.x86_64.1",
            workdir=tmp_path / "work",
            log=log,
            store=DirectoryStore(settings.artifacts),
            settings=settings,
            limits=Limits(),
            stop=threading.Event(),
            deadline=time.monotonic() + 120,
        )
        target = find_target(settings, "demo")
        pinned = [("farm", repositories.url(name, version))]
        roots = native_roots(settings)
        with roots.template(target, Arch.X86_64, context) as template, pytest.raises(Ended) as refused:  # noqa: SIM117
            with template.layered(["bash = 99"], pinned):
                pass
    assert refused.value.outcome is Outcome.UNRESOLVABLE


def sent(store: Store) -> Committed:
    """Everything that is ready goes out."""
    return store.dispatch(picked(ready(store)), datetime.now(UTC))


def uploads_offered(store: Store, owners: dict[str, tuple[str, str]]) -> Committed:
    """New builds of these owners, each of a package and a binary package, go on until their uploads are offered or put
    off, in one transaction for each step."""
    for owner, (package, _) in owners.items():
        source = Source(kind=SourceKind.GIT, url=f"https://git/{owner}/{package}")
        store.add_batch([BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))], owner=owner)
    by_build = {build.id: owners[build.owner] for build in store.builds()}
    done = sent(store)
    while any(order.message.kind != UPLOAD.name for order in done.orders):
        done = settled(store, done, by_build) if done.orders else sent(store)
        done = done if done.orders or not ready(store) else sent(store)
    return done


def settled(store: Store, done: Committed, by_build: dict[int, tuple[str, str]]) -> Committed:
    reports = []
    for order in done.orders:
        message, (package, binary) = order.message, by_build[order.build_id]
        answer = answers(package, binary)[message.kind]
        reports.append(report_for(message.attempt, token_of(message.attempt), message.kind, answer))
    return settle_reports(store, reports, datetime.now(UTC), AROUND)


def upload_of(store: Store, owner: str) -> Step:
    (build,) = [build for build in store.builds() if build.owner == owner]
    return next(step for step in build.steps if step.kind == UPLOAD.name)


@pytest.mark.parametrize(
    ("honest", "mallory"),
    [(("hello", "hello"), ("hello", "hello")), (("ncurses", "libtic"), ("sly", "libtic"))],
    ids=["source name", "subpackage"],
)
def test_only_the_first_of_two_owners_who_upload_one_new_name_at_once_publishes(
    store: Store, honest: tuple[str, str], mallory: tuple[str, str]
) -> None:
    owners = {"honest": honest, "mallory": mallory}
    done = uploads_offered(store, owners)
    (first,) = {store.build(order.build_id).owner for order in done.orders}
    (second,) = set(owners) - {first}
    waiting = upload_of(store, second)
    assert waiting.status is Status.WAITING
    assert f"an upload of {first} publishes the" in (waiting.waits_for or "")
    by_build = {build.id: owners[build.owner] for build in store.builds()}
    settled(store, done, by_build)
    store.promote_due(datetime.now(UTC) + WAIT, most=10)
    assert not sent(store).orders
    assert upload_of(store, second).outcome is Outcome.FAILED
    assert f"{first} published the" in (upload_of(store, second).reason or "")
    assert upload_of(store, first).outcome is Outcome.SUCCEEDED


def test_an_upload_that_fails_leaves_the_name_to_the_one_that_waited(store: Store) -> None:
    owners = {"honest": ("hello", "hello"), "mallory": ("hello", "hello")}
    done = uploads_offered(store, owners)
    (order,) = done.orders
    first = store.build(order.build_id).owner
    (second,) = set(owners) - {first}
    failed: AnyResult = StepResult(outcome=Outcome.FAILED, reason="the publisher refused it")
    report = report_for(order.message.attempt, token_of(order.message.attempt), UPLOAD.name, failed)
    settle_reports(store, [report], datetime.now(UTC), AROUND)
    store.promote_due(datetime.now(UTC) + WAIT, most=10)
    done = sent(store)
    settled(store, done, {one.build_id: ("hello", "hello") for one in done.orders})
    assert upload_of(store, second).outcome is Outcome.SUCCEEDED


def test_an_upload_that_had_trouble_keeps_its_names_apart_until_it_is_tried_again(store: Store) -> None:
    owners = {"honest": ("hello", "hello"), "mallory": ("hello", "hello")}
    (order,) = uploads_offered(store, owners).orders
    first = store.build(order.build_id).owner
    trouble = wire.TroubleReport(code="network", retryable=True, message="Pulp is away")
    report = report_for(order.message.attempt, token_of(order.message.attempt), UPLOAD.name, trouble)
    around = replace(AROUND, retry=replace(AROUND.retry, delay_s=60.0))
    settle_reports(store, [report], datetime.now(UTC), around)
    store.promote_due(datetime.now(UTC) + WAIT, most=10)
    assert not sent(store).orders
    store.promote_due(datetime.now(UTC) + timedelta(seconds=90), most=10)
    assert {store.build(one.build_id).owner for one in sent(store).orders} == {first}


def test_a_cancelled_upload_that_may_have_published_keeps_its_names(store: Store) -> None:
    uploads_offered(store, {"mallory": ("hello", "hello")})
    (build,) = store.builds()
    store.cancel(build.id, by="mallory")
    late = built(store, "honest", "hello", "hello")
    assert late.outcome is Outcome.FAILED
    assert "mallory" in (late.reason or "")
    with store.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.name_in_flight)) == 0


def test_the_names_of_a_cancelled_build_that_publishes_nothing_are_free(store: Store) -> None:
    source = Source(kind=SourceKind.GIT, url="https://git/hello")
    store.add_batch([BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))], owner="mallory")
    (build,) = store.builds()
    settled(store, sent(store), {build.id: ("hello", "hello")})
    store.cancel(build.id, by="mallory")
    assert built(store, "honest", "hello", "hello").outcome is Outcome.SUCCEEDED
