"""Workers of several containers share a data folder: none sweeps what another is at, and nothing stays of the dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.config import Settings
from tests.waiting import until
from workers.steps.runner import sweep

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")]

_STEP = """
import sys, threading
from pathlib import Path
from farm.config import Settings
from tests.unit.test_runner import WORK
from workers.steps import registry, runner

registry._RUNS["build"] = lambda *_: threading.Event().wait()
runner.run_step(WORK, Settings(data=Path(sys.argv[1])))
"""


@contextmanager
def container(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that runs a step, until it is killed."""
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", _STEP, str(data)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_step_in_another_container_stays_until_it_was_killed(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)

    def steps() -> list[Path]:
        return [folder for folder in settings.work.glob("step-*") if (folder / "work").is_dir()]

    with container(tmp_path), container(tmp_path) as other:
        until(lambda: len(steps()) == 2, lambda: "two steps")
        before = sorted(steps())
        sweep(settings)
        assert sorted(steps()) == before
        other.send_signal(signal.SIGKILL)
        other.wait()
        until(lambda: (sweep(settings), len(steps()))[1] == 1, lambda: "the end of one")
    until(lambda: (sweep(settings), len(steps()))[1] == 0, lambda: "the end of both")
