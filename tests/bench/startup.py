"""Measures the cost of a command before it does anything: `farm status` as a process, over `python -c pass`.

Both are run in turn, and the processor time of each process is compared, not the time that passes: a busy machine adds
to the latter.
"""

import resource
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from plumbum import local

from farm.client import Farm
from farm.config import Settings
from farm.store.store import Store
from tests.bench.load import _ENVIRONMENT
from tests.redis_server import redis_server

_PAIRS = 15
_BUILDS = 20


def figures(data: Path) -> dict[str, object]:
    """Medians; the database has a screen of builds."""
    data.mkdir()
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "bench"})
    Store.open(settings.database, create=True).close()
    with redis_server(settings.socket):
        with Farm.connect(settings) as farm:
            request = farm.request(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
            farm.enqueue_many([request] * _BUILDS)
        pairs = [(_bare_ms(settings), _status_ms(settings)) for _ in range(_PAIRS)]
    bare_ms, status_ms = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(status / bare for bare, status in pairs)
    return {
        "status_over_bare": round(ratio, 1),
        "status_processor_ms": round(status_ms, 1),
        "bare_processor_ms": round(bare_ms, 1),
    }


def _bare_ms(settings: Settings) -> float:
    return _processor_ms([sys.executable, "-c", "pass"], settings)


def _status_ms(settings: Settings) -> float:
    return _processor_ms([str(Path(sys.executable).with_name("farm")), "status"], settings)


def _processor_ms(argv: Sequence[str], settings: Settings) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    local[argv[0]][argv[1:]].run(stdin=None, env={**_ENVIRONMENT, "FARM_DATA": str(settings.data)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
