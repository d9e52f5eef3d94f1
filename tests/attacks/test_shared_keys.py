"""Keys of the broker that all accounts share, or that the scheduler reads of all: one account must not spoil them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from farm import queues
from farm.broker.leases import Leases
from farm.config import Settings
from farm.scheduler.sweep import Sweeper, Swept
from tests.attacks.conftest import ADMIN, Broker

BUILD = "build.x86_64"


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT])
def test_no_account_reaches_tables_of_bindings(broker: Broker, account: str) -> None:
    """Whoever sends a message would read them, however long one account had made them."""
    for table in ("binding.control", "binding.celery.pidbox", "binding_permanent.control", "binding_deadlines"):
        for words in (("SADD", "x"), ("ZADD", "1", "x"), ("SMEMBERS",), ("DEL",)):
            with broker.client(account) as client, pytest.raises(NoPermissionError):
                client.execute_command(words[0], f"_kombu.{table}", *words[1:])


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT, "scheduler"])
def test_an_account_reaches_no_other_database(broker: Broker, account: str) -> None:
    with broker.client(account) as client, pytest.raises(NoPermissionError):
        client.execute_command("SELECT", 5)


@pytest.fixture
def sweeper(broker: Broker, tmp_path: Path) -> Iterator[Sweeper]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("scheduler")})
    with closing(Leases(settings)) as leases, closing(Sweeper(settings, leases)) as sweeper:
        yield sweeper
    with broker.client(ADMIN) as client:
        client.flushdb()


def _sweep_with_a_leftover(broker: Broker, sweeper: Sweeper) -> Swept:
    with broker.client(BUILD) as client:
        client.hset("farm:offer:99.build.x86_64.1", "work", "x")
    return sweeper.sweep(lambda: ())


@pytest.mark.parametrize("spoilt", ["", ":index"])
def test_a_key_of_another_type_among_the_messages_taken_stops_no_sweep(
    broker: Broker, sweeper: Sweeper, spoilt: str
) -> None:
    with broker.client(BUILD) as client:
        client.zadd(f"unacked:{BUILD}:index", {"tag": 1})
        client.set(f"unacked:{BUILD}{spoilt}", "x")
    assert _sweep_with_a_leftover(broker, sweeper).offers == 1
    with broker.client(ADMIN) as client:
        assert client.type(f"unacked:{BUILD}{spoilt}") == b"none"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"x" * 2**21, b"\xff"])
def test_a_message_that_no_reader_takes_is_dropped(broker: Broker, sweeper: Sweeper, body: bytes) -> None:
    with broker.client(BUILD) as client:
        client.zadd(f"unacked:{BUILD}:index", {"tag": 1})
        client.hset(f"unacked:{BUILD}", "tag", body)
    swept = _sweep_with_a_leftover(broker, sweeper)
    assert (swept.offers, swept.unacked) == (1, 1)
