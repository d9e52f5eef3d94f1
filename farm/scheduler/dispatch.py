"""Sends Celery chains: the only part of the farm's library that knows Celery as a sender.

A message is a pointer: attempt and version. The scheduler offers the work in Redis beforehand (farm.broker.leases), so
a message that is lost, late or delivered twice does no harm, and one that is forged gives no right to anything.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import kombu.exceptions
import redis
from celery import chain, signature

from farm import wire
from farm.app import app
from farm.errors import FarmNotRunning
from farm.steps.base import Message, Order
from farm.steps.registry import step_type


class Dispatcher:
    """One producer on one connection, kept. For the scheduler's thread alone."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._producer: Any = None

    def send(self, orders: Iterable[Order]) -> None:
        """Raises FarmNotRunning when the broker does not take them; some may have gone out."""
        with ExitStack() as stack, _broker():
            stack.callback(self.close)
            if self._producer is None:
                self._producer = app.amqp.Producer(app.connection_for_write(self._url))
            for order in orders:
                _publish(order, self._producer)
            stack.pop_all()

    def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.connection.release()


@contextmanager
def _broker() -> Iterator[None]:
    """Raises FarmNotRunning instead of what Celery, kombu and redis raise when the broker does not answer."""
    try:
        yield
    except (kombu.exceptions.OperationalError, redis.RedisError, OSError) as error:
        raise FarmNotRunning(f"the farm's broker does not answer ({error}); start it with `farm up`") from error


def _publish(order: Order, producer: Any) -> None:
    links = [_link(message) for message in (order.message, order.following) if message is not None]
    if len(links) == 1:
        links[0].apply_async(producer=producer, retry=False)
        return
    # Celery 5.7's chain.apply_async drops `producer` and takes a connection from the pool that it makes out of its
    # configuration, so its two halves are called here: freeze the links, send the first with the rest inside it.
    work = chain(*links)
    steps, _ = work.prepare_steps((), {}, work.tasks, app=app)
    steps.pop().apply_async(chain=steps, producer=producer, retry=False)


def _link(message: Message) -> Any:
    """Immutable: a step's input is what was recorded, never what the task before it returned."""
    name = f"{message.kind} {message.package} {message.arch}" if message.arch else f"{message.kind} {message.package}"
    return signature(
        step_type(message.kind).task,
        kwargs={"attempt": message.attempt, "v": wire.VERSION},
        immutable=True,
        app=app,
        options={"task_id": message.attempt, "queue": message.queue, "shadow": name, "ignore_result": True},
    )
