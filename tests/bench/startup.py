"""Measures the cost of commands as processes, over `python -c pass`: with the fork server of `farm up`, and without.

Commands and Python are run in turn, and the processor time is compared, not the time that passes: a busy machine adds
to the latter. A served command costs its own process, its fork, and the server's work for it.
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from plumbum import local

from farm.cli.start import SOCKET
from farm.client import Farm
from farm.config import Settings
from farm.store.store import Store
from tests.bench.load import _ENVIRONMENT
from tests.redis_server import redis_server

_PAIRS = 30
_BUILDS = 20
_COMMANDS = {"status": ["status"], "list": ["list"], "help": ["--help"], "build_help": ["build", "--help"]}
_SERVED_WITHIN_S = 60.0
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def figures(data: Path) -> dict[str, object]:
    """Ratios of means; the database has a screen of builds."""
    data.mkdir()
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "bench"})
    Store.open(settings.database, create=True).close()
    with redis_server(settings.socket):
        with Farm.connect(settings) as farm:
            request = farm.request(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
            farm.enqueue_many([request] * _BUILDS)
        alone_ms, bare_ms = _means_ms(settings, ["status"], lambda: 0.0)
        with _fork_server(settings) as server:
            served = {name: _means_ms(settings, words, lambda: _family_ms(server)) for name, words in _COMMANDS.items()}
    return {
        **{f"{name}_over_bare": round(one / bare, 2) for name, (one, bare) in served.items()},
        "status_alone_over_bare": round(alone_ms / bare_ms, 1),
        "status_processor_ms": round(served["status"][0], 1),
        "bare_processor_ms": round(served["status"][1], 1),
    }


def _means_ms(settings: Settings, words: Sequence[str], elsewhere_ms: Callable[[], float]) -> tuple[float, float]:
    """Processor times of the command, with its cost in other processes, and of a bare Python that runs in turn."""
    argv = [str(Path(sys.executable).with_name("farm")), *words]
    before_ms = elsewhere_ms()
    pairs = [(_processor_ms(argv, settings), _bare_ms(settings)) for _ in range(_PAIRS)]
    command_ms, bare_ms = (statistics.mean(times) for times in zip(*pairs, strict=True))
    time.sleep(0.2)  # the server waits for the end of the last fork
    return command_ms + (elsewhere_ms() - before_ms) / _PAIRS, bare_ms


@contextmanager
def _fork_server(settings: Settings) -> Iterator[int]:
    argv = ["-m", "farm.cli.forkserver"]
    env = {**_ENVIRONMENT, "FARM_DATA": str(settings.data)}
    process = local[sys.executable][argv].popen(stdin=None, stdout=None, stderr=None, env=env)
    try:
        deadline = time.monotonic() + _SERVED_WITHIN_S
        while not (settings.data / SOCKET).exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the fork server does not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _family_ms(pid: int) -> float:
    """The processor time of a process and of its children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_MS


def _bare_ms(settings: Settings) -> float:
    return _processor_ms([sys.executable, "-c", "pass"], settings)


def _processor_ms(argv: Sequence[str], settings: Settings) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    local[argv[0]][argv[1:]].run(stdin=None, env={**_ENVIRONMENT, "FARM_DATA": str(settings.data)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
