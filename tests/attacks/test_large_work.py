"""Requests and reports that would make a document too long for Redis: each costs its own build alone. Such a document
ended the scheduler's connection, which it took for an outage, and it tried the same again without end.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import BadRequest, BadSource
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildOptions, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyWork
from farm.scheduler.keep_logs import LogKeeper
from farm.service.request import OPTIONS_MAX, OPTIONS_MAX_CHARS, make_options
from farm.service.source import check_source
from farm.steps.logs import LogsInput
from farm.store.logs import LOGS_OF_A_STEP
from farm.store.store import Store
from tests.fake_workers import Answer, FakeWorkers, artifact, fail, succeed
from tests.redis_server import redis_server
from tests.scheduling import scheduling
from tests.waiting import until

RPM = format_of("rpm")
SOURCE = Source(kind=SourceKind.GIT, url="https://example.org/hello.git")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_UPLOAD_LOGS": "yes"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.database, create=True)
    yield store
    store.close()


def enqueue(settings: Settings, store: Store, options: BuildOptions = BuildOptions()) -> int:  # noqa: B008 - a value
    request = BuildRequest(source=SOURCE, target="demo", arches=(Arch.X86_64,), options=options)
    build = store.add_batch([request], owner="mallory" if options.defines else "ann").builds[0]
    control = Control(settings)
    control.wake()
    control.close()
    return build.id


def ended(store: Store, build: int) -> Outcome | None:
    until(lambda: store.build(build).status is Status.FINISHED, f"the end of build {build}")
    return store.build(build).outcome


def test_work_that_is_too_long_ends_its_build_and_no_other_waits(settings: Settings, store: Store) -> None:
    """As a program can write it that does not ask the service."""
    large = BuildOptions(defines=tuple((f"macro{n}", "x" * 4096) for n in range(5000)))
    with scheduling(settings), FakeWorkers(settings):
        evil = enqueue(settings, store, large)
        assert ended(store, enqueue(settings, store)) is Outcome.SUCCEEDED
        assert ended(store, evil) is Outcome.ERRORED
    assert "bytes, and at most" in (store.build(evil).reason or "")


def test_a_request_has_bounded_options() -> None:
    for options in (
        {"with_": [f"x{n}" for n in range(OPTIONS_MAX + 1)]},
        {"defines": [(f"macro{n}", "x") for n in range(OPTIONS_MAX + 1)]},
        {"defines": [(f"macro{n}", "x" * 4000) for n in range(OPTIONS_MAX_CHARS // 4000 + 1)]},
        {"without": ["x" * (OPTIONS_MAX_CHARS + 1)]},
    ):
        with pytest.raises(BadRequest, match="use at most"):
            make_options(RPM, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("filename", ["a" * 300 + ".src.rpm", "../a.src.rpm", "a\x1b.src.rpm", ""])
def test_a_stored_source_has_a_name_that_a_file_can_have(filename: str) -> None:
    source = Source(kind=SourceKind.SRPM, sha256="ab" * 32, filename=filename)
    with pytest.raises(BadSource):
        check_source(source, RPM, None)
    check_source(replace(source, filename="a.src.rpm"), RPM, None)
    with pytest.raises(BadSource):
        check_source(replace(source, filename="a.src.rpm", sha256="../../etc/passwd"), RPM, None)


def test_a_worker_that_reports_very_many_logs_has_few_of_them_published(settings: Settings, store: Store) -> None:
    logs = tuple(artifact(f"log{n}", ArtifactKind.LOG) for n in range(5 * LOGS_OF_A_STEP))

    def answer(work: AnyWork) -> Answer:
        return replace(fail(), artifacts=logs) if work.kind == "build" else succeed(work.kind)

    with scheduling(settings), FakeWorkers(settings, answer=answer) as workers:
        assert ended(store, enqueue(settings, store)) is Outcome.FAILED
    given = workers.done[-1].input
    assert isinstance(given, LogsInput)
    assert len(given.logs) == LOGS_OF_A_STEP + 2
    assert given.logs[-1].artifact.name == logs[-1].name


def test_a_notice_of_an_attempt_that_never_was_keeps_no_log(settings: Settings, store: Store) -> None:
    leases = Leases(settings)
    keeper = LogKeeper(settings, leases, store)
    build = enqueue(settings, store)
    labels = [f"{build + 1000}.build.x86_64.1", f"{build}.build.x86_64.7", f"{build}.fetch.21"]
    for label in labels:
        leases.show_log(label, 0, b"x" * 2**20)
    keeper.note(labels)
    until(lambda: not keeper._due, "the keeper to have looked")
    keeper.close()
    leases.close()
    assert not [path for path in settings.artifacts.rglob("*") if path.is_file()]
