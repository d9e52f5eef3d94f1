"""The console script `farm`: hands a command to a fork server, or runs it in this process. `farm up` starts the server
of most commands, and `farm try` leaves one for the next `farm try`.

Most of a command's time goes into imports, so this module imports C modules alone until it knows that it must run the
command itself. forkserver.py is the other side; its docstring describes the protocol.
"""

import _signal  # type: ignore[import-not-found]  # `signal` without its enums, which take longer than all of this
import _socket
import os
import sys
from types import FrameType

from farm.cli.state import SOCKET, TRY, TRY_SOCKET, code_state, socket_path

ACCEPTED, GO = b"y", b"g"
NUMBER_BYTES = 8  # each number of the protocol has this size, and is little endian
_ANSWER_WITHIN_S = 1.0
KILLED = 137  # the code that a shell shows for a program ended by SIGKILL
#: The fork server starts no command for these: `up` and `server` are daemons, `shell` has the terminal, `login` asks on
#: it, and a command may name a file descriptor or the terminal of its own process.
_BY_ITSELF = {"up", "server", "shell", "login", "--shell"}
_OWN_FILES = ("/proc/self", "/proc/thread-self", "/dev/fd", "/dev/tty")
_RIGHTS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def main() -> None:
    """The console script."""
    is_try = sys.argv[1:2] == [TRY]
    connection = _connect(TRY_SOCKET if is_try else SOCKET) if _may_be_handed_over(is_try) else None
    child = _hand_over(connection) if connection is not None else None
    if connection is None or child is None:
        from farm.cli.main import main as run

        run()
    else:
        os._exit(_attend(connection))


def _may_be_handed_over(is_try: bool) -> bool:
    # An extension may define a command's step types, and the fork server has imported none.
    if {*(sys.argv if is_try else sys.argv[1:2])} & _BY_ITSELF or "FARM_EXTENSIONS" in os.environ:  # noqa: TID251 - Settings take long to import
        return False
    return not any(name in word for word in sys.argv for name in _OWN_FILES)


def _connect(name: str) -> "_socket.socket | None":
    """A connection to the fork server of this user with this socket, or None.

    Nothing is sent to a process of another user, or with other rights or namespaces: the root of a container that
    shares FARM_DATA could listen there, and would get passwords, and a folder outside of the container.
    """
    try:
        for number in range(3):
            os.fstat(number)  # a closed one cannot be handed over
    except OSError:
        return None
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_WITHIN_S)
        connection.connect(socket_path(name))
        server, user = peer_of(connection)
        if user == os.geteuid() and context_of(server) == context_of(os.getpid()):
            return connection
    except OSError:  # also from /proc, which shows no process of another container, and none with more rights
        pass
    connection.close()
    return None


def peer_of(connection: "_socket.socket") -> tuple[int, int]:
    """The process id and the user id of the other side."""
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(found[:4], sys.byteorder), int.from_bytes(found[4:8], sys.byteorder)


def context_of(pid: int) -> list[object]:
    """The rights of a process, and the namespaces and the root folder in which it finds files and networks. Raises
    OSError for a process that this one cannot see or may not look at."""
    facts = facts_of(pid)
    root = os.stat(f"/proc/{pid}/root/")  # noqa: PTH116 - pathlib takes long
    return [*map(facts.get, _RIGHTS), *(_namespace(pid, name) for name in _NAMESPACES), root.st_dev, root.st_ino]


def _namespace(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")  # noqa: PTH115
    except FileNotFoundError:
        return ""  # Linux has namespaces of time since 5.6


def facts_of(pid: int) -> "dict[str, str]":
    """The fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        return {name: text.strip() for name, _, text in (line.partition(":") for line in file)}


def _hand_over(connection: "_socket.socket") -> int | None:
    """The process that runs the command from now on; None if there is none, and then no process runs it."""
    try:
        request = b"\0".join(_request())
        connection.sendall(len(request).to_bytes(NUMBER_BYTES, "little") + request)
        answer = receive(connection, len(ACCEPTED) + NUMBER_BYTES)
        if answer[:1] != ACCEPTED:
            return None
        child = os.pidfd_open(int.from_bytes(answer[1:], "little"))
        _pass_signals_to(child)
        connection.settimeout(None)
        _send_files(connection)
    except OSError:  # a timeout too: the other side runs nothing before it has the files
        connection.close()
        return None
    return child


def _send_files(connection: "_socket.socket") -> None:
    """Only to a process that reads: files in a message that no process reads stay open, and their readers wait."""
    folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    end, _kept = os.pipe()  # the kernel closes the other end when this process ends
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2, folder, end))
    connection.sendmsg([GO], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
    os.close(folder)
    os.close(end)


def _request() -> list[bytes]:
    """The state of the code, the umask, the forms of the standard streams, the arguments, the environment."""
    os.umask(umask := os.umask(0o077))
    forms = [word for one in (sys.stdin, sys.stdout, sys.stderr) for word in (one.encoding, one.errors or "strict")]
    head = [code_state(with_workers=sys.argv[1:2] == [TRY]), str(umask), *forms, str(len(sys.argv)), *sys.argv]
    env = [name + b"=" + value for name, value in os.environb.items()]
    return [*map(os.fsencode, head), *env]


def receive(connection: "_socket.socket", size: int) -> bytes:
    """So many bytes, fewer at the end of the connection."""
    found = b""
    while len(found) < size and (part := connection.recv(size - len(found))):
        found += part
    return found


def _pass_signals_to(child: int) -> None:
    """The terminal sends its signals to this process. When it ends in any way, the kernel kills the other one."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        try:  # noqa: SIM105 - contextlib takes long
            _signal.pidfd_send_signal(child, number)
        except OSError:
            pass  # it has just ended

    def pause(_number: int, frame: FrameType | None) -> None:
        pass_on(_signal.SIGSTOP, frame)
        os.kill(os.getpid(), _signal.SIGSTOP)
        pass_on(_signal.SIGCONT, frame)

    # `farm try` removes its build root when it gets any of these; another command ends with this process.
    ends = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP) if sys.argv[1:2] == [TRY] else (_signal.SIGINT,)
    for number in ends:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, pass_on)
    if _signal.getsignal(_signal.SIGTSTP) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGTSTP, pause)


def _attend(connection: "_socket.socket") -> int:
    """The exit code of the command."""
    try:
        status = receive(connection, NUMBER_BYTES)
    except OSError:
        status = b""
    if len(status) < NUMBER_BYTES:
        os.write(2, b"error: the process of this command was killed; run it again\n")
        return KILLED
    return int.from_bytes(status, "little")


if __name__ == "__main__":
    main()
