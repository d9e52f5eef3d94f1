"""Measures the cost of the leases of many running builds: processor seconds per second, here and in Redis."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import redis

from farm.broker.leases import Leases
from farm.config import Settings
from tests.messages import work_of
from tests.redis_server import redis_server
from workers.agent.lease import LeaseKeeper

RUNNING = 500
_WARM_S = 3.0
_FOR_S = 15.0
_END_S = 2.0  # a keeper's thread ends by itself within a second


def cost(data: Path) -> dict[str, float]:
    """For 500 builds that write no log: the share of one processor that their workers use together, and Redis."""
    data.mkdir(parents=True)
    settings = Settings.from_env({"FARM_DATA": str(data)})
    with redis_server(settings.socket), redis.Redis.from_url(settings.redis) as client, ExitStack() as clients:
        with ExitStack() as keepers:
            for number in range(RUNNING):
                leases = Leases(settings)  # each worker process has its own
                clients.callback(leases.close)
                work = replace(work_of("build"), attempt=f"{number}.build.x86_64.1")
                leases.offer(work)
                leases.claim(work.attempt, "token", "build@bench", wait_s=1)
                keepers.enter_context(LeaseKeeper(leases, work.attempt, "token"))
            time.sleep(_WARM_S)
            started_at, ours_s, redis_s = time.monotonic(), time.process_time(), _redis_s(client)
            time.sleep(_FOR_S)
            took_s = time.monotonic() - started_at
            ours, theirs = (time.process_time() - ours_s) / took_s, (_redis_s(client) - redis_s) / took_s
            assert len(client.keys("farm:lease:*")) == RUNNING
        time.sleep(_END_S)
    return {"workers": round(ours, 4), "redis": round(theirs, 4), "sum": round(ours + theirs, 4)}


def _redis_s(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
