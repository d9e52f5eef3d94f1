"""A build host that lies to the publishers: about sizes, about metadata, about the name of a source package."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm import wire
from farm.config import Settings
from farm.errors import BadSource, LeaseLost, RepositoryTrouble, WorkerLost
from farm.formats.rpm.format import RpmFormat
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildOptions, Phase
from farm.model.outcome import Outcome, Status
from farm.model.target import Limits
from farm.model.work import Work
from farm.repositories import checks, open_repositories
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.staging import bring
from farm.state.policy import RetryPolicy
from farm.steps.upload import UploadInput
from farm.store import schema
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from tests.contexts import demo_target, step_context
from tests.fake_workers import artifact, fail, picked, report_for, settle_reports, succeed, token_of
from tests.rpms import make_rpm, sha256
from tests.scheduling import added, ready
from workers.core.context import Ended
from workers.steps import upload
from workers.steps.logs import check_size

POLICY = SettlePolicy(retry=RetryPolicy(max_troubles=1, delay_s=0.0))
OS = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


def hole(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def test_a_file_of_another_size_than_was_reported_is_not_read(tmp_path: Path) -> None:
    path = hole(tmp_path / "log", 2**40)
    reported = replace(artifact("log", ArtifactKind.LOG), size_bytes=9)
    with pytest.raises(BadSource, match="was reported with 9 bytes"):
        check_size(reported, path, 2**50)
    with pytest.raises(BadSource, match="at most"):
        check_size(replace(reported, size_bytes=2**40), path, 2**30)
    check_size(replace(reported, size_bytes=2**40), path, 2**40)


def test_the_copy_of_a_large_file_is_stopped(tmp_path: Path) -> None:
    source = hole(tmp_path / "source", 2**40)
    source.chmod(0o666)  # no hard link: other users may write to it
    stop = threading.Event()
    stop.set()
    with pytest.raises(LeaseLost):
        bring(source, tmp_path / "copy", stop)


def test_packages_with_too_much_metadata_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_repositories(Settings.from_env({"FARM_DATA": str(tmp_path / "d")}))
    paths = [make_rpm(tmp_path, name) for name in ("one", "two", "three")]
    given = [RepositoryPackage(path=path, sha256=sha256(path), filename=path.name) for path in paths]
    assert backend.add(OS, given[:1]) == 1
    monkeypatch.setattr(checks, "ADD_METADATA_BYTES", 100)
    with pytest.raises(BadSource, match="MiB of metadata"):
        backend.add(OS, given[1:])
    assert backend.current(OS) == 1


def test_an_upload_that_is_refused_changes_no_repository(tmp_path: Path) -> None:
    """The source package is sound and comes first; a builder reported a package that the index refuses, and comes
    last."""
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "d")})
    (tmp_path / "work").mkdir()
    with step_context(settings, tmp_path / "work", tmp_path / "log", limits=Limits()) as context:
        source, good = make_rpm(tmp_path, "hello", arch="src"), make_rpm(tmp_path, "hello-debuginfo")
        bad = make_rpm(tmp_path, "hello", summary=b"a\x01b")
        kept = [
            context.store.put(path, name=path.name, kind=ArtifactKind.RPM, identity=path.name.removesuffix(".rpm"))
            for path in (source, good, bad)
        ]
        given = UploadInput(srpm=kept[0], rpms=(kept[1], kept[2]), arches=(Arch.X86_64,))
        work = Work(
            attempt="1.upload.x86_64.1",
            kind="upload",
            build_id=1,
            package="hello",
            target=demo_target(tmp_path),
            options=BuildOptions(),
            limits=Limits(),
            input=given,
        )
        with pytest.raises(Ended, match="refused by the repository") as ended:
            upload.run(work, context)
    assert ended.value.outcome is Outcome.FAILED
    backend = open_repositories(settings)
    for name in upload.destinations("demo", given, RpmFormat()):
        assert backend.current(name) == 0, name.path


def to_upload(store: Store, package: str = "hello") -> int:
    """Up to where the upload is at work."""
    build_id = added(store)
    for kind in ("fetch", "srpm", "build"):
        store.dispatch(picked(ready(store)), now())
        label = f"{build_id}.{kind}.x86_64.1" if kind == "build" else f"{build_id}.{kind}.1"
        done = settle_reports(store, [report_for(label, token_of(label), kind, succeed(kind, package))], now(), POLICY)
        assert not done.late
    return build_id


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("code", [WorkerLost.code, RepositoryTrouble.code])
def test_an_upload_that_may_have_published_a_part_keeps_its_names(store: Store, code: str) -> None:
    build_id = to_upload(store)
    label = f"{build_id}.upload.x86_64.1"
    trouble = wire.TroubleReport(code=code, retryable=True, message="away")
    settle_reports(store, [report_for(label, token_of(label), "upload", trouble)], now(), POLICY)
    store.cancel(build_id, by="ann")
    assert store.build(build_id).status is Status.FINISHED
    with store.reading() as connection:
        column = schema.package_owner.c
        owners = {(row.name, row.owner) for row in connection.execute(sa.select(column.name, column.owner))}
    assert owners == {("hello", "ann")}


def test_a_source_package_has_one_identity(store: Store) -> None:
    build_id = added(store)
    store.dispatch(picked(ready(store)), now())
    fetch, srpm = f"{build_id}.fetch.1", f"{build_id}.srpm.1"
    settle_reports(store, [report_for(fetch, token_of(fetch), "fetch")], now(), POLICY)
    honest = succeed("srpm")
    assert honest.output is not None
    evil = replace(honest.output.srpm, identity="kernel-6-1.src")
    lie = replace(honest, output=replace(honest.output, srpm=evil))
    settle_reports(store, [report_for(srpm, token_of(srpm), "srpm", lie)], now(), POLICY)
    (step,) = [one for one in store.build(build_id).steps if one.kind == "srpm"]
    assert step.attempts[0].outcome is Outcome.ERRORED
    assert "at once" in (step.attempts[0].reason or "")


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.EXCLUDED, Outcome.ERRORED, Outcome.UNCHANGED])
def test_a_worker_reports_no_outcome_that_is_the_schedulers_to_give(store: Store, outcome: Outcome) -> None:
    build_id = to_upload(store)
    label = f"{build_id}.upload.x86_64.1"
    lie = fail("cancelled by ann", outcome)
    settle_reports(store, [report_for(label, token_of(label), "upload", lie)], now(), POLICY)
    (step,) = [one for one in store.build(build_id).steps if one.kind == "upload"]
    assert (step.outcome, step.attempts[0].outcome) == (None, Outcome.ERRORED)
    assert f"the outcome {outcome}, which no worker" in (step.attempts[0].reason or "")


@pytest.mark.parametrize(
    "phases",
    [
        (Phase(name="x" * 4000, seconds=1.0),) * 4,
        (Phase(name="build", seconds=1.0),) * 2000,
        (Phase(name="a\x1b[2J", seconds=1.0),),
        (Phase(name="build", seconds=-1e300),),
    ],
    ids=["long names", "many", "escapes", "below zero"],
)
def test_phases_that_no_step_has_are_not_recorded(store: Store, phases: tuple[Phase, ...]) -> None:
    """Each attempt keeps its phases for good, and every document of its build has them: 16 MiB each, once."""
    build_id = to_upload(store)
    label = f"{build_id}.upload.x86_64.1"
    lie = replace(succeed("upload"), phases=phases)
    settle_reports(store, [report_for(label, token_of(label), "upload", lie)], now(), POLICY)
    (step,) = [one for one in store.build(build_id).steps if one.kind == "upload"]
    assert step.attempts[0].outcome is Outcome.ERRORED
    assert step.attempts[0].phases == ()
    assert "phases" in (step.attempts[0].reason or "")


def test_a_wrong_size_in_a_report_does_not_become_the_size_in_other_builds(store: Store) -> None:
    """The digest of a public source is known before the farm has the file."""
    source = artifact("hello.tar.gz", ArtifactKind.SOURCE)
    found = []
    for size_bytes in (1, source.size_bytes):
        build_id = added(store)
        done = replace(succeed("fetch"), artifacts=(replace(source, size_bytes=size_bytes),))
        store.dispatch(picked(ready(store)), now())
        label = f"{build_id}.fetch.1"
        assert not settle_reports(store, [report_for(label, token_of(label), "fetch", done)], now(), POLICY).late
        (kept,) = store.build(build_id).steps[0].attempts[0].artifacts
        found.append(kept.size_bytes)
    assert found == [1, source.size_bytes]
