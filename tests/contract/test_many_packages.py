"""A build with many packages: the farm's work around rpmbuild grows no faster than their number.

The tests count calls, SQL statements and processes at two sizes, since no clock of a busy machine tells growth.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from farm import wire
from farm.broker import bounds
from farm.cli import tables
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Limits
from farm.model.work import AnyResult, StepResult, Work
from farm.repositories.staging import bring_all
from farm.service import documents
from farm.service.files import files_of
from farm.state.policy import RetryPolicy
from farm.steps.build import BuildInput, BuildResult
from farm.steps.registry import queue_of
from farm.steps.upload import UploadInput
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from tests.contexts import demo_target, step_context
from tests.fake_workers import picked, report_for, settle_reports, succeed, token_of
from tests.rpms import make_rpm, read_repository
from tests.scheduling import added, ready
from workers.core.collect import collect
from workers.core.context import StepContext
from workers.formats.rpm.results import checked_packages
from workers.steps import upload
from workers.steps.records import store_packages, store_provenance

SMALL, LARGE = 60, 240
#: Parts whose work does not depend on the number of packages make the growth smaller, and waiting makes it larger.
GROWTH_MAX = LARGE / SMALL * 1.15
POLICY = SettlePolicy(retry=RetryPolicy(max_troubles=0, delay_s=0.0), uploads_logs=True)
SOURCE = "hello-1-1.src.rpm"


@dataclass(kw_only=True)
class Effort:
    """The effort of one stage: calls of functions in all threads, SQL statements, and processes started."""

    calls: int = 0
    statements: int = 0
    processes: int = 0


#: The functions of SQLite's driver that run a statement; the store calls them directly, and through SQLAlchemy.
_STATEMENTS = {f"{kind}.{name}" for kind in ("Connection", "Cursor") for name in ("execute", "executemany")}
_CALLERS = re.compile("/(farm/store|sqlalchemy)/")


@dataclass(kw_only=True)
class Counter:
    stages: dict[str, Effort] = field(default_factory=dict)
    _now: Effort | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        calls, statements = count(), count()

        def note(frame: FrameType, event: str, called: Any) -> None:
            if event in ("call", "c_call"):
                next(calls)
            if event == "c_call" and called.__qualname__ in _STATEMENTS and _CALLERS.search(frame.f_code.co_filename):
                next(statements)

        self._now = self.stages[name] = Effort()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self._now.calls, self._now.statements = next(calls), next(statements)
            self._now = None

    def audit(self, event: str, _: object) -> None:
        if self._now is not None and event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty"):
            self._now.processes += 1


@pytest.fixture
def counter() -> Counter:
    counter = Counter()
    sys.addaudithook(counter.audit)  # Python has no way to remove it; it does nothing outside of a stage
    return counter


def _work(kind: str, given: BuildInput | UploadInput) -> Work[Any]:
    return Work(
        attempt=f"1.{kind}.x86_64.1",
        kind=kind,
        build_id=1,
        package="hello",
        target=demo_target(Path("/nowhere")),
        options=BuildOptions(),
        limits=Limits(),
        input=given,
    )


def _efforts(folder: Path, packages: int, counter: Counter) -> dict[str, Effort]:
    """A build of so many packages, from what rpmbuild left to the repository, stage by stage."""
    (folder / "results").mkdir(parents=True)
    for number in range(packages):
        make_rpm(folder / "results", f"part{number}")
    settings = Settings(data=folder / "data")
    with step_context(settings, folder, folder / "log", limits=Limits(), wall_s=600) as context:
        given, result = _built(context, folder, counter)
        _settled(settings, result, counter)
        with counter.stage("upload"):
            done = upload.run(_work("upload", given), context)
        with counter.stage("upload again"):
            upload.run(_work("upload", given), context)
    assert done.output is not None
    assert len(read_repository(done.output.versions[-1][2])) == packages
    return counter.stages


def _built(context: StepContext, folder: Path, counter: Counter) -> tuple[UploadInput, StepResult[BuildResult]]:
    name = make_rpm(folder, arch="src")
    srpm = context.store.put(name, name=name.name, kind=ArtifactKind.SRPM, identity="hello-1-1.src")
    given = BuildInput(srpm=srpm, identity="hello-1-1.src", build_requires=(), arch=Arch.X86_64, repositories=())
    with counter.stage("collect"):
        found = collect(folder / "results", ".rpm", limits=Limits())
    with counter.stage("check"):
        taken = checked_packages(found, source=name.name, arch="x86_64", context=context)
    with counter.stage("store"):
        rpms = store_packages(taken, ArtifactKind.RPM, context)
        record = store_provenance(_work("build", given), rpms, (), context)
    result = StepResult(outcome=Outcome.SUCCEEDED, artifacts=(*rpms, record), output=BuildResult(rpms=rpms))
    return UploadInput(srpm=srpm, rpms=rpms, arches=(Arch.X86_64,)), result


def _settled(settings: Settings, result: StepResult[BuildResult], counter: Counter) -> None:
    with counter.stage("report"):
        document = wire.encode_report(report_for("1.build.x86_64.1", "token", "build", result))
        bounds.check_report(wire.decode_report(document), queue_of("1.build.x86_64.1") or "")
    store = Store.open("sqlite://", create=True)
    added(store)
    for kind in ("fetch", "srpm", "build", "upload"):
        with counter.stage(f"settle {kind}"):
            _settle(store, kind, result if kind == "build" else succeed(kind))
    with counter.stage("status and artifacts"):
        build = store.build(1)
        tables.file_table(files_of(build), 100)
        json.dumps(documents.build(build))
    store.close()
    assert build.outcome is Outcome.SUCCEEDED


def _settle(store: Store, kind: str, result: AnyResult) -> None:
    store.dispatch(picked(ready(store)), datetime.now(UTC))
    label = f"1.{kind}.1" if kind in ("fetch", "srpm") else f"1.{kind}.x86_64.1"
    done = settle_reports(store, [report_for(label, token_of(label), kind, result)], datetime.now(UTC), POLICY)
    assert not done.late


def test_the_work_for_four_times_the_packages_is_four_times_as_much(tmp_path: Path, counter: Counter) -> None:
    small = _efforts(tmp_path / "small", SMALL, counter)
    counter.stages = {}
    large = _efforts(tmp_path / "large", LARGE, counter)
    assert set(small) == set(large)
    growth = {stage: round(large[stage].calls / small[stage].calls, 2) for stage in small}
    assert {stage: times for stage, times in growth.items() if times > GROWTH_MAX} == {}
    # The first build of a process starts some processes more.
    more = {
        stage: (one, small[stage])
        for stage, one in large.items()
        if one.processes > small[stage].processes or one.statements > small[stage].statements
    }
    assert more == {}


def _meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first two calls that bring a file to the disk wait for each other; alone, one fails."""
    first, calls, synchronise = threading.Barrier(2, timeout=20), count(), os.fsync

    def meet(descriptor: int) -> None:
        if next(calls) < first.parties:
            first.wait()
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", meet)


def test_packages_are_brought_to_the_disk_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    made = [make_rpm(tmp_path / "results", f"part{number}") for number in range(4)]
    pairs = [(path, tmp_path / path.name) for path in made]
    with monkeypatch.context() as patched:
        _meeting(patched)
        bring_all(pairs)
    assert [copy.read_bytes() for _, copy in pairs] == [path.read_bytes() for path in made]
    with step_context(Settings(data=tmp_path / "data"), tmp_path, tmp_path / "log", limits=Limits()) as context:
        found = collect(tmp_path / "results", ".rpm", limits=Limits())
        taken = checked_packages(found, source=SOURCE, arch="x86_64", context=context)
        with monkeypatch.context() as patched:
            _meeting(patched)
            stored = store_packages(taken, ArtifactKind.RPM, context)
    assert [one.name for one in stored] == [one.name for one in found]
