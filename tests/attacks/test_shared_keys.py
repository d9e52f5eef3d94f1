"""Keys of the broker that all accounts share, or that the scheduler reads of all: one account must not spoil them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from farm import queues
from farm.broker.leases import Leases
from farm.config import Settings
from farm.repositories.pulp.together import Together
from farm.scheduler.sweep import Sweeper
from tests.attacks.conftest import ADMIN, Broker

BUILD = "build.x86_64"
_REPLY = b".reply.celery.pidbox"
STRAYS = (b"farm:x" + _REPLY, b"farm:" + _REPLY, b"L" * 2000 + _REPLY, b"\xff" + _REPLY, b"x" + _REPLY)


@pytest.fixture
def sweeper(broker: Broker, tmp_path: Path) -> Iterator[Sweeper]:
    """The scheduler's, on an empty broker."""
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("scheduler")})
    with broker.client(ADMIN) as admin:
        admin.flushdb()
    leases = Leases(settings)
    sweeper = Sweeper(settings, leases)
    yield sweeper
    sweeper.close()
    leases.close()


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT])
def test_no_account_reaches_tables_of_bindings(broker: Broker, account: str) -> None:
    """Every sender of a message would read them, however long one account had made them."""
    for table in ("binding.control", "binding.celery.pidbox", "binding_permanent.control", "binding_deadlines"):
        for words in (("SADD", "x"), ("ZADD", "1", "x"), ("SMEMBERS",), ("DEL",)):
            with broker.client(account) as client, pytest.raises(NoPermissionError):
                client.execute_command(words[0], f"_kombu.{table}", *words[1:])


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT, "scheduler"])
def test_an_account_reaches_no_other_database(broker: Broker, account: str) -> None:
    with broker.client(account) as client, pytest.raises(NoPermissionError):
        client.execute_command("SELECT", 5)


@pytest.mark.parametrize("account", [*queues.WORKER_ROLES, "flower", queues.CLIENT])
def test_no_account_has_commands_that_cost_the_server_more_than_was_sent(broker: Broker, account: str) -> None:
    """WATCH looks through all that is watched for each key, and ZRANGE walks to its offset: both stop the server."""
    for words in (("WATCH", "a"), ("ZADD", "a", "1", "x"), ("ZRANGE", "a", "0", "1"), ("SRANDMEMBER", "a", "-9")):
        for key in ("unacked", f"unacked:{account}", "farm:workers:source", f"farm:wake:1.{account}.1"):
            with broker.client(account) as client, pytest.raises(NoPermissionError):
                client.execute_command(words[0], key, *words[2:])


@pytest.mark.parametrize("account", [queues.CLIENT, queues.PUBLISH])
def test_keys_of_publications_that_no_process_reads_are_swept(broker: Broker, account: str, tmp_path: Path) -> None:
    """Else an account could fill the broker for good, and stop the farm after its last command."""
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url("scheduler")})
    leases = Leases(settings)
    sweeper = Sweeper(settings, leases)
    with broker.client(account) as client, broker.client(ADMIN) as admin:
        for number in range(3):
            client.set(f"farm:publishing:none-{number}", b"x" * 2**20)
            client.set(f"farm:publishing:long-{number}", b"x" * 2**20, ex=10**6)
        if account == queues.PUBLISH:
            client.hset("farm:publish:none", "x", "x" * 2**20)
            client.set("farm:publish-took:none", "x" * 2**20)
            client.lpush("farm:published:none:x", "x" * 2**20)
        client.set("farm:publishing:held", b"token", ex=15)
        for _ in range(3):
            sweeper.sweep(frozenset)
        left = {name.decode() for name in admin.scan_iter("farm:publish*")}
        admin.delete("farm:publishing:held")
    sweeper.close()
    leases.close()
    assert left == {"farm:publishing:held"}


def test_what_a_publisher_leaves_ends_by_itself(broker: Broker, tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_BROKER_URL": broker.url(queues.PUBLISH)})
    together, before = Together(settings), broker.denials()
    with broker.client(ADMIN) as admin, together.coming("a"):
        assert 0 < admin.ttl("farm:publish:a") <= 60
        together.publish("b", {"path": "unit"}, lambda _: 7, threading.Event())
        assert all(0 < admin.ttl(name) <= 3600 for name in admin.scan_iter("farm:publish*"))
    assert broker.denials() == before


@pytest.mark.parametrize("account", queues.WORKER_ROLES)
def test_a_worker_makes_no_list_that_no_process_reads(broker: Broker, account: str) -> None:
    """Such a list stayed for good, or the scheduler was not allowed to delete it, and then it swept nothing more."""
    for name in (*STRAYS, f"{account}@x.celery.pidbox", f"{account}@x.celery.pidboxAB3"):
        with broker.client(account) as client, pytest.raises(NoPermissionError):
            client.lpush(name, b"x")


def test_lists_that_no_process_reads_are_swept(broker: Broker, sweeper: Sweeper) -> None:
    """Accounts of an older version may write them, and one that cannot be deleted must not keep the others there."""
    with broker.client(ADMIN) as admin:
        for name in (*STRAYS, b"build@zz.celery.pidbox", b"build@z.reply.celery.pidboxAB3"):
            admin.lpush(name, b"x")
        admin.set("farm:log:1.build.x86_64.1", b"x", ex=3600)
        sweeper.sweep(frozenset)
        assert admin.keys("*") == []


def test_a_key_that_the_scheduler_may_not_delete_stops_no_sweep(broker: Broker, sweeper: Sweeper) -> None:
    with broker.client(ADMIN) as admin:
        rights = next(line for line in admin.acl_list() if line.startswith("user scheduler "))
        admin.lpush("build@zz.celery.pidbox", b"x")
        admin.set("farm:log:1.build.x86_64.1", b"x")
        try:
            words = [word for word in rights.split()[2:] if not word.startswith("~*.celery")]
            admin.execute_command("ACL", "SETUSER", "scheduler", "reset", *words)
            sweeper.sweep(frozenset)
            assert admin.keys("*") == [b"build@zz.celery.pidbox"]
        finally:
            admin.execute_command("ACL", "SETUSER", "scheduler", "reset", *rights.split()[2:])
            admin.delete("build@zz.celery.pidbox")
            admin.acl_log_reset()


def test_what_a_builder_piles_up_in_its_own_keys_is_swept(broker: Broker, sweeper: Sweeper) -> None:
    """The queue of an arch without a worker, and keys of an attempt that goes on: they would fill the broker."""
    live = "1.build.aarch64.1"
    with broker.client("build.aarch64") as client, broker.client(ADMIN) as admin:
        for _ in range(12):
            client.lpush("build.aarch64\x06\x163", b"x" * 2**20)
            client.lpush(f"farm:wake:{live}", b"x" * 2**20)
        for number in range(3):
            client.hset(f"farm:lease:{live}", f"{number}", b"x" * 8 * 2**20)
        client.set("farm:worker:build.aarch64:build@x", b"x" * 2**20, ex=30)
        client.lpush("build.aarch64", b"a message")
        client.hset("farm:lease:2.build.aarch64.1", "work", b"x" * 2**20)
        sweeper.sweep(lambda: {live, "2.build.aarch64.1"})
        assert sorted(admin.keys("*")) == [b"build.aarch64", b"farm:lease:2.build.aarch64.1"]
        admin.flushdb()
