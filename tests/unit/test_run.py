"""workers.core.run: the environment of commands, the output that is kept, and their ends."""

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.errors import HostUnfit, LeaseLost
from tests.promises import Stopwatch
from workers.core.log import StepLog
from workers.core.run import FLOOD_FACTOR, TAIL_BYTES, CommandFailed, Completed, Ending, capture, run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[StepLog]:
    with StepLog(tmp_path / "log", limit_bytes=100_000) as log:
        yield log


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_the_log_opens_with_the_quoted_command_and_ends_with_code_and_seconds(log: StepLog, tmp_path: Path) -> None:
    done = run(["printf", "%s\\n", "two words"], cwd=tmp_path, timeout_s=10, log=log)
    lines = log.path.read_text().splitlines()
    assert lines[0] == r"[farm] $ printf '%s\n' 'two words'"
    assert lines[1] == "two words"
    assert lines[2].startswith("[farm] printf exited with code 0 after ")
    assert (done.code, done.signal, done.ending, done.tail) == (0, None, Ending.EXITED, b"two words\n")


def test_control_characters_of_a_command_do_not_reach_the_log(log: StepLog, tmp_path: Path) -> None:
    run(["true", "a\x1b[31m\nb"], cwd=tmp_path, timeout_s=10, log=log)
    assert log.path.read_text().splitlines()[0] == r"[farm] $ true 'a\x1b[31m\nb'"


def test_the_environment_starts_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "of the worker")
    text = capture(["env"], cwd=tmp_path, env={"GIVEN": "1"}, timeout_s=10, limit_bytes=1000).decode()
    assert {line.partition("=")[0] for line in text.splitlines()} == {"GIVEN", "LANG", "LC_ALL", "PATH"}


def test_a_command_that_cannot_be_watched_is_killed_and_reaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[int] = []

    def pidfd_open(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    with pytest.raises(OSError, match="Too many open files"):
        capture(shell("sleep 600"), cwd=tmp_path, timeout_s=10, limit_bytes=1000)
    assert len(started) == 1
    assert not Path(f"/proc/{started[0]}").exists()


def test_standard_input_is_closed_and_the_session_is_its_own(tmp_path: Path) -> None:
    text = capture(shell("cat; ps -o sid= -p $$"), cwd=tmp_path, timeout_s=10, limit_bytes=1000)
    assert int(text) not in (os.getsid(0), 0)


def test_output_and_errors_are_kept_as_bytes_in_order(log: StepLog, tmp_path: Path) -> None:
    run(shell(r"printf '\377one\n'; printf 'two\n' >&2; printf 'three\n'"), cwd=tmp_path, timeout_s=10, log=log)
    assert b"\xffone\ntwo\nthree\n" in log.path.read_bytes()


def test_a_code_that_is_not_allowed_raises_with_the_last_line(log: StepLog, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"sh exited with code 3 after .*: it broke") as caught:
        run(shell("echo it broke; exit 3"), cwd=tmp_path, timeout_s=10, log=log)
    assert caught.value.completed.code == 3
    assert caught.value.output == b"it broke\n"
    assert run(shell("exit 3"), cwd=tmp_path, timeout_s=10, log=log, ok_codes=(0, 3)).code == 3


def test_a_missing_tool_says_what_to_do(log: StepLog, tmp_path: Path) -> None:
    with pytest.raises(HostUnfit, match=r"no-such-tool is not installed.*deploy/bootstrap"):
        run(["no-such-tool"], cwd=tmp_path, timeout_s=10, log=log)


def test_a_tool_first_on_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = tmp_path / "dnf"
    stand_in.write_text("#!/bin/sh\necho stand-in $*\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert capture(["dnf", "x"], cwd=tmp_path, timeout_s=10, limit_bytes=100) == b"stand-in x\n"


def test_the_earlier_of_timeout_and_deadline_ends_it(log: StepLog, tmp_path: Path) -> None:
    done = run(["sleep", "60"], cwd=tmp_path, timeout_s=60, deadline=time.monotonic() + 0.2, log=log, ok_codes=None)
    assert (done.ending, done.signal) == (Ending.TIMED_OUT, signal.SIGTERM)
    assert done.seconds < 30


def test_a_process_that_ignores_term_is_killed_after_the_grace_with_its_children(log: StepLog, tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo $! > pid; while :; do sleep 1; done"
    done = run(shell(script), cwd=tmp_path, timeout_s=2.0, log=log, ok_codes=None)
    assert (done.ending, done.signal) == (Ending.TIMED_OUT, signal.SIGKILL)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_processes_that_a_command_leaves_end_with_it(log: StepLog, tmp_path: Path) -> None:
    done = run(shell("sleep 60 & echo $! > pid"), cwd=tmp_path, timeout_s=10, log=log)
    assert done.code == 0
    assert done.seconds < 30, "nobody waits for the pipe that the child still holds"
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_stop_ends_it_at_once(log: StepLog, tmp_path: Path) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    watch = Stopwatch()
    with pytest.raises(LeaseLost):
        run(["sleep", "60"], cwd=tmp_path, timeout_s=60, log=log, stop=stop)
    assert watch.within(0.1 + 0.5)
    timer.join()


def test_nothing_starts_when_stop_is_set_before(log: StepLog, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(LeaseLost):
        run(["touch", "made"], cwd=tmp_path, timeout_s=60, log=log, stop=stop)
    assert not (tmp_path / "made").exists()


def test_silence_without_cpu_is_stalled(log: StepLog, tmp_path: Path) -> None:
    done = run(["sleep", "60"], cwd=tmp_path, timeout_s=60, silence_s=0.3, log=log, ok_codes=None)
    assert done.ending is Ending.STALLED


def test_silence_with_cpu_goes_on(log: StepLog, tmp_path: Path) -> None:
    done = run(shell("while :; do :; done"), cwd=tmp_path, timeout_s=1, silence_s=0.3, log=log, ok_codes=None)
    assert done.ending is Ending.TIMED_OUT


def test_a_flood_is_cut_and_then_ended(log: StepLog, tmp_path: Path) -> None:
    done = run(["yes"], cwd=tmp_path, timeout_s=60, log=log, ok_codes=None)
    assert done.ending is Ending.FLOODED
    assert log.is_cut
    assert log.path.stat().st_size < log.limit_bytes + 200
    assert len(done.tail) <= TAIL_BYTES


def test_a_log_that_is_cut_is_no_failure(log: StepLog, tmp_path: Path) -> None:
    size = log.limit_bytes * (FLOOD_FACTOR - 1)
    done = run(["head", "-c", str(size), "/dev/zero"], cwd=tmp_path, timeout_s=60, log=log)
    assert (done.code, log.is_cut) == (0, True)


def test_a_watch_ends_it(log: StepLog, tmp_path: Path) -> None:
    done = run(["sleep", "60"], cwd=tmp_path, timeout_s=60, log=log, ok_codes=None, watch=lambda: Ending.OVER_DISK)
    assert done.ending is Ending.OVER_DISK


def test_capture_keeps_no_more_than_its_limit(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        capture(["yes"], cwd=tmp_path, timeout_s=60, limit_bytes=1000)
    with pytest.raises(CommandFailed, match="wrote more than 10 bytes"):
        capture(["printf", "12345678901"], cwd=tmp_path, timeout_s=60, limit_bytes=10)


def test_capture_gives_the_errors_of_a_failed_command(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        capture(shell("echo out; echo err >&2; exit 1"), cwd=tmp_path, timeout_s=60, limit_bytes=1000)
    assert caught.value.output == b"err\n"


def test_a_trivial_command_costs_little_more_than_a_spawn(log: StepLog, tmp_path: Path) -> None:
    """The best of many, since the machine is shared: 2 ms over the kernel's part of it on a quiet one."""
    ours, bare = [], []
    for _ in range(30):
        start = time.perf_counter()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        middle = time.perf_counter()
        run(["/bin/true"], cwd=tmp_path, timeout_s=10, log=log)
        bare.append(middle - start)
        ours.append(time.perf_counter() - middle)
    assert min(ours) - min(bare) < 0.030


def test_an_end_is_told_in_words() -> None:
    assert Completed(code=1, signal=None, seconds=2).shown == "exited with code 1 after 2.00 s"
    killed = Completed(code=None, signal=9, seconds=2, ending=Ending.TIMED_OUT)
    assert killed.shown == "timed out; was killed by signal 9 after 2.00 s"


def is_gone(pid: int) -> bool:
    """Within five seconds; a zombie that has not been reaped yet does not run."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.01)
    return False
