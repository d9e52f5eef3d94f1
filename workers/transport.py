"""A Redis transport of kombu that drops an entry of a queue that is no message.

kombu 5.7 raises what its JSON decoder raises, and a KeyError for an entry without the fields of a message. Either ends
the worker. Builders push messages to the queue of uploads, so one of them could end every publisher.
"""

import logging
from typing import Any

import kombu.transport
from kombu.transport import redis

_log = logging.getLogger(__name__)


class Channel(redis.Channel):  # type: ignore[misc]
    """Reads on after an entry that is not JSON in UTF-8."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError) as error:
            _drop(error)
            return True  # an entry was read


class Transport(redis.Transport):  # type: ignore[misc]
    """Reads on after an entry that has not the fields of a message."""

    Channel = Channel

    def _deliver(self, message: Any, queue: Any) -> None:
        try:
            super()._deliver(message, queue)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            _drop(error)


def install() -> None:
    """Make kombu use it for `redis://` and `redis+socket://` in connections that are made from now on."""
    kombu.transport.TRANSPORT_ALIASES["redis"] = f"{__name__}:{Transport.__name__}"


def _drop(error: Exception) -> None:
    _log.warning("Dropped an entry of a queue that is no message: %.200r", error, extra={"action": "bad-message"})
