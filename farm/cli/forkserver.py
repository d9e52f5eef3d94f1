"""A fork server: a process that has imported what commands use, and forks for each command. `farm up` has one for most
commands. With the argument `try` it is the one that `farm try` leaves behind, which ends when it has had no command for
a while.

A command (start.py) connects to the socket, which only the farm's user can use, and sends a request: its state of the
code, umask, encodings, arguments and environment. The forked process answers with its process id. It gets GO with the
command's standard files and folder, runs the command, and sends the exit code. It answers nothing to a command of other
code, or with other rights, namespaces or limits than it can take over; such a command runs by itself.

The server runs no code of an extension, and has no password: a command brings its own.
"""

import fcntl
import gc
import io
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from farm.cli import warm
from farm.cli.start import ACCEPTED, GO, NUMBER_BYTES, context_of, facts_of, peer_of, receive
from farm.cli.state import SOCKET, TRY, TRY_SOCKET, code_state, socket_path

_F_SETSIG = 10  # fcntl.h; Python has no name for it
_REQUEST_WITHIN_S = 5.0
_BACKLOG = 64
_LOOK_EVERY_S = 5.0
_WARM_TRY = "workers.local.warm"  # a name, since the workers' part is not installed everywhere
_FILES = 5  # standard input, output and error, the folder, and a pipe that the command closes when it ends
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))
#: Run once before the first command, so that the parsed commands and compiled statements are there in each fork.
_WARM_UP = (["status"], ["list"], ["status", "1"], ["status", "--json"], ["--help"])


class _Declined(Exception):
    """The command has to run by itself."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The content of a request."""

    state: str
    umask: int
    forms: tuple[str, ...]
    argv: tuple[str, ...]
    env: dict[bytes, bytes]


def main() -> None:
    """Serve until SIGTERM. Commands that run go on: they are processes of their own."""
    is_try = sys.argv[1:] == [TRY]
    path = socket_path(TRY_SOCKET if is_try else SOCKET)
    state = code_state(with_workers=is_try)
    if is_try:
        _import_try()
    else:
        _import_commands()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it looks at
    if code_state(with_workers=is_try) != state:  # an installation went on meanwhile
        os.execv(sys.executable, [sys.executable, "-m", "farm.cli.forkserver", *sys.argv[1:]])  # noqa: S606
    try:
        with _listening(path) as listener:
            if is_try:
                _serve_for(listener, state, path)
            else:
                _serve(listener, state)
    except OSError as error:
        sys.exit(f"commands cannot be served at {path}: {error}")


def _import_try() -> None:
    from farm.cli import main

    import farm.repositories.directory  # isort: skip
    import farm.service.request  # isort: skip
    from farm.formats.registry import format_of, names
    import farm.targets.load  # noqa: F401  # isort: skip

    import_module(_WARM_TRY)
    for name in names():
        _ = format_of(name).index  # loads its library
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        main.command()(["try", "--help"], prog_name="farm")


def _import_commands() -> None:
    from farm.cli import main, session
    from farm.config import Settings
    from farm.store.database import prepare

    import farm.client  # isort: skip
    import farm.broker.leases  # isort: skip
    import farm.cli.tables  # isort: skip
    import farm.service.documents  # noqa: F401  # isort: skip

    prepare(Settings.from_env().database)
    for words in _WARM_UP:
        # Without a farm, and without a build 1, a command says so; that is as good.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), suppress(SystemExit, Exception):
            main.command()(words, prog_name="farm")
    session.console.cache_clear()


@contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    own = os.stat(path)  # noqa: PTH116
    try:
        yield listener
    finally:
        if _is_same(path, own):
            Path(path).unlink(missing_ok=True)
        listener.close()


def _handle_signals() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, lambda *_: _reap())


def _serve(listener: socket.socket, state: str) -> None:
    _handle_signals()
    while True:
        _take_one(listener, state)


def _serve_for(listener: socket.socket, state: str, path: str) -> None:
    """As _serve, until there was no command for FARM_TRY_WARM_S, or the socket is no longer this process's."""
    from farm.config import Settings

    idle_s = Settings.from_env().try_warm_s
    own = os.stat(path)  # noqa: PTH116
    _handle_signals()
    last = time.monotonic()
    listener.settimeout(min(_LOOK_EVERY_S, idle_s))
    while time.monotonic() - last < idle_s and _is_same(path, own) and code_state(with_workers=True) == state:
        with suppress(TimeoutError):
            _take_one(listener, state)
            last = time.monotonic()


def _is_same(path: str, own: os.stat_result) -> bool:
    """False once another server listens there, or FARM_DATA is gone."""
    with suppress(OSError):
        found = os.stat(path)  # noqa: PTH116
        # A new file may get the number of one that was removed.
        return (found.st_ino, found.st_ctime_ns) == (own.st_ino, own.st_ctime_ns)
    return False


def _take_one(listener: socket.socket, state: str) -> None:
    connection = _accept(listener)
    if peer_of(connection)[1] == os.geteuid() and os.fork() == 0:
        _become_command(listener, connection, state)
    connection.close()


def _accept(listener: socket.socket) -> socket.socket:
    """SIGTERM ends the wait for a connection alone: in a hook of `fork`, for example, Python loses the exception."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        return listener.accept()[0]
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_command(listener: socket.socket, connection: socket.socket, state: str) -> NoReturn:
    """In the fork: run the command or none, and end."""
    try:
        warm.is_fork = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        listener.close()
        connection.settimeout(_REQUEST_WITHIN_S)
        request = _read(connection)
        _take_over(request, peer_of(connection)[0], state)
        connection.sendall(ACCEPTED + os.getpid().to_bytes(NUMBER_BYTES, "little"))
        _take_files(connection)
        _open_streams(request.forms, is_unbuffered=bool(request.env.get(b"PYTHONUNBUFFERED")))
        connection.settimeout(None)
        code = _run()
        connection.sendall(code.to_bytes(NUMBER_BYTES, "little"))
    except BaseException:
        os._exit(1)
    os._exit(0)


def _read(connection: socket.socket) -> _Request:
    length = int.from_bytes(receive(connection, NUMBER_BYTES), "little")
    body = receive(connection, length)
    if len(body) != length:
        raise _Declined
    state, umask, *rest = body.split(b"\0")
    forms, count, words = rest[:6], int(rest[6]), rest[7:]
    return _Request(
        state=os.fsdecode(state),
        umask=int(umask),
        forms=tuple(map(os.fsdecode, forms)),
        argv=tuple(map(os.fsdecode, words[:count])),
        env=dict(_variable(word) for word in words[count:]),
    )


def _variable(word: bytes) -> tuple[bytes, bytes]:
    name, _, value = word.partition(b"=")
    return name, value


def _take_over(request: _Request, pid: int, state: str) -> None:
    """Make this process the one that the command would be. Raises _Declined, or OSError where that is impossible."""
    if request.state != state or context_of(pid) != context_of(os.getpid()):
        raise _Declined
    for limit in _LIMITS:
        if (wanted := resource.prlimit(pid, limit)) != resource.getrlimit(limit):
            resource.setrlimit(limit, wanted)
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))
    os.setsid()
    os.umask(request.umask)
    os.environb.clear()
    os.environb.update(request.env)
    time.tzset()
    sys.argv = list(request.argv)
    is_ignored = int(facts_of(pid)["SigIgn"], 16) >> (signal.SIGINT - 1) & 1
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.default_int_handler)


def _take_files(connection: socket.socket) -> None:
    go, files, _, _ = socket.recv_fds(connection, len(GO), _FILES)
    if go != GO or len(files) != _FILES:
        raise _Declined
    *streams, folder, pipe = files
    for number, file in enumerate(streams):
        os.dup2(file, number)
    os.fchdir(folder)
    for file in (*streams, folder):
        os.close(file)
    _end_with(pipe)


def _open_streams(forms: Sequence[str], *, is_unbuffered: bool) -> None:
    """As Python opens them when it starts."""
    names = ("stdin", "stdout", "stderr")
    for number, (name, encoding, errors) in enumerate(zip(names, forms[::2], forms[1::2], strict=True)):
        file = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
        buffer = io.BufferedReader(file) if number == 0 else io.BufferedWriter(file)
        is_line_buffered = number == 2 or file.isatty()
        stream = io.TextIOWrapper(
            buffer, encoding, errors, line_buffering=is_line_buffered, write_through=is_unbuffered and number > 0
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _end_with(pipe: int) -> None:
    """Have the kernel kill this process when the command's own ends, in whatever way."""
    os.set_inheritable(pipe, False)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:
        raise _Declined  # it has ended already


def _run() -> int:
    """The exit code of the command."""
    from farm.cli.main import main

    try:
        main()
    except SystemExit as end:
        code = _code_of(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 120  # as Python's own end
    return code & 0xFF


def _code_of(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)  # noqa: T201 - as Python does at its end
    return 1


if __name__ == "__main__":
    main()
