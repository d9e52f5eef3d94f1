"""Attacks on the socket at which `farm up` takes commands: a listener in its place gets nothing of a command."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.cli import start

pytestmark = pytest.mark.live

_FARM = str(Path(sys.executable).with_name("farm"))
_SECRET = "redis://scheduler:sesame@example.org"
#: Prints all that it gets from the first that connects, and the number of files that came with it.
_LISTENER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
connection, _ = listener.accept()
connection.settimeout(3)
got, files = b"", 0
try:
    connection.sendall(b"y" + (1).to_bytes(8, "little"))  # fails where the command has turned away by now
    while True:
        part, came, _, _ = socket.recv_fds(connection, 65536, 8)
        got, files = got + part, files + len(came)
        if not part:
            break
except OSError:
    pass
print(files, got, flush=True)
"""


@contextmanager
def _listening(path: Path, confined: tuple[str, ...]) -> Iterator["subprocess.Popen[str]"]:
    argv = [*confined, sys.executable, "-c", _LISTENER, str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        yield process
    finally:
        process.kill()
        process.wait()


def _got(folder: Path, confined: tuple[str, ...]) -> str:
    """What a listener with the rights of `confined` gets from a command of this user."""
    env = {"PATH": os.environ["PATH"], "FARM_DATA": str(folder), "FARM_BROKER_URL": _SECRET}
    with _listening(folder / start.SOCKET, confined) as listener:
        subprocess.run([_FARM, "list"], env=env, capture_output=True, timeout=60, check=False)
        return listener.communicate(timeout=30)[0]


def test_a_listener_with_the_same_rights_stands_for_the_server(tmp_path: Path) -> None:
    """Without this the test below could not fail."""
    assert _SECRET in _got(tmp_path, ())


@pytest.mark.parametrize(
    "confined",
    [
        ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        ("unshare", "--mount"),
        ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"),
        ("setpriv", "--no-new-privs"),
    ],
    ids=["container", "mounts", "capabilities", "no-new-privileges"],
)
def test_a_root_of_fewer_rights_gets_nothing_of_a_command(tmp_path: Path, confined: tuple[str, ...]) -> None:
    """A container that shares FARM_DATA has the host's uid 0, and would get passwords, and a folder of the host."""
    assert _got(tmp_path, confined) == "0 b''\n"


def test_a_caller_in_a_container_gets_no_process_outside_of_it(tmp_path: Path) -> None:
    """The other direction: the server runs nothing for a command of the same user in a container."""
    env = {"PATH": os.environ["PATH"], "FARM_DATA": str(tmp_path), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen([sys.executable, "-m", "farm.cli.forkserver"], env=env, cwd="/") as server:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / start.SOCKET).exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            confined = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            profile = {**env, "PYTHONPROFILEIMPORTTIME": "1"}
            done = subprocess.run(
                [*confined, _FARM, "list"], env=profile, capture_output=True, text=True, timeout=60, check=False
            )
            assert "typer" in done.stderr
            served = subprocess.run(
                [_FARM, "list"], env=profile, capture_output=True, text=True, timeout=60, check=False
            )
            assert "typer" not in served.stderr
        finally:
            server.terminate()
