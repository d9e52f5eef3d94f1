"""Sends Celery chains: the only part of the farm's library that knows Celery as a sender.

A message is a pointer: attempt and version. The scheduler offers the work in Redis beforehand (farm.broker.leases), so
a message that is lost, late or delivered twice does no harm, and a forged message gives no right to anything.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import redis
from kombu.exceptions import BatchPublishError, OperationalError

from farm import wire
from farm.app import app
from farm.errors import FarmNotRunning
from farm.steps.base import Message, Order
from farm.steps.registry import step_type


class Dispatcher:
    """Keeps one producer on one connection. For the scheduler's thread alone."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._producer: Any = None

    def send(self, orders: Sequence[Order]) -> None:
        """Send all orders in one round trip. Raises FarmNotRunning when the broker fails; it may have taken some."""
        if not orders:
            return
        with ExitStack() as stack, _broker():
            stack.callback(self.close)
            if self._producer is None:
                self._producer = app.amqp.Producer(app.connection_for_write(self._url))
            with self._producer.batch(max_size=len(orders)):
                for order in orders:
                    _publish(order, self._producer)
            stack.pop_all()

    def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.connection.release()


@contextmanager
def _broker() -> Iterator[None]:
    """Raises FarmNotRunning in place of the errors of Celery, kombu and redis when the broker does not answer."""
    try:
        yield
    except (OperationalError, BatchPublishError, redis.RedisError, OSError) as error:
        reason = error.__cause__ if isinstance(error, BatchPublishError) else error
        raise FarmNotRunning(f"the farm's broker does not answer ({reason}); start it with `farm up`") from error


def _publish(order: Order, producer: Any) -> None:
    """Send the message that `chain(…).apply_async` sends, by the functions below Celery's canvas: the canvas copies
    each signature several times, which takes half of the scheduler's time for a message. A test compares the two."""
    first, second = order.message, order.following
    task = app.amqp.create_task_message(
        first.attempt,
        step_type(first.kind).task,
        kwargs=_arguments(first),
        chain=[_link(second)] if second is not None else None,
        shadow=_shown(first),
        ignore_result=True,
        argsrepr="()",
        kwargsrepr=str(_arguments(first)),
    )
    # Nothing is declared: the queues are lists in Redis, and a list exists from its first entry.
    app.amqp.send_task_message(producer, step_type(first.kind).task, task, queue=first.queue, retry=False, declare=())


def _link(message: Message) -> dict[str, Any]:
    """An immutable signature: a step's input is the recorded one, never the result of the task before it."""
    options = {"task_id": message.attempt, "queue": message.queue, "shadow": _shown(message), "ignore_result": True}
    return {
        "task": step_type(message.kind).task,
        "args": [],
        "kwargs": _arguments(message),
        "options": options,
        "subtask_type": None,
        "immutable": True,
    }


def _arguments(message: Message) -> dict[str, Any]:
    return {"attempt": message.attempt, "v": wire.VERSION}


def _shown(message: Message) -> str:
    """The task's name in Flower."""
    return f"{message.kind} {message.package} {message.arch}" if message.arch else f"{message.kind} {message.package}"
