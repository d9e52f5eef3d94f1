"""Runs a command for a person: on the person's terminal, or between the caller's standard streams.

The command never gets a descriptor of the caller. On a terminal it has a pseudo-terminal of its own, so that it cannot
put characters into the input of the caller's shell; elsewhere it has pipes. Bytes are copied in both directions.
"""

import fcntl
import os
import pty
import selectors
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from farm.errors import LeaseLost
from workers.core.log import StepLog
from workers.core.process import Pump, pipe, signal_group, start
from workers.core.run import Completed, Ending, SessionTree, Tree

_TICK_S = 0.1
_CHUNK_BYTES = 2**16
_STDIN, _STDOUT, _STDERR = range(3)


def run_attached(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    log: StepLog,
    stop: threading.Event,
    tree: Tree | None = None,
    watch: Callable[[], Ending | None] | None = None,
    shown: Sequence[str] | None = None,
    prefix: Sequence[str] = (),
    **_limits: object,
) -> Completed:
    """As `workers.core.run.run`, for a person who waits: without limits of time, of silence and of the log. The command
    line begins with `prefix`.

    Raises LeaseLost when `stop` is set, and HostUnfit for a missing tool.
    """
    log.note("$ " + " ".join(str(word) for word in (argv if shown is None else shown)))
    on_terminal = os.isatty(_STDIN) and os.isatty(_STDOUT)
    started_at = time.monotonic()
    with ExitStack() as stack:
        streams = stack.enter_context(_on_terminal() if on_terminal else _on_pipes())
        try:
            process = start([*prefix, *argv], cwd, env, (streams.out, streams.err), stdin=streams.stdin)
        finally:
            streams.close_inner()
        ending = _copied(process.pid, streams, stop, tree or SessionTree(process.pid), watch)
        status = process.wait()
    if stop.is_set():
        raise LeaseLost("stopped while a person's command ran")
    code, number = (status, None) if status >= 0 else (None, -status)
    return Completed(code=code, signal=number, seconds=time.monotonic() - started_at, ending=ending)


class _Streams:
    """The command's ends of its standard streams, and the ends of this process: `sinks` by descriptor to read, and
    `feed` to write the caller's input to."""

    def __init__(self, stdin: int, out: int, err: int, sinks: dict[int, Callable[[bytes], None]], feed: int) -> None:
        self.stdin, self.out, self.err = stdin, out, err
        self.sinks, self.feed = sinks, feed
        self.is_gone = False  # the caller's terminal was closed

    def end_input(self) -> None:
        if self.feed >= 0:
            os.close(self.feed)
            self.feed = -1

    def close_inner(self) -> None:
        for descriptor in {self.stdin, self.out, self.err}:
            os.close(descriptor)


@contextmanager
def _on_terminal() -> Iterator[_Streams]:
    """A pseudo-terminal of the same size. The caller's terminal passes every key on meanwhile."""
    ours, theirs = pty.openpty()
    outer = _STDIN

    def resize(*_: object) -> None:
        with suppress(OSError):
            fcntl.ioctl(ours, termios.TIOCSWINSZ, fcntl.ioctl(outer, termios.TIOCGWINSZ, bytes(8)))

    resize()
    before, handled = termios.tcgetattr(outer), signal.signal(signal.SIGWINCH, resize)
    try:
        tty.setraw(outer, termios.TCSANOW)  # keys pressed before are kept
        yield _Streams(theirs, theirs, theirs, {ours: _writer(_STDOUT)}, ours)
    finally:
        signal.signal(signal.SIGWINCH, handled)
        termios.tcsetattr(outer, termios.TCSADRAIN, before)
        os.close(ours)


@contextmanager
def _on_pipes() -> Iterator[_Streams]:
    sys.stdout.flush()
    into, feed = os.pipe2(os.O_CLOEXEC)
    with pipe() as (out, out_inner), pipe() as (err, err_inner):
        sinks = {out: _writer(_STDOUT), err: _writer(_STDERR)}
        streams = _Streams(into, out_inner, err_inner, sinks, feed)
        try:
            yield streams
        finally:
            streams.end_input()


def _writer(descriptor: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def _copied(
    pid: int, streams: _Streams, stop: threading.Event, tree: Tree, watch: Callable[[], Ending | None] | None
) -> Ending:
    """Copy until the command has exited; kill everything that it left."""
    ending = Ending.EXITED
    over = threading.Event()
    feeder = threading.Thread(target=_feed, args=(streams, over), name="input", daemon=True)
    feeder.start()
    with Pump(pid, streams.sinks) as pump:
        try:
            while not pump.turn(_TICK_S):
                ending = (watch() if watch else None) or Ending.EXITED
                if stop.is_set() or streams.is_gone or ending is not Ending.EXITED:
                    break
        finally:
            over.set()
            signal_group(pid, signal.SIGKILL)
            tree.kill()
            pump.drain()
            feeder.join()
    return ending


def _feed(streams: _Streams, over: threading.Event) -> None:
    """Copy the caller's input. Its end closes the pipe; a terminal's end is for the command to see."""
    source = _STDIN
    # Not epoll, which takes no regular files.
    with suppress(OSError, ValueError), selectors.SelectSelector() as waiting:
        waiting.register(source, selectors.EVENT_READ)
        while not over.is_set():
            if not waiting.select(_TICK_S):
                continue
            data = os.read(source, _CHUNK_BYTES)
            if not data:
                break
            _writer(streams.feed)(data)
    if streams.feed not in streams.sinks:
        streams.end_input()
    else:
        streams.is_gone = True
