"""The process that `farm try` leaves behind: the next ones run in forks of it, and behave as those that run alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.cli.state import TRY_SOCKET
from farm.config import Settings
from tests.leftovers import inside
from tests.packages import make_git
from tests.waiting import until

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root")]
FARM = str(Path(sys.executable).with_name("farm"))
WITHIN_S = 120


class _Warm:
    """One FARM_DATA, and the commands that a person types there."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.socket = data / TRY_SOCKET

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "FARM_DATA": str(self.data), **more}

    def types(self, *words: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
        argv = [FARM, "try", *map(str, words)]
        where = {"cwd": self.data, "env": self.env(**env)}  # results go into the current folder
        return subprocess.run(argv, **where, capture_output=True, text=True, timeout=WITHIN_S, check=False)

    def is_served(self, *words: str | Path, **env: str) -> bool:
        """True if the process of the command loads no module of the steps, which it would name with this variable."""
        return "workers.local.tree" not in self.types(*words, **env, PYTHONPROFILEIMPORTTIME="1").stderr

    def servers(self) -> list[int]:
        own = f"FARM_DATA={self.data}".encode()
        numbers = [one.name for one in Path("/proc").iterdir() if one.name.isdigit()]
        return [pid for pid in map(int, numbers) if _is_server(pid, own)]


def _is_server(pid: int, own: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return (
            words[1:4] == [b"-m", b"farm.cli.forkserver", b"try"] and own in Path(f"/proc/{pid}/environ").read_bytes()
        )
    except OSError:
        return False


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[_Warm]:
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    warm = _Warm(data)
    yield warm
    for pid in warm.servers():
        os.kill(pid, signal.SIGTERM)
    until(lambda: not warm.servers(), "the end of the server")
    assert not warm.socket.exists()


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees")
    for name in ("hello-c", "fails-build", "never-ends"):
        make_git(name, folder)
    return folder


def test_the_next_try_is_served_and_says_the_same(warm: _Warm, trees: Path, tmp_path: Path) -> None:
    words = (trees / "fails-build", "-t", "demo", "-q", "--results", tmp_path / "r")
    warm.types(*words, FARM_TRY_WARM_S="0")  # makes the template
    alone = warm.types(*words, FARM_TRY_WARM_S="0")
    assert not warm.servers()
    first = warm.types(*words)
    until(warm.socket.exists, "the server")
    assert warm.is_served(*words)
    served = warm.types(*words)
    assert alone.returncode == first.returncode == served.returncode == 10
    assert _without_times(alone.stderr) == _without_times(served.stderr)
    assert _without_times(alone.stdout) == _without_times(served.stdout)
    assert len(warm.servers()) == 1, "a command that is served leaves none"
    good = warm.types(trees / "hello-c", "-t", "demo", "-q", "--results", tmp_path / "good")
    assert good.returncode == 0, good.stderr
    assert list((tmp_path / "good").glob("hello-c-*.x86_64.rpm"))


def _without_times(text: str) -> list[str]:
    return [line.split(" in ")[0] for line in text.splitlines()]


def test_wrong_input_is_said_by_a_fork_too(warm: _Warm, tmp_path: Path) -> None:
    _await_server(warm, tmp_path)
    said = warm.types(tmp_path, "-t", "nope")
    assert said.returncode == 21
    assert "there is no target 'nope'" in said.stderr
    assert warm.is_served(tmp_path, "-t", "nope")
    assert not warm.is_served(tmp_path, "-t", "demo", "--shell"), "a shell has the terminal of its process"


def _await_server(warm: _Warm, folder: Path) -> None:
    if not warm.servers():
        warm.types(folder, "-t", "demo")
    until(warm.socket.exists, "the server")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_served_build_and_leaves_nothing(
    warm: _Warm, trees: Path, tmp_path: Path, number: signal.Signals
) -> None:
    _await_server(warm, tmp_path)
    settings = Settings.from_env({"FARM_DATA": str(warm.data)})
    argv = [FARM, "try", str(trees / "never-ends"), "-t", "demo", "--results", str(tmp_path / "r")]
    with subprocess.Popen(argv, env=warm.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as trying:
        until(lambda: len(inside(settings)) > 2, "the build")
        trying.send_signal(number)
        _, error = trying.communicate(timeout=WITHIN_S)
    assert trying.returncode == 128 + number
    assert b"everything that ran was ended" in error
    assert inside(settings) == []
    assert list(settings.work.iterdir()) == []


def test_the_server_ends_when_it_is_idle_or_another_has_its_place(
    tmp_path: Path, trees: Path, demo_distribution: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/distribution").symlink_to(demo_distribution)
    warm = _Warm(tmp_path)
    words = (trees / "nowhere", "-t", "demo")
    warm.types(*words, FARM_TRY_WARM_S="1")
    until(warm.socket.exists, "the server")
    until(lambda: not warm.servers(), "the end of an idle server")
    assert not warm.socket.exists()
    warm.types(*words)
    until(warm.socket.exists, "the server")
    warm.socket.unlink()
    warm.socket.write_text("another's")
    until(lambda: not warm.servers(), "the end of a server that no command can reach")
    assert warm.socket.exists()
