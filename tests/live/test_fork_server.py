"""The fork server of `farm up`: its commands answer as commands that run by themselves do, and it answers no others."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.cli import start
from farm.config import Settings
from tests.driven_farm import DrivenFarm, driven_farm

WITHIN_S = 20.0
FARM = str(Path(sys.executable).with_name("farm"))
GIT = ["build", "--git", "https://example.org/hello.git", "-t", "demo", "-a", "x86_64"]
SERVED, ITSELF = {}, {"FARM_EXTENSIONS": ""}


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path_factory.mktemp("farm")) as driven:
        driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        yield driven


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that both sides import packages from."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def server(driven: DrivenFarm, packages: Path) -> Iterator[int]:
    argv = [sys.executable, "-m", "farm.cli.forkserver"]
    process = subprocess.Popen(argv, env=environment(driven, packages), cwd="/", start_new_session=True)
    path = Path(driven.env["FARM_DATA"], start.SOCKET)
    _await(path.exists)
    yield process.pid
    process.terminate()
    assert process.wait(WITHIN_S) == 0
    assert not path.exists()


def environment(driven: DrivenFarm, packages: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **driven.env, "PYTHONPATH": str(packages), **more}


@pytest.fixture
def run(driven: DrivenFarm, packages: Path, server: int) -> Callable[..., subprocess.CompletedProcess[str]]:
    del server

    def run(
        *words: str, env: dict[str, str] = SERVED, before: tuple[str, ...] = (), **how: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, FARM, *words],
            env=environment(driven, packages, **env),
            timeout=60,
            **({"capture_output": True, "text": True} | how),  # type: ignore[call-overload]
        )

    return run


def is_served(run: Callable[..., subprocess.CompletedProcess[str]], **how: object) -> bool:
    """True if the process of the command imports no command, which it would name with this variable."""
    done = run("list", **({"env": {"PYTHONPROFILEIMPORTTIME": "1"}} | how))
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    return "typer" not in done.stderr


def _await(is_there: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize(
    "words",
    [
        ["list"], ["list", "--json"], ["status"], ["status", "1", "--json"], ["status", "99"],
        ["status", "99", "--json"],
        ["--help"], ["build", "--help"], ["nonsense"], ["list", "--limit", "0"], [], ["targets", "--json"],
        ["build", "--srpm", "ünlesbar.src.rpm", "-t", "demo"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("columns", ["60", "130"])
def test_a_command_answers_as_by_itself(
    run: Callable[..., subprocess.CompletedProcess[str]], words: list[str], columns: str
) -> None:
    served, itself = (run(*words, env={"COLUMNS": columns, **env}) for env in (SERVED, ITSELF))
    assert (_timeless(served.stdout), served.stderr) == (_timeless(itself.stdout), itself.stderr)
    assert served.returncode == itself.returncode


@pytest.mark.parametrize("words", [["try", "-t", "nowhere"], ["shell", "99", "--", "true"], ["shell", "-t", "nowhere"]])
def test_a_command_that_becomes_another_program_runs_by_itself(
    run: Callable[..., subprocess.CompletedProcess[str]], words: list[str]
) -> None:
    """Its connection would end with its program, long before the command ends."""
    done = run(*words, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "typer" in done.stderr
    assert done.returncode == run(*words, env=ITSELF).returncode
    assert done.returncode != start.KILLED


def _timeless(text: str) -> str:
    return " ".join(re.sub(r"\b[0-9.]+ (s|min)\b", "", text).split())


def test_the_server_answers_commands(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert is_served(run)
    assert not is_served(run, env={"PYTHONPROFILEIMPORTTIME": "1", **ITSELF})


def test_a_command_of_other_code_runs_by_itself(
    run: Callable[..., subprocess.CompletedProcess[str]], packages: Path
) -> None:
    then = packages.stat()
    (packages / "installed_meanwhile").mkdir()
    assert not is_served(run)
    (packages / "installed_meanwhile").rmdir()
    os.utime(packages, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert is_served(run)
    assert not is_served(run, env={"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": f"{packages}:/elsewhere"})


@pytest.mark.parametrize(
    "before",
    [
        ["unshare", "--uts"],
        ["unshare", "--mount"],
        ["setpriv", "--no-new-privs"],
        ["setpriv", "--bounding-set", "-kill"],
    ],
    ids=" ".join,
)
def test_a_command_with_other_rights_or_namespaces_runs_by_itself(
    run: Callable[..., subprocess.CompletedProcess[str]], before: list[str]
) -> None:
    assert not is_served(run, before=tuple(before))


def test_another_user_cannot_use_the_server(
    run: Callable[..., subprocess.CompletedProcess[str]], driven: DrivenFarm
) -> None:
    path = Path(driven.env["FARM_DATA"], start.SOCKET)
    assert path.stat().st_mode & 0o777 == 0o600
    done = run("list", before=("setpriv", "--reuid", "65534", "--clear-groups", sys.executable))
    assert done.returncode != 0
    assert "hello" not in done.stdout


def test_limits_and_folder_are_the_callers(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert is_served(run, before=("prlimit", "--nofile=200:200"))
    (tmp_path / "x.src.rpm").write_bytes(b"not a package")
    done = run("build", "--srpm", "x.src.rpm", "-t", "demo", cwd=tmp_path)
    assert str(tmp_path) in done.stderr or "x.src.rpm" in done.stderr
    limited = run("build", "--srpm", "x.src.rpm", "-t", "demo", cwd=tmp_path, env=ITSELF)
    assert done.stderr == limited.stderr


@pytest.mark.parametrize("env", [SERVED, ITSELF], ids=["served", "itself"])
def test_ctrl_c_ends_a_waiting_command(driven: DrivenFarm, packages: Path, server: int, env: dict[str, str]) -> None:
    process = _waiting(driven, packages, env)
    assert bool(_children(server)) == (env is SERVED)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 130
    _await(lambda: not _children(server))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_with_its_process(
    driven: DrivenFarm, packages: Path, server: int, number: signal.Signals
) -> None:
    process = _waiting(driven, packages, SERVED)
    assert _children(server)
    process.send_signal(number)
    assert process.wait(WITHIN_S) == -number
    _await(lambda: not _children(server))


def test_a_command_pauses_with_its_process(driven: DrivenFarm, packages: Path, server: int) -> None:
    process = _waiting(driven, packages, SERVED)
    (child,) = _children(server)

    def state(pid: object) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    process.send_signal(signal.SIGTSTP)
    _await(lambda: state(process.pid) == "T" and state(child) == "T")
    process.send_signal(signal.SIGCONT)
    _await(lambda: state(process.pid) != "T" and state(child) != "T")
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 130


def _waiting(driven: DrivenFarm, packages: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A `farm build --wait` that waits."""
    env = environment(driven, packages, PYTHONUNBUFFERED="1", **env)
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([FARM, *GIT, "--wait"], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            _await(lambda: b"build" in os.pread(out.fileno(), 4096, 0))
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process


@pytest.mark.parametrize("env", [SERVED, ITSELF], ids=["served", "itself"])
def test_a_closed_output_is_an_end(run: Callable[..., subprocess.CompletedProcess[str]], env: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    assert (
        run("list", "--json", env=env, capture_output=False, stdout=write, stderr=subprocess.DEVNULL).returncode == 141
    )
    os.close(write)
    assert run("list", env=env, before=("sh", "-c", '"$@" >&-', "sh")).stdout == ""


def test_a_server_that_does_not_answer_delays_a_command(
    run: Callable[..., subprocess.CompletedProcess[str]], server: int
) -> None:
    os.kill(server, signal.SIGSTOP)
    try:
        assert not is_served(run)
    finally:
        os.kill(server, signal.SIGCONT)


@pytest.mark.parametrize("env", [{}, {"FARM_DATA": "~/there"}, {"XDG_DATA_HOME": "/xdg"}], ids=str)
def test_both_look_in_the_folder_of_the_settings(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for uid in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert start.socket_path() == str(Settings.from_env().data / start.SOCKET)
