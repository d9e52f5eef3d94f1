"""The errors that a worker's consumer meets while it takes a message."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state
from kombu.message import Message
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from workers.agent.consumer import Consumer
from workers.agent.denial import EXIT_CODE
from workers.agent.messages import reduce_message

DENIAL = NoPermissionError("this user has no permissions to access the channel /0.celeryev/task.received")


class Channel:
    """As much of a transport as a message needs to be acknowledged."""

    no_ack_consumers: None = None

    def __init__(self) -> None:
        self.acknowledged: list[str] = []

    def basic_ack(self, tag: str, **_: Any) -> None:
        self.acknowledged.append(tag)


@pytest.fixture(autouse=True)
def _running_worker() -> Iterator[None]:
    yield
    state.should_stop = None


def consumer_that_meets(error: Exception) -> Consumer:
    """A consumer whose tasks' strategy meets this error: it sends Celery's events, and hands on to the pool."""

    def strategy(*_: object) -> None:
        raise error

    consumer: Consumer = object.__new__(Consumer)
    consumer.strategies = {"farm.upload": strategy}
    consumer.connection_errors = (RedisConnectionError,)
    consumer.on_task_message = set()
    consumer._maximum_prefetch_restored = True
    return consumer


def deliver(consumer: Consumer, channel: Channel) -> None:
    body = json.dumps([[], {"attempt": "1.upload.x86_64.1", "v": 4}, {"chain": None}])
    message = Message(
        body=body,
        delivery_tag="tag",
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": "farm.upload", "id": "1.upload.x86_64.1"},
        channel=channel,
        accept={"application/json"},
    )
    consumer.create_task_handler()(message)


def test_a_denial_stops_the_worker_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    consumer, channel = consumer_that_meets(DENIAL), Channel()
    with caplog.at_level(logging.WARNING):
        deliver(consumer, channel)
        deliver(consumer, channel)
    assert state.should_stop == EXIT_CODE
    assert [record.action for record in caplog.records] == ["denied"]  # type: ignore[attr-defined]
    assert channel.acknowledged == ["tag", "tag"]


def test_any_other_error_costs_its_message_alone(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    with caplog.at_level(logging.WARNING):
        deliver(consumer_that_meets(ValueError("odd")), channel)
    assert state.should_stop is None
    assert [record.action for record in caplog.records] == ["bad-message"]  # type: ignore[attr-defined]
    assert channel.acknowledged == ["tag"]


def test_a_lost_connection_is_celerys_to_mend() -> None:
    channel = Channel()
    with pytest.raises(RedisConnectionError):
        deliver(consumer_that_meets(RedisConnectionError("gone")), channel)
    assert channel.acknowledged == []


@pytest.mark.parametrize(
    ("label", "follows", "queue", "to"),
    [("1.build.x86_64.1", "upload", "publish", ("behind", "publish")), ("1.fetch.1", "srpm", "source", (None, None))],
)
def test_the_next_message_of_a_chain_goes_behind_others_in_another_roles_queue(
    label: str, follows: str, queue: str, to: tuple[str | None, str | None]
) -> None:
    link = {"task": f"farm.{follows}", "args": [], "kwargs": {}, "options": {"queue": queue}, "immutable": True}
    kind = label.split(".")[1]
    body = json.dumps([[], {"attempt": label, "v": 4}, {"chain": [link]}])
    message = Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": f"farm.{kind}", "id": label},
        channel=Channel(),
        accept={"application/json"},
    )
    reduce_message(message)
    (sent,) = message.payload[2]["chain"]
    assert (sent["options"].get("exchange"), sent["options"].get("routing_key")) == to
