"""Keys of the broker that all accounts share, or that the scheduler reads of all: one account must not spoil them."""

import pytest
from redis.exceptions import NoPermissionError

from farm import queues
from tests.attacks.conftest import Broker

BUILD = "build.x86_64"


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
