"""Measures the cost of scheduling and queries with many builds: a hundred thousand that wait, a million that are over.

Owns its own Redis and database. Costs are processor time where they can be, so that another process on the machine
changes them little; what a person waits for is wall-clock time.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from plumbum import local
from typer.testing import CliRunner

from farm import queues
from farm.cli.main import app
from farm.client import Farm
from farm.config import Settings
from farm.model.build import BuildRequest
from farm.store.store import Store
from tests.bench import crowd, tiny
from tests.databases import cluster, new_database
from tests.fake_workers import FakeWorkers, fail
from tests.redis_server import redis_server

Said = Callable[[str], AbstractContextManager[None]]

WAITING = (1_000, 10_000, 100_000)
FINISHED = (1_000, 1_000_000)
_BATCH = 1_000
_WARM, _MEASURED = 200, 600  # builds
_SLOTS = 8
_REPEATS = 7
_WITHIN_S = 120.0
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "COLUMNS": "120", "FARM_LOG_LEVEL": "WARNING"}


def figures(data: Path, said: Said) -> dict[str, object]:
    with said(f"batches of {_BATCH} src.rpm"):
        found = _enqueueing(data / "enqueue")
    found |= _piled(data / "sqlite", said, lambda: nullcontext(""))
    with cluster("bench") as server:
        piled = _piled(data / "postgresql", said, lambda: new_database(server.url))
    return found | {f"postgresql_{name}": value for name, value in piled.items()}


def _piled(data: Path, said: Said, new: Callable[[], AbstractContextManager[str]]) -> dict[str, object]:
    """With databases that `new` makes, each for its own count of builds."""
    costs: dict[str, int] = {}
    for count in WAITING:
        with new() as url, said(f"{data.name}: scheduling with {count} builds waiting"):
            settings = _settings(data / f"waiting-{count}", url)
            crowd.add_waiting(settings.database, count)
            costs[str(count)] = _schedule_us(settings)
    looks: dict[str, dict[str, float]] = {}
    for count in FINISHED:
        with new() as url, said(f"{data.name}: looking and scheduling with {count} builds finished"):
            settings = _settings(data / f"finished-{count}", url)
            crowd.add_finished(settings.database, count)
            crowd.add_waiting(settings.database, WAITING[0])
            for name, value in _looks_ms(settings).items():
                looks.setdefault(name, {})[str(count)] = value
            costs[f"{WAITING[0]} after {count}"] = _schedule_us(settings)
    few, many = (sum(look[str(count)] for name, look in looks.items() if "cli" not in name) for count in FINISHED)
    return {
        "schedule_us_per_build": costs,
        "schedule_growth": round(costs[str(WAITING[-1])] / costs[str(WAITING[0])], 2),
        **looks,
        "finished_growth": round(many / few, 2),
    }


def _settings(data: Path, url: str = "") -> Settings:
    data.mkdir(parents=True)
    env = {"FARM_DATA": str(data), "FARM_LOG_LEVEL": "WARNING", "FARM_OWNER": "bench"}
    return Settings.from_env(env | ({"FARM_DATABASE_URL": url} if url else {}))


def _env(settings: Settings) -> dict[str, str]:
    url = {"FARM_DATABASE_URL": settings.database_url} if settings.database_url else {}
    return {"FARM_DATA": str(settings.data), **url}


# --- asking -----------------------------------------------------------------------------------------------------


def _enqueueing(data: Path) -> dict[str, object]:
    """Builds a second, and what share of the time is the database's."""
    settings = _settings(data)
    srpms = tiny.make_srpms(10, data / "srpms")
    with redis_server(settings.socket):
        Store.open(settings.database, create=True).close()
        with Farm.connect(settings) as farm:
            requests = [
                farm.request(srpm=srpms[n % len(srpms)], target="demo", arches=["x86_64"]) for n in range(_BATCH)
            ]
            whole_s = min(_timed_s(lambda: farm.enqueue_many(requests)) for _ in range(_REPEATS))
        store = Store.open(settings.database)
        sql_s = min(_timed_s(lambda: _add(store, requests)) for _ in range(_REPEATS))
        store.close()
    return {"enqueue_per_s": round(_BATCH / whole_s), "enqueue_sql_share": round(min(1.0, sql_s / whole_s), 2)}


def _add(store: Store, requests: list[BuildRequest]) -> None:
    store.add_batch(requests, owner="bench")


def _timed_s(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


# --- scheduling -------------------------------------------------------------------------------------------------


def _schedule_us(settings: Settings) -> int:
    """Processor time of the scheduler's process for one build that it sends out and whose one report it settles.

    A real scheduler, Redis and Celery messages; workers that take a fetch and say at once that it failed, which ends
    the build, so that the number of those that wait is what was asked for.
    """
    with (
        redis_server(settings.socket),
        FakeWorkers(settings, slots=_SLOTS, names=(queues.SOURCE,), answer=lambda _: fail()) as workers,
        _scheduler(settings) as pid,
    ):
        _await(lambda: len(workers.done) >= _WARM, "the scheduler to send the first builds")
        workers.announce()
        before_s, before = _processor_s(pid), len(workers.done)
        _await(lambda: len(workers.done) >= before + _MEASURED, f"the scheduler to send {_MEASURED} builds")
        after_s, after = _processor_s(pid), len(workers.done)
    return round((after_s - before_s) / (after - before) * 1e6)


@contextmanager
def _scheduler(settings: Settings) -> Iterator[int]:
    env = _ENVIRONMENT | _env(settings)
    with (settings.data / "scheduler.log").open("wb") as log:
        process = local[sys.executable]["-m", "farm.scheduler"].popen(stdin=None, stdout=log, stderr=log, env=env)
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()


def _processor_s(pid: int) -> float:
    """To the nanosecond, and of all its threads: /proc/PID/stat counts hundredths."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _await(is_there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not is_there():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_WITHIN_S:g} s for {what}")
        time.sleep(0.001)


# --- looking ----------------------------------------------------------------------------------------------------


def _looks_ms(settings: Settings) -> dict[str, float]:
    """Medians: `farm status` and `farm list` within a process and as a person types them; what a pass asks SQL."""
    env = _env(settings)
    with redis_server(settings.socket), FakeWorkers(settings, slots=1):
        store = Store.open(settings.database)
        found = {
            "status_ms": _median_ms(lambda: _invoke(env, "status")),
            "list_ms": _median_ms(lambda: _invoke(env, "list")),
            "list_target_ms": _median_ms(lambda: _invoke(env, "list", "--target", "no-such-target")),
            "status_cli_ms": _median_ms(lambda: _type(env, "status")),
            "list_cli_ms": _median_ms(lambda: _type(env, "list")),
            "pass_ms": _median_ms(lambda: _pass(store)),
        }
        store.close()
    return found


def _median_ms(action: Callable[[], object]) -> float:
    action()
    return round(statistics.median(_timed_s(action) for _ in range(_REPEATS)) * 1000, 1)


def _invoke(env: dict[str, str], *words: str) -> None:
    result = CliRunner().invoke(app, list(words), env=env, prog_name="farm")
    assert result.exit_code == 0, result.output


def _type(env: dict[str, str], *words: str) -> None:
    local[str(Path(sys.executable).with_name("farm"))][words].run(stdin=None, env=_ENVIRONMENT | env)


def _pass(store: Store) -> None:
    """Everything that the scheduler asks in one pass and in what it does once a second."""
    now = datetime.now(UTC)
    store.closing()
    store.heads()
    store.promote_due(now, most=200)
    with store.read_view() as look:
        look.live()
        for queue, groups in look.groups(most=500).items():
            for priority, level in groupby(groups[:_SLOTS], key=lambda pair: pair[0]):
                look.ready_of_owners(queue, priority, [owner for _, owner in level], most=_SLOTS)
