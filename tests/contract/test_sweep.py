"""The sweep on a real Redis: it removes keys of ended attempts, keeps live ones, and never scans everything at once."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from farm.broker.leases import Leases, Touch
from farm.config import Settings
from farm.scheduler.sweep import Sweeper, Swept
from tests.messages import work_of
from tests.redis_server import redis_server

WORK = work_of("fetch")
LIVE, OVER = "1.fetch.1", "2.fetch.1"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_LEASE_S": "30"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis) as client:
        yield client


@pytest.fixture
def sweeper(settings: Settings, leases: Leases) -> Iterator[Sweeper]:
    sweeper = Sweeper(settings, leases)
    yield sweeper
    sweeper.close()


def _sweep(sweeper: Sweeper) -> Swept:
    return sweeper.sweep(lambda: {LIVE})


def test_an_offer_of_an_attempt_that_is_over_goes_and_that_of_a_live_one_stays(
    sweeper: Sweeper, leases: Leases, client: redis.Redis
) -> None:
    for label in (LIVE, OVER):
        leases.offer(replace(WORK, attempt=label))
    assert _sweep(sweeper) == Swept(offers=1)
    assert client.exists(f"farm:offer:{LIVE}")
    assert not client.exists(f"farm:offer:{OVER}")
    assert leases.claim(LIVE, "t", "w", wait_s=1).attempt == LIVE


def test_the_worker_of_an_attempt_that_is_over_hears_that_its_lease_is_lost(sweeper: Sweeper, leases: Leases) -> None:
    for label in (LIVE, OVER):
        leases.offer(replace(WORK, attempt=label))
        leases.claim(label, "t", "w", wait_s=1)
    assert _sweep(sweeper) == Swept(leases=1)
    assert leases.touch(LIVE, "t") is Touch.HELD
    assert leases.touch(OVER, "t") is Touch.GONE


def test_logs_and_wakes_are_removed_only_if_they_would_never_expire(
    sweeper: Sweeper, leases: Leases, client: redis.Redis
) -> None:
    leases.show_log(OVER, 0, b"somebody may still be reading the end of it")
    client.set("farm:log:3.fetch.1", b"its worker died before it could say until when this is kept")
    client.lpush("farm:wake:3.fetch.1", b"1")
    assert _sweep(sweeper) == Swept(passing=2)
    assert client.exists(f"farm:log:{OVER}")
    assert client.keys("farm:*:3.fetch.1") == []


def test_keys_of_others_are_left_alone(sweeper: Sweeper, client: redis.Redis) -> None:
    names = [b"farm:off:build.x86_64", b"farm:events", b"source", b"control", b"build.x86_64", b"\xff\xfe", b"mine"]
    for name in names:
        client.set(name, b"1")
    assert _sweep(sweeper).total == 0
    assert sorted(client.keys()) == sorted(names)


def test_answers_that_were_not_read_for_an_hour_are_removed(sweeper: Sweeper, client: redis.Redis) -> None:
    dead, alive = (f"{uuid4()}.reply.celery.pidbox" for _ in range(2))
    # Restored with an age: nothing else tells Redis that a key was not used for two hours.
    client.lpush(dead, b"answer")
    content = client.dump(dead)
    client.restore(dead, 0, content, replace=True, idletime=7200)
    client.lpush(alive, b"answer")
    assert _sweep(sweeper) == Swept(replies=1)
    assert not client.exists(dead)
    assert client.exists(alive)


def test_a_redis_that_does_not_tell_ages_keeps_its_answers(sweeper: Sweeper, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lfu")
    client.lpush(f"{uuid4()}.reply.celery.pidbox", b"answer")
    assert _sweep(sweeper).total == 0


def test_keys_that_would_stay_for_years_are_removed(sweeper: Sweeper, client: redis.Redis) -> None:
    client.set("farm:worker:source:made-up@x", b"x", ex=10**8)
    client.set(f"farm:log:{OVER}", b"x", ex=10**8)
    client.set("farm:worker:source:source@x", b"x", ex=30)
    assert _sweep(sweeper).passing == 2
    assert client.keys() == [b"farm:worker:source:source@x"]


def test_keys_that_only_a_stranger_makes_go(sweeper: Sweeper, client: redis.Redis) -> None:
    strays = [b"farm:log:\xff.build.x86_64.1", b"farm:offer:\xff", b"publishzz3", b"build.x86_64zz9"]
    strays += [b"build@made-up.celery.pidbox", b"build@made-up.celery.pidboxzz3"]
    kept = [b"publish", b"publish\x06\x163", b"build.x86_64\x06\x169", b"\xffmine"]
    for name in (*strays, *kept):
        client.lpush(name, b"x")
    _sweep(sweeper)
    assert sorted(client.keys()) == sorted(kept)


def test_messages_of_other_celery_applications_are_left_alone(sweeper: Sweeper, client: redis.Redis) -> None:
    """The messages that they took and did not acknowledge are there under kombu's own names."""
    client.hset("unacked", "tag", json.dumps([{"headers": {"id": "x"}, "body": ""}, "", "celery"]))
    client.zadd("unacked_index", {"tag": 1})
    assert _sweep(sweeper).total == 0
    assert client.hlen("unacked") == client.zcard("unacked_index") == 1


def test_a_sweep_looks_at_a_portion_and_the_next_one_goes_on_from_there(
    settings: Settings, leases: Leases, client: redis.Redis
) -> None:
    many = 5000
    with client.pipeline() as pipe:
        for number in range(many):
            pipe.hset(f"farm:offer:{number + 10}.fetch.1", "work", "w")
        pipe.execute()
    sweeper = Sweeper(settings, leases, portion=1000)
    try:
        counts = [_sweep(sweeper).offers for _ in range(12)]
    finally:
        sweeper.close()
    assert sum(counts) == many
    assert max(counts) < many / 2


def test_live_attempts_are_asked_for_after_the_keys_were_listed(sweeper: Sweeper, leases: Leases) -> None:
    """An attempt that goes out while a sweep is under way is never taken for one that is over."""
    leases.offer(replace(WORK, attempt=LIVE))

    def live() -> set[str]:
        leases.offer(replace(WORK, attempt="3.fetch.1"))
        return {LIVE}

    assert sweeper.sweep(live).total == 0
    assert leases.states(["3.fetch.1"])["3.fetch.1"].is_offered


def test_a_sweep_is_logged_and_an_idle_farm_asks_the_database_nothing(
    sweeper: Sweeper, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def live() -> set[str]:
        pytest.fail("there is nothing to compare")

    assert sweeper.sweep(live).total == 0
    client.hset("farm:offer:9.fetch.1", "work", "w")
    _sweep(sweeper)
    assert [record.action for record in caplog.records if hasattr(record, "action")] == ["sweep"]
