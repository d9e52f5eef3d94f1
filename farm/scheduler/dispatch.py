"""Sends Celery chains: pushes the messages of messages.py onto the queues in Redis.

A message is a pointer: attempt and version. The scheduler offers the work in Redis beforehand (farm.broker.leases), so
a message that is lost, late or delivered twice does no harm, and a forged message gives no right to anything.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from farm.broker.connection import connect, unanswered
from farm.config import Settings
from farm.scheduler.messages import Messages
from farm.steps.base import Order


class Dispatcher:
    """Keeps one connection. For the scheduler's thread alone."""

    def __init__(self, settings: Settings) -> None:
        # Nothing is sent twice by itself: the scheduler makes the steps ready again that may not have been sent.
        self._redis = connect(settings, timeout_s=30, connect_s=10, retry=Retry(NoBackoff(), 0))
        self._messages = Messages()

    def send(self, orders: Sequence[Order]) -> None:
        """Send all orders in one round trip. Raises FarmNotRunning when the broker fails; it may have taken some."""
        if not orders:
            return
        entries: dict[str, list[str]] = {}
        for order in orders:
            text = self._messages.text(order.message, order.following)
            entries.setdefault(order.message.queue, []).append(text)
        with _broker(), self._redis.pipeline(transaction=False) as pipe:
            for queue, texts in entries.items():
                pipe.lpush(queue, *texts)
            pipe.execute()

    def close(self) -> None:
        self._redis.close()


@contextmanager
def _broker() -> Iterator[None]:
    """Raises FarmNotRunning in place of the errors of redis when the broker does not answer."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise unanswered(error) from error
