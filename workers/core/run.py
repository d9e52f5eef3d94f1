"""Runs all processes of the workers, with limits, and kills them. process.py starts one and reads its output.

Owns: the reasons that end a command, the log's first and last lines, the kill.
Does not own: sandboxes, cgroups and disk accounts, which come in as a `Tree` and a `watch`.
"""

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from farm.errors import LeaseLost, Trouble
from farm.model.text import printable
from workers.core.log import StepLog
from workers.core.process import Pump, end, pipe, signal_group, start

GRACE_S = 2.0  # from TERM to KILL at a limit
STOP_GRACE_S = 0.2  # the same when the attempt was stopped: enough for git to remove its lock files
TICK_S = 0.1  # how often stop, deadline and limits are checked; output and exit are noticed at once
FLOOD_FACTOR = 4  # a command that writes this many times the log's limit is ended
TAIL_BYTES = 16 * 1024
_IDLE_SHARE = 0.01  # a silent command that uses less than this share of one CPU is stalled


class Ending(StrEnum):
    """The reason for the end of a command. All but EXITED mean that this module killed it."""

    EXITED = "exited"
    TIMED_OUT = "timed out"
    STALLED = "stalled"
    OVER_DISK = "over its disk limit"
    OVER_FILES = "over its limit of files"
    MOST_OF_DISK = "stopped because it used most of the disk's free space"
    MOST_OF_FILES = "stopped because it made most of the files that the disk had space for"
    DISK_FULL = "stopped because the disk is nearly full"
    OVER_SOCKETS = "over its limit of memory for sockets"
    OVER_LOCKS = "over its limit of memory for locks of files"
    FLOODED = "flooded the log"


_AT_ONCE = (Ending.OVER_SOCKETS, Ending.OVER_LOCKS)


@dataclass(frozen=True, kw_only=True)
class Completed:
    """`code` is None when a signal ended it, `signal` is None when it exited. `tail` is its last output, at most
    TAIL_BYTES."""

    code: int | None
    signal: int | None
    seconds: float
    ending: Ending = Ending.EXITED
    tail: bytes = b""

    @property
    def shown(self) -> str:
        how = f"exited with code {self.code}" if self.signal is None else f"was killed by signal {self.signal}"
        why = "" if self.ending is Ending.EXITED else f"{self.ending}; "
        return f"{why}{how} after {self.seconds:.2f} s"


class CommandFailed(Trouble):
    """One of the farm's own tools failed.

    Positional arguments: the message, the end of the tool, and the last of its output.
    """

    code = "command"
    exit_code = 51

    def __init__(self, message: str, completed: Completed, output: bytes = b"") -> None:
        super().__init__(message, completed, output)
        self.completed = completed
        self.output = output

    def __str__(self) -> str:
        return str(self.args[0])


class Tree(Protocol):
    """All processes of a command and everything that they forked: a cgroup."""

    def cpu_s(self) -> float | None:
        """CPU time used so far; None if unknown."""

    def kill(self) -> None:
        """End every process in it."""


class SessionTree:
    """The processes in the command's session, from /proc. One that calls setsid escapes; a cgroup is better."""

    def __init__(self, session: int) -> None:
        self._session = session

    def cpu_s(self) -> float | None:
        ticks = sum(used for _, used in self._members())
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        for pid, _ in self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _members(self) -> Iterator[tuple[int, int]]:
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with suppress(OSError, ValueError, IndexError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == self._session:
                    yield int(entry.name), sum(int(value) for value in fields[11:15])


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None,
    log: StepLog,
    ok_codes: Iterable[int] | None = (0,),
    stop: threading.Event | None = None,
    deadline: float | None = None,
    silence_s: float | None = None,
    tree: Tree | None = None,
    watch: Callable[[], Ending | None] | None = None,
    shown: Sequence[str] | None = None,
) -> Completed:
    """Run a command to its end, its output going to the log as it comes.

    `timeout_s` counts from now, `deadline` is on time.monotonic()'s clock; the earlier one holds. `silence_s` ends
    a command that neither writes nor computes for that long. `watch` is called every TICK_S seconds and may end the
    command. The log's first line has `shown` in place of argv.
    Once `stop` is set, a command with a `tree` is killed at once, and others have STOP_GRACE_S to clean up.
    Raises LeaseLost when `stop` is set, HostUnfit for a missing tool, and CommandFailed for any end that `ok_codes`
    does not allow; with `ok_codes=None` every end is returned.
    """
    words = argv if shown is None else shown
    log.note("$ " + _quoted(words))
    flood_bytes = log.limit_bytes * FLOOD_FACTOR
    tail = _Tail()
    written = 0

    def pump(data: bytes) -> None:
        nonlocal written
        written += len(data)
        tail.add(data)
        log.write(data)

    def look() -> Ending | None:
        return Ending.FLOODED if written > flood_bytes else watch() if watch else None

    limits = _Limits(
        deadline=_earliest(timeout_s, deadline),
        silence_s=silence_s,
        stop=stop,
        watch=look,
        last_output_at=lambda: log.last_write_at,
    )
    with pipe() as (out, into):
        completed = _drive(argv, cwd, env, {out: pump}, (into, into), limits, tree)
    completed = Completed(**{**vars(completed), "tail": tail.data})
    log.note(f"{_name(words)} {completed.shown}")
    if stop is not None and stop.is_set():
        raise LeaseLost(f"stopped while {_name(words)} ran")
    _check(words, completed, ok_codes, completed.tail)
    return completed


def capture(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float,
    limit_bytes: int,
    ok_codes: Iterable[int] | None = (0,),
    stop: threading.Event | None = None,
    tree: Tree | None = None,
    shown: Sequence[str] | None = None,
) -> bytes:
    """The standard output of one of the farm's own tools, at most `limit_bytes`.

    Raises CommandFailed for any other end, for more output, and at the timeout; `output` of the error is the tail
    of the tool's standard error. LeaseLost and HostUnfit as with `run`. Errors have `shown` in place of argv.
    """
    words = argv if shown is None else shown
    kept = bytearray()
    errors = _Tail()

    def keep(data: bytes) -> None:
        kept.extend(data[: limit_bytes + 1 - len(kept)])

    limits = _Limits(
        deadline=_earliest(timeout_s, None),
        stop=stop,
        watch=lambda: Ending.FLOODED if len(kept) > limit_bytes else None,
    )
    with pipe() as (out, out_into), pipe() as (err, err_into):
        completed = _drive(argv, cwd, env, {out: keep, err: errors.add}, (out_into, err_into), limits, tree)
    if stop is not None and stop.is_set():
        raise LeaseLost(f"stopped while {_name(words)} ran")
    if len(kept) > limit_bytes:
        raise CommandFailed(f"{_name(words)} wrote more than {limit_bytes} bytes", completed, errors.data)
    _check(words, completed, ok_codes, errors.data)
    return bytes(kept)


# --- inside ------------------------------------------------------------------------------------------------------


class _Tail:
    """The last TAIL_BYTES of a stream."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, data: bytes) -> None:
        self.data = (self.data + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]


class _Limits:
    """The limits that end a command early. `ended` is cheap, and is called on every tick."""

    def __init__(
        self,
        *,
        deadline: float | None = None,
        silence_s: float | None = None,
        stop: threading.Event | None = None,
        watch: Callable[[], Ending | None] | None = None,
        last_output_at: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._silence_s = silence_s
        self._stop = stop
        self._watch = watch
        self._last_output_at = last_output_at
        self._quiet_since = time.monotonic()
        self._cpu_at_quiet: float | None = None

    def is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def ended(self, tree: Tree) -> Ending:
        """The limit that ends the command now; EXITED if it may go on."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            return Ending.TIMED_OUT
        if self._silence_s is not None and self._is_stalled(now, self._silence_s, tree):
            return Ending.STALLED
        return (self._watch() if self._watch else None) or Ending.EXITED

    def wait_s(self) -> float:
        left = TICK_S if self._deadline is None else self._deadline - time.monotonic()
        return max(0.0, min(TICK_S, left))

    def _is_stalled(self, now: float, silence_s: float, tree: Tree) -> bool:
        """True after `silence_s` without output or use of the CPU. The CPU time is read once at a quarter of the time
        and once at the end, so that a command with output costs nothing."""
        last = self._last_output_at()
        if last > self._quiet_since:
            self._quiet_since, self._cpu_at_quiet = last, None
        quiet_s = now - self._quiet_since
        if quiet_s < silence_s / 4:
            return False
        if self._cpu_at_quiet is None:
            self._cpu_at_quiet = tree.cpu_s()
        if quiet_s < silence_s:
            return False
        used = tree.cpu_s()
        if used is None or self._cpu_at_quiet is None or used - self._cpu_at_quiet < silence_s * _IDLE_SHARE:
            return True
        self._quiet_since, self._cpu_at_quiet = now, used
        return False


def _drive(
    argv: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str] | None,
    sinks: dict[int, Callable[[bytes], None]],
    into: tuple[int, int],
    limits: _Limits,
    tree: Tree | None,
) -> Completed:
    started_at = time.monotonic()
    try:
        if limits.is_stopped():
            raise LeaseLost(f"stopped before {_name(argv)} ran")
        process = start(argv, cwd, env, into)
    finally:
        for fd in set(into):
            os.close(fd)
    whole = tree or SessionTree(process.pid)
    ending = Ending.EXITED
    try:
        reading = Pump(process.pid, sinks)
    except BaseException:
        signal_group(process.pid, signal.SIGKILL)
        whole.kill()
        process.wait()
        raise
    with reading as pump:
        try:
            while not pump.turn(limits.wait_s()):
                ending = limits.ended(whole)
                if limits.is_stopped():
                    # A recipe has nothing to clean up: the worker removes its files and its cgroup from outside.
                    end(process.pid, pump, grace_s=0.0 if tree else STOP_GRACE_S)
                    break
                if ending is not Ending.EXITED:
                    # The kernel's memory would go on filling, and that of other processes with it.
                    end(process.pid, pump, grace_s=0.0 if ending in _AT_ONCE else GRACE_S)
                    break
        finally:
            # The group leader has not been reaped, so its PID cannot have been reused.
            signal_group(process.pid, signal.SIGKILL)
            if ending is not Ending.EXITED or limits.is_stopped() or tree:
                whole.kill()
            status = process.wait()
            pump.drain()
    seconds = time.monotonic() - started_at
    if status < 0:
        return Completed(code=None, signal=-status, seconds=seconds, ending=ending)
    return Completed(code=status, signal=None, seconds=seconds, ending=ending)


def _check(argv: Sequence[str | Path], done: Completed, ok_codes: Iterable[int] | None, output: bytes) -> None:
    if ok_codes is None or (done.ending is Ending.EXITED and done.code in tuple(ok_codes)):
        return
    last = output.decode(errors="backslashreplace").strip().rpartition("\n")[2][-300:]
    message = f"{_name(argv)} {done.shown}" + (f": {last}" if last else "; it wrote nothing")
    raise CommandFailed(message, done, output)


def _earliest(timeout_s: float | None, deadline: float | None) -> float | None:
    own = None if timeout_s is None else time.monotonic() + timeout_s
    return min((limit for limit in (own, deadline) if limit is not None), default=None)


def _name(argv: Sequence[str | Path]) -> str:
    return Path(argv[0]).name


def _quoted(argv: Sequence[str | Path]) -> str:
    """Quoted for a shell, on one line: characters that are not printable become Python escapes."""
    return printable(shlex.join(str(arg) for arg in argv))
