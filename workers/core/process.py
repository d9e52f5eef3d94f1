"""One child process: starts it through plumbum with an empty environment in its own session, reads its pipes, and
signals its group.

Used by workers.core.run alone, which decides when a process ends.
"""

import errno
import fcntl
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Protocol

from plumbum.machines.local import LocalCommand, LocalMachine
from plumbum.path.local import LocalPath

from farm.errors import BadRequest, HostUnfit

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK_BYTES = 256 * 1024


class _BareMachine(LocalMachine):  # type: ignore[misc] # plumbum has no types
    """Plumbum adds its copy of the worker's environment to every command's; this machine adds nothing."""

    env: ClassVar[dict[str, str]] = {}


class _Command(LocalCommand):  # type: ignore[misc]
    machine = _BareMachine()


class Process(Protocol):
    pid: int

    def wait(self) -> int: ...


def start(
    argv: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str] | None,
    into: tuple[int, int],
    stdin: int | None = None,
) -> Process:
    """Standard input is empty without `stdin`.

    Without a preexec function or a change of user the interpreter uses vfork, whose cost does not grow with the
    worker's memory."""
    tool = str(argv[0])
    path = shutil.which(tool)
    if path is None:
        raise HostUnfit(f"{tool} is not installed on this host; run deploy/bootstrap, or install the tool")
    full_env = {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(env or {})}
    with Path(os.devnull).open("rb") as nothing:
        try:
            process: Process = _Command(LocalPath(path)).popen(
                [str(arg) for arg in argv[1:]],
                cwd=str(cwd),
                env=full_env,
                stdin=nothing if stdin is None else stdin,
                stdout=into[0],
                stderr=into[1],
                new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:  # the words come from a package
                raise BadRequest(
                    f"{tool} is given more words than a command can have; use fewer or shorter ones"
                ) from error
            raise HostUnfit(f"{tool} cannot be started in {cwd}: {error.strerror}") from error
    return process


class Pump:
    """Reads the pipes and notices the exit, in one poll."""

    def __init__(self, pid: int, sinks: dict[int, Callable[[bytes], None]]) -> None:
        """Raises OSError when this process has no file descriptor left."""
        self._sinks = sinks
        self._poll = select.poll()
        self._open = set(sinks)
        for fd in sinks:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            self._poll.register(fd, select.POLLIN)
        self._pidfd = os.pidfd_open(pid)
        self._poll.register(self._pidfd, select.POLLIN)

    def turn(self, wait_s: float) -> bool:
        """Wait once. True if the process has exited."""
        exited = False
        for fd, _ in self._poll.poll(wait_s * 1000):
            if fd == self._pidfd:
                exited = True
            else:
                self._read(fd)
        return exited

    def drain(self) -> None:
        """Read the rest of the pipes, without waiting for other processes that hold them open."""
        for fd in list(self._open):
            while self._read(fd):
                pass

    def _read(self, fd: int) -> bool:
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # a pseudo-terminal whose other end no process has
        if data:
            self._sinks[fd](data)
            return True
        self._open.discard(fd)
        with suppress(KeyError):
            self._poll.unregister(fd)
        return False

    def __enter__(self) -> "Pump":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)


def end(pid: int, pump: Pump, *, grace_s: float) -> None:
    """Ask the group to end, and keep reading so that no process hangs on a full pipe. The caller kills it."""
    if not grace_s:
        return
    signal_group(pid, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while (left := until - time.monotonic()) > 0:
        if pump.turn(left):
            return


def signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends; `run` closes the writing end once the process has it.

    Every user may open the pipe again for writing, as `echo > /dev/stderr` does, but not for reading. A process can
    name only a pipe that it has open already.
    """
    out, into = os.pipe2(os.O_CLOEXEC)
    os.fchmod(into, 0o622)
    try:
        yield out, into
    finally:
        os.close(out)
