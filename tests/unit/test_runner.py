"""The runner keeps a step's log, gives a printable reason, and leaves nothing behind, whatever the step does."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.artifacts import Access, ArtifactStore, open_store
from farm.config import Settings
from farm.errors import (
    BadSource,
    DiskFull,
    FarmError,
    InputMissing,
    LeaseLost,
    NetworkTrouble,
    NotFound,
    RootTrouble,
    Trouble,
    Unforeseen,
)
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Limits, Target
from farm.model.work import AnyWork, StepResult, Work
from farm.steps.build import BuildInput, BuildResult
from tests.artifacts import content_of
from workers.core.context import Ended, StepContext
from workers.isolation.pids import owner
from workers.isolation.scratch import alive_folder, at_work, scratch_name
from workers.steps import registry
from workers.steps.runner import run_step, sweep

_ELSEWHERE = "0123456789"  # a machine that is not this one
_DEAD_PID = 2**22 - 1  # above what any machine gives out
Step = Callable[[AnyWork, StepContext], Any]

WORK = Work(
    attempt="1.build.x86_64.1",
    kind="build",
    build_id=1,
    package="hello",
    target=Target(
        name="demo", distribution="demo", release="1", arches=(Arch.X86_64,), repositories=(), packages=("demo-build",)
    ),
    options=BuildOptions(),
    limits=Limits(),
    input=BuildInput(
        srpm=Artifact(name="hello-1-1.src.rpm", kind=ArtifactKind.SRPM, sha256="0" * 64, size_bytes=1),
        identity="hello-1-1.src",
        build_requires=(),
        arch=Arch.X86_64,
        repositories=(),
    ),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Step], None]:
    """Puts a step of the test's own into the table of steps."""
    return lambda step: monkeypatch.setitem(registry._RUNS, "build", step)


def succeed(_: AnyWork, context: StepContext) -> StepResult[BuildResult]:
    with context.phase("rpmbuild"):
        context.log.write(b"all is well\n")
    return StepResult(outcome=Outcome.SUCCEEDED, output=BuildResult(rpms=()))


def raising(error: Exception) -> Step:
    def run(_: AnyWork, context: StepContext) -> Any:
        context.log.write(b"the last words\n")
        raise error

    return run


def dead_name(prefix: str) -> str:
    """The name of a folder that a worker made here that is dead now."""
    return scratch_name(prefix, 1).replace(owner(), f"{_DEAD_PID}-1")


def log_of(settings: Settings, artifacts: tuple[Artifact, ...]) -> str:
    (log,) = (artifact for artifact in artifacts if artifact.kind is ArtifactKind.LOG)
    assert log.name == "build.x86_64.log"
    return content_of(open_store(settings), log.sha256).decode()


def stored(settings: Settings) -> list[Path]:
    return [path for path in settings.artifacts.rglob("*") if path.is_file()]


def test_a_success_has_its_log_phases_and_output_and_leaves_no_folder(
    settings: Settings, step: Callable[[Step], None]
) -> None:
    step(succeed)
    result = run_step(WORK, settings)
    assert (result.outcome, result.reason, result.output) == (Outcome.SUCCEEDED, None, BuildResult(rpms=()))
    assert [phase.name for phase in result.phases] == ["rpmbuild"]
    log = log_of(settings, result.artifacts)
    assert log.startswith("[farm] build of hello for demo, attempt 1.build.x86_64.1\n")
    assert "[farm] phase rpmbuild\nall is well\n" in log
    assert list(settings.work.iterdir()) == []


def test_the_store_is_opened_with_the_access_of_the_attempt(
    settings: Settings, step: Callable[[Step], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Access | None] = []

    def recording(settings: Settings, *, access: Access | None = None) -> ArtifactStore:
        opened.append(access)
        return open_store(settings, access=access)

    monkeypatch.setattr("workers.steps.runner.open_store", recording)
    step(succeed)
    access = Access(attempt=WORK.attempt, token="secret")
    run_step(WORK, settings, access=access)
    assert opened == [access]


def test_a_step_that_ended_early_is_a_result_with_its_log(settings: Settings, step: Callable[[Step], None]) -> None:
    step(raising(Ended(Outcome.UNRESOLVABLE, "nothing provides libfoo")))
    result = run_step(WORK, settings)
    assert (result.outcome, result.reason, result.excerpt) == (Outcome.UNRESOLVABLE, "nothing provides libfoo", None)
    assert log_of(settings, result.artifacts).endswith("the last words\n[farm] unresolvable: nothing provides libfoo\n")


def test_the_input_of_a_step_is_not_held_against_its_host(settings: Settings, step: Callable[[Step], None]) -> None:
    """An evil builder reports packages that are in no store, or are none; the publisher must not be quarantined."""
    step(raising(NotFound("no artifact")))
    with pytest.raises(InputMissing, match="no artifact") as missing:
        run_step(WORK, settings)
    assert (missing.value.retryable, missing.value.remote) == (True, "the artifact store")
    step(raising(BadSource("no RPM")))
    with pytest.raises(BadSource) as bad:
        run_step(WORK, settings)
    assert bad.value.remote == "the input of the step"


def test_a_failure_without_a_reason_has_it_from_the_log(settings: Settings, step: Callable[[Step], None]) -> None:
    def run(_: AnyWork, context: StepContext) -> StepResult[BuildResult]:
        context.log.write(b"cc -c a.c\na.c:1:1: error: unknown type name 'intt'\nmake: *** [all] Error 1\n")
        context.log.write(b"error: Bad exit status from /var/tmp/rpm-tmp.a (%build)\n")
        return StepResult(outcome=Outcome.FAILED)

    step(run)
    result = run_step(WORK, settings)
    assert "unknown type name 'intt'" in (result.reason or "")
    assert "cc -c a.c" in (result.excerpt or "")


def test_a_failure_without_any_words_says_so(settings: Settings, step: Callable[[Step], None]) -> None:
    step(lambda *_: StepResult(outcome=Outcome.FAILED))
    assert run_step(WORK, settings).reason


@pytest.mark.parametrize("reason", ["\x1b]0;owned\x07\u202e", "two\nlines", "x" * 100_000])
def test_a_reason_can_always_be_shown_on_one_line(
    settings: Settings, step: Callable[[Step], None], reason: str
) -> None:
    step(raising(Ended(Outcome.FAILED, reason)))
    shown = run_step(WORK, settings).reason or ""
    assert shown.isprintable()
    assert 0 < len(shown) <= 1000


@pytest.mark.parametrize("error", [NetworkTrouble("no answer"), RootTrouble("no root"), BadSource("no package")])
def test_trouble_carries_the_log_which_names_it(
    settings: Settings, step: Callable[[Step], None], error: FarmError
) -> None:
    step(raising(error))
    with pytest.raises(type(error)) as raised:
        run_step(WORK, settings)
    log = log_of(settings, raised.value.artifacts)
    assert log.endswith(f"the last words\n[farm] farm trouble ({error.code}): {error}\n")
    assert list(settings.work.iterdir()) == []


def test_a_mistake_of_the_farm_is_unforeseen_trouble_with_its_traceback_in_the_log(
    settings: Settings, step: Callable[[Step], None]
) -> None:
    step(raising(KeyError("srpm")))
    with pytest.raises(Unforeseen, match="KeyError in build: 'srpm'") as raised:
        run_step(WORK, settings)
    assert raised.value.retryable
    assert isinstance(raised.value, Trouble)
    log = log_of(settings, raised.value.artifacts)
    assert "the last words\n[farm] Traceback" in log
    assert "KeyError: 'srpm'" in log


def test_a_lost_lease_stores_nothing(settings: Settings, step: Callable[[Step], None]) -> None:
    step(raising(LeaseLost("gone")))
    with pytest.raises(LeaseLost):
        run_step(WORK, settings)
    assert (stored(settings), list(settings.work.iterdir())) == ([], [])


def test_a_result_that_comes_after_the_stop_is_not_one(settings: Settings, step: Callable[[Step], None]) -> None:
    stop = threading.Event()

    def run(work: AnyWork, context: StepContext) -> StepResult[BuildResult]:
        stop.set()
        return succeed(work, context)

    step(run)
    with pytest.raises(LeaseLost, match=r"attempt 1\.build\.x86_64\.1 was stopped"):
        run_step(WORK, settings, stop=stop)
    assert (stored(settings), list(settings.work.iterdir())) == ([], [])


def test_the_context_has_the_orders_limits_and_is_shown_before_the_step(
    settings: Settings, step: Callable[[Step], None]
) -> None:
    seen: list[StepContext] = []

    @contextmanager
    def watch(context: StepContext) -> Iterator[None]:
        seen.append(context)
        yield
        assert context.log.path.exists()

    step(succeed)
    work = replace(WORK, limits=Limits(wall_s=5, log_bytes=20))
    result = run_step(work, settings, watch=watch)
    (context,) = seen
    assert (context.limits, context.log.limit_bytes, context.attempt) == (work.limits, 20, work.attempt)
    assert "the log reached its limit of 20 bytes" in log_of(settings, result.artifacts)


def test_steps_beside_each_other_have_folders_of_their_own(settings: Settings, step: Callable[[Step], None]) -> None:
    together = threading.Barrier(4, timeout=20)
    folders: list[Path] = []

    def run(work: AnyWork, context: StepContext) -> StepResult[BuildResult]:
        folders.append(context.workdir)
        together.wait()
        assert list(context.workdir.iterdir()) == []
        return succeed(work, context)

    step(run)
    threads = [threading.Thread(target=run_step, args=(WORK, settings)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 4


def test_with_keep_failed_the_files_of_trouble_are_kept_where_the_log_says(
    settings: Settings, step: Callable[[Step], None]
) -> None:
    def run(_: AnyWork, context: StepContext) -> Any:
        (context.workdir / "evidence").write_bytes(b"")
        raise RootTrouble("no root")

    step(run)
    with pytest.raises(RootTrouble) as raised:
        run_step(WORK, replace(settings, keep_failed=True))
    (kept,) = settings.work.iterdir()
    assert f"is kept in {kept}\n" in log_of(settings, raised.value.artifacts)
    assert (kept / "work/evidence").exists()
    step(succeed)
    run_step(WORK, replace(settings, keep_failed=True))
    sweep(settings)
    assert list(settings.work.iterdir()) == [kept], "a success is not kept, and a sweep leaves alone what is"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_with_keep_failed_the_work_folder_of_a_failed_package_is_kept(
    settings: Settings, step: Callable[[Step], None], outcome: Outcome
) -> None:
    def run(_: AnyWork, context: StepContext) -> Any:
        (context.workdir / "evidence").write_bytes(b"")
        return StepResult(outcome=outcome, reason="its own fault")

    step(run)
    result = run_step(WORK, replace(settings, keep_failed=True))
    (kept,) = settings.work.iterdir()
    assert f"is kept in {kept}\n" in log_of(settings, result.artifacts)
    assert (kept / "work/evidence").exists()
    run_step(WORK, settings)
    assert list(settings.work.iterdir()) == [kept], "nothing more is kept without the setting"


def test_a_sweep_removes_files_of_the_dead_and_nothing_else(settings: Settings, step: Callable[[Step], None]) -> None:
    settings.work.mkdir(parents=True)
    dead = settings.work / dead_name("step")
    (dead / "work").mkdir(parents=True)
    (dead / "work/link").symlink_to(settings.data)
    others = [settings.work / name for name in ("step-x", "step-1-2", "other", f"kept-{dead_name('step')}")]
    for other in others:
        other.mkdir()
    alive: list[bool] = []

    def run(work: AnyWork, context: StepContext) -> StepResult[BuildResult]:
        sweep(settings)
        alive.append(context.workdir.is_dir())
        return succeed(work, context)

    step(run)
    run_step(WORK, settings)
    assert alive == [True], "a running step's folder is not an orphan"
    assert sorted(settings.work.iterdir()) == sorted(others)
    assert os.access(settings.data, os.R_OK)


def test_folders_of_another_machine_are_not_swept_until_nothing_runs_there(settings: Settings) -> None:
    name = f"{_ELSEWHERE}-{_DEAD_PID}-1-1"  # no process here has that pid, which proves nothing
    theirs = [
        settings.work / f"step-{name}",
        settings.work / f"mock/room-{name}",
        settings.templates / f"demo/x86_64/new-{name}",
        settings.templates / f"demo/x86_64/key/layers/new-{name}",
    ]
    for folder in theirs:
        folder.mkdir(parents=True)
    sweep(settings)
    assert [folder.is_dir() for folder in theirs] == [True] * 4, "nothing is known of that machine"
    alive_folder(settings).mkdir()
    with (alive_folder(settings) / _ELSEWHERE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        sweep(settings)
        assert [folder.is_dir() for folder in theirs] == [True] * 4, "it is at work"
    sweep(settings)
    assert [folder.exists() for folder in theirs] == [False] * 4


def test_while_a_step_runs_its_machine_is_at_work(settings: Settings, step: Callable[[Step], None]) -> None:
    def is_free() -> bool:
        (machine,) = alive_folder(settings).iterdir()
        with machine.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def run(work: AnyWork, context: StepContext) -> StepResult[BuildResult]:
        with at_work(alive_folder(settings)):  # another step beside it, which ends first
            pass
        seen.append(is_free())
        return succeed(work, context)

    seen: list[bool] = []
    step(run)
    run_step(WORK, settings)
    assert (seen, is_free()) == ([False], True)


def test_files_of_mock_beside_the_templates_do_not_end_a_sweep(settings: Settings) -> None:
    (settings.templates / "mock").mkdir(parents=True)
    (settings.templates / "mock/farm-0123.cfg").write_text("include('/etc/mock/x.cfg')\n")
    dead = [
        settings.work / dead_name("step"),
        settings.work / "mock" / dead_name("room"),
        settings.templates / "demo/x86_64" / dead_name("new"),
    ]
    for folder in dead:
        folder.mkdir(parents=True)
    assert sweep(settings) >= 3
    assert [folder.exists() for folder in dead] == [False] * 3
    assert (settings.templates / "mock/farm-0123.cfg").exists()


def test_a_folder_that_cannot_be_swept_does_not_stop_the_sweep(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A root with a mount in it cannot be removed; here it is that nothing can, in the folder with the templates."""
    stuck = settings.templates / "demo/x86_64" / dead_name("new")
    dead = [settings.work / dead_name("step"), settings.work / "mock" / dead_name("room")]
    for folder in (stuck, *dead):
        folder.mkdir(parents=True)
    for number in range(300):  # more than is removed without rm
        (stuck / f"{number}").touch()
    tools = settings.data / "tools"
    tools.mkdir()
    (tools / "rm").write_text("#!/bin/sh\necho 'Device or resource busy' >&2\nexit 1\n")
    (tools / "rm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    sweep(settings)
    assert (stuck.exists(), [folder.exists() for folder in dead]) == (True, [False] * 2)
    (said,) = [record for record in caplog.records if getattr(record, "action", "") == "sweep"]
    assert str(stuck) in said.getMessage()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_wherever_it_is_met(settings: Settings, step: Callable[[Step], None], number: int) -> None:
    step(raising(OSError(number, os.strerror(number), "/somewhere")))
    with pytest.raises(DiskFull, match=r"is full: .*'/somewhere'; free some space there") as caught:
        run_step(WORK, settings)
    assert "farm trouble (disk-full)" in log_of(settings, caught.value.artifacts)


def test_another_error_of_the_system_is_unforeseen(settings: Settings, step: Callable[[Step], None]) -> None:
    step(raising(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(Unforeseen, match="Input/output error"):
        run_step(WORK, settings)
