"""Builds whose packages have one name, version and arch: the newer replaces the older one, and both say so."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyResult, StepResult
from farm.steps.build import BuildResult
from farm.steps.srpm import SrpmResult
from farm.steps.upload import UPLOAD
from farm.store import schema
from farm.store.scheduling import Committed
from farm.store.store import Store
from tests.contract.test_store import AROUND, drive
from tests.fake_workers import Answer, picked, report_for, settle_reports, succeed, token_of
from tests.messages import KINDS
from tests.scheduling import ready


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/farm.db", create=True)
    yield opened
    opened.close()


def rpm(identity: str, content: str) -> Artifact:
    digest = (content.encode().hex() + "0" * 64)[:64]
    return Artifact(name=f"{identity}.rpm", kind=ArtifactKind.RPM, sha256=digest, size_bytes=1, identity=identity)


def answers(content: str, *identities: str, package: str = "same") -> dict[str, Answer]:
    """The steps of a build with this content in all of its packages."""
    made: dict[str, Answer] = {kind: succeed(kind, package) for kind in KINDS}
    packed: AnyResult = succeed("srpm", package)
    assert isinstance(packed.output, SrpmResult)
    source = replace(packed.output.srpm, sha256=rpm("", f"{content} source").sha256)
    made["srpm"] = replace(packed, output=replace(packed.output, srpm=source))
    rpms = tuple(rpm(identity, content) for identity in identities or (f"{package}-1-1.x86_64",))
    built: AnyResult = StepResult(outcome=Outcome.SUCCEEDED, output=BuildResult(rpms=rpms))
    made["build"] = built
    return made


def asked(store: Store, package: str = "same", owner: str = "ann") -> int:
    source = Source(kind=SourceKind.GIT, url=f"https://git/{package}")
    request = BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))
    return store.add_batch([request], owner=owner).builds[0].id


def built(store: Store, content: str, *identities: str, package: str = "same") -> Build:
    build_id = asked(store, package)
    drive(store, answers(content, *identities, package=package))
    return store.build(build_id)


def pairs(build: Build) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The packages that it replaces, and those of its own that were replaced, with the other build."""
    return [(one.package, one.of) for one in build.replaces], [(one.package, one.by) for one in build.replaced]


def test_two_contents_of_one_version_are_a_replacement_that_both_builds_show(store: Store) -> None:
    first, second = built(store, "first"), built(store, "second")
    assert second.outcome is Outcome.SUCCEEDED
    both = ["same-1-1.src", "same-1-1.x86_64"]
    assert pairs(store.build(first.id)) == ([], [(name, second.id) for name in both])
    assert pairs(store.build(second.id)) == ([(name, first.id) for name in both], [])
    found = {one.package: one.arches for one in store.build(first.id).replaced}
    assert found == {"same-1-1.src": (), "same-1-1.x86_64": (Arch.X86_64,)}
    assert [pairs(one) for one in store.builds()] == [pairs(store.build(one)) for one in (second.id, first.id)]


def test_the_same_content_again_replaces_nothing_and_a_third_replaces_both(store: Store) -> None:
    first, second = built(store, "one"), built(store, "one")
    assert pairs(store.build(first.id)) == pairs(store.build(second.id)) == ([], [])
    third = built(store, "other")
    assert {build for _, build in pairs(third)[0]} == {first.id, second.id}


def test_another_version_or_target_replaces_nothing(store: Store) -> None:
    first = built(store, "first", "same-1-1.x86_64")
    built(store, "first", "same-1-2.x86_64", "same-1:1-1.x86_64")
    assert pairs(store.build(first.id)) == ([], [])


def test_a_build_whose_upload_is_run_again_has_its_packages_back(store: Store) -> None:
    first, second = built(store, "first"), built(store, "second")
    store.retry(first.id, step="upload", by="ann")
    drive(store, answers("first"))
    replaces, replaced = pairs(store.build(first.id))
    assert {build for _, build in replaces} == {second.id}
    assert replaced == [], "its packages are there again"
    replaces, replaced = pairs(store.build(second.id))
    assert {build for _, build in replaced} == {first.id}
    assert {build for _, build in replaces} == {first.id}, "the record of the first replacement stays"


def test_an_upload_that_is_run_again_is_noted_once(store: Store) -> None:
    first = built(store, "first")
    store.retry(first.id, step="upload", by="ann")
    drive(store, answers("first"))
    with store.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.published_package)) == 2


def test_a_package_of_another_source_package_is_not_replaced(store: Store) -> None:
    first = built(store, "first", "first-1-1.x86_64", "shared-1-1.x86_64", package="first")
    other = built(store, "other", "other-1-1.x86_64", "shared-1-1.x86_64", package="other")
    assert other.outcome is Outcome.FAILED
    assert f"the source package first published shared-1-1.x86_64 for target demo in build {first.id}" in (
        other.reason or ""
    )
    assert "another name, version or release" in (other.reason or "")
    assert [step.kind for step in other.steps if step.outcome is Outcome.FAILED] == ["build"]
    assert pairs(store.build(first.id)) == ([], [])
    newer = built(store, "newer", "other-1-2.x86_64", "shared-1-2.x86_64", package="other")
    assert newer.outcome is Outcome.SUCCEEDED, "a package may move to another source package in a new version"


def send(store: Store) -> Committed:
    return store.dispatch(picked(ready(store)), datetime.now(UTC))


def settle(store: Store, done: Committed, contents: dict[int, str]) -> Committed:
    reports = [
        report_for(
            one.message.attempt,
            token_of(one.message.attempt),
            one.message.kind,
            answers(contents[one.build_id])[one.message.kind],
        )
        for one in done.orders
    ]
    return settle_reports(store, reports, datetime.now(UTC), AROUND)


@pytest.mark.parametrize("is_same", [False, True])
def test_uploads_of_one_version_wait_for_each_other_unless_they_bring_the_same(store: Store, is_same: bool) -> None:
    contents = {asked(store): "first", asked(store): "first" if is_same else "second"}
    done = settle(store, settle(store, send(store), contents), contents)  # fetch, srpm
    done = settle(store, send(store), contents) if not done.orders else settle(store, done, contents)
    assert {one.message.kind for one in done.orders} == {"upload"}
    offered = {one.build_id for one in done.orders}
    assert len(offered) == (2 if is_same else 1)
    if is_same:
        return
    (first,) = offered
    (second,) = contents.keys() - offered
    waiting = next(step for step in store.build(second).steps if step.kind == "upload")
    assert waiting.status is Status.WAITING
    assert f"build {first} publishes same-1-1.src for target demo at the moment" in (waiting.waits_for or "")
    settle(store, done, contents)
    store.promote_due(datetime.now(UTC) + timedelta(seconds=2), most=10)
    done = send(store)
    (order,) = done.orders
    given = UPLOAD.make(order, None)  # type: ignore[arg-type]
    assert set(given.replaces) == {("same-1-1.src", first), ("same-1-1.x86_64", first)}
    settle(store, done, contents)
    assert {build for _, build in pairs(store.build(first))[1]} == {second}
