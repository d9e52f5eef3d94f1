"""`farm up` as a person runs it: one command in the foreground, one process tree, drained by Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.model.outcome import Outcome, Status
from tests.packages import make_srpm

pytestmark = pytest.mark.live
FARM = str(Path(sys.executable).parent / "farm")


@pytest.fixture
def data(tmp_path: Path, demo_distribution: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    (tmp_path / "d" / "demo").mkdir(parents=True)
    (tmp_path / "d" / "demo" / "distribution").symlink_to(demo_distribution)
    return tmp_path / "d"


@contextmanager
def _up(data: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """`farm up` in a session of its own, from the moment that it says that it is up."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", "FARM_LEASE_S": "3"}
    argv = [FARM, "up", "--data", str(data), *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, stdin=-3) as up:
        try:
            _read_until(up, "The farm is up")
            yield up
        finally:
            up.kill()


def _read_until(up: "subprocess.Popen[str]", words: str) -> str:
    assert up.stdout
    seen = ""
    for line in up.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"farm up ended without saying {words!r}:\n{seen}")


def _until(is_so: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(0.05)


def _processes(data: Path) -> list[str]:
    """Command lines of processes whose environment or words name the data directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if bytes(data) in words and int(folder.name) != os.getpid():
            found.append(words[:200].decode(errors="replace"))
    return found


def test_ctrl_c_finishes_running_steps_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(data)})
    with _up(data, "--workers", "1") as up, Farm.connect(settings) as farm:
        assert {worker.name.split("@")[0]: worker.slots for worker in farm.workers()}["build"] == 1
        build = farm.enqueue(srpm=make_srpm("never-ends", tmp_path), target="demo", arches=["x86_64"], timeout_s=3)

        def runs() -> bool:
            steps = {step.kind: step.status for step in farm.build(build).steps}
            return steps.get("build") is Status.RUNNING

        _until(runs, "the build to run", within_s=60)
        up.send_signal(signal.SIGINT)
        assert "Stopped" in _read_until(up, "Stopped")
        assert up.wait(timeout=20) == 0
        assert farm.build(build).outcome is Outcome.TIMED_OUT, "it was finished, and its report settled"
    assert _processes(data) == []
    assert not settings.socket.exists()


def test_a_farm_that_is_killed_takes_its_processes_along_and_goes_on_at_the_next_start(
    data: Path, tmp_path: Path
) -> None:
    settings = Settings.from_env({"FARM_DATA": str(data)})
    with _up(data) as up, Farm.connect(settings) as farm:
        build = farm.enqueue(srpm=make_srpm("hello-c", tmp_path), target="demo", arches=["x86_64"])
        _until(lambda: farm.build(build).steps[0].status is not Status.READY, "the first step to go out")
        up.kill()
        up.wait()
    _until(lambda: _processes(data) == [], "its processes to be gone")
    with _up(data), Farm.connect(settings) as farm:
        assert farm.handle(build).wait(timeout_s=90).outcome is Outcome.SUCCEEDED


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def test_the_server_answers_and_flower_shows_the_farms_tasks(data: Path, tmp_path: Path) -> None:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "FARM_DATA": str(data)}
    with _up(data) as up:
        assert up.stdout
        address = _read_until(up, "HTTP: ").rpartition("HTTP: ")[2].partition(";")[0]
        _until(lambda: _answers(f"{address}/readyz"), "the HTTP server to answer")
        log = data / "log" / "flower.log"
        _until(lambda: "127.0.0.1" in log.read_text(), "Flower to listen")
        assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z INFO flower", log.read_text()), log.read_text()
        port = log.read_text().partition("127.0.0.1:")[2].split()[0].strip("/")
        build = subprocess.run(
            [FARM, "build", "--srpm", str(make_srpm("hello-noarch", tmp_path)), "--target", "demo", "--wait"],
            env=env,
            capture_output=True,
            text=True,
            stdin=-3,
            timeout=90,
            check=False,
        )
        assert build.returncode == 0, build.stdout + build.stderr

        columns = "draw=1&start=0&length=50&search%5Bvalue%5D=&order%5B0%5D%5Bcolumn%5D=0&order%5B0%5D%5Bdir%5D=asc"
        table = f"http://127.0.0.1:{port}/tasks/datatable?{columns}&columns%5B0%5D%5Bdata%5D=name"

        def shows() -> bool:
            with urllib.request.urlopen(table, timeout=5) as page:
                return "build hello-noarch" in page.read().decode()

        def page_has_it() -> bool:
            try:
                return shows()
            except OSError:
                return False

        _until(page_has_it, "the build's task in Flower")
