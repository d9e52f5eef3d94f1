"""A Redis transport of kombu that needs nothing which the accounts of the broker share, and outlives bad entries.

kombu keeps what leads from exchanges to queues in tables that every account would have to read and write, and keeps
them up with scripts of its own. The farm's exchanges need neither: a task's routing key is its queue, an answer to a
question to workers goes to the queue that is named after who asked, and all else is published to whoever listens.
"""

import logging
from typing import Any

import kombu.transport
from kombu.transport import redis, virtual

from farm.broker import keys

_log = logging.getLogger(__name__)
_FORM = ("application/json", "utf-8", "base64")


class QoS(virtual.QoS):  # type: ignore[misc]
    """Keeps what was taken and not acknowledged in this process alone.

    kombu keeps it in Redis, for another worker to find an hour after this one died, and for that every account needs
    commands with which it can stop the server. The farm's scheduler sends an attempt again long before.
    """

    def restore_visible(self, **_: object) -> None:
        """There is nothing in Redis to give back."""


class Channel(redis.Channel):  # type: ignore[misc]
    """Routes by name, and reads on after an entry that is not JSON in UTF-8.

    kombu 5.7 raises what its JSON decoder raises, and a KeyError for an entry without the fields of a message. Either
    ends the worker. Builders push messages to the queue of uploads, so one of them could end every publisher.
    """

    ack_emulation = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = QoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """With the protocol that needs no HELLO, which no account may use."""
        return {**super()._connparams(asynchronous), "protocol": 2}

    def _queue_bind(self, exchange: str, routing_key: str, _pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def _lookup(self, exchange: str, routing_key: str, _default: str | None = None) -> list[str]:
        return [f"{routing_key}.{exchange}" if exchange == keys.REPLIES else routing_key]

    def _delete(self, queue: str, *_binding: object, **options: Any) -> None:
        self.auto_delete_queues.discard(queue)
        with self.conn_or_acquire(client=options.get("client")) as client:
            client.delete(*(self._q_for_pri(queue, priority) for priority in self.priority_steps))

    def maybe_refresh_binding_expiry(self) -> None:
        """There are no tables that expire."""

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
            # Where it goes if its reader dies is for who reads it to say, not for who sent it.
            message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
            # The farm compresses nothing, and kombu would undo it in three ways. A small message may be large then.
            form = (message["content-type"], message["content-encoding"], message["properties"]["body_encoding"])
            if form != _FORM or "compression" in message["headers"]:
                raise ValueError(f"its form is {str(form)[:100]}")
            super()._deliver(message, queue)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            _drop(error)


def install() -> None:
    """Make kombu use it for `redis://`, `rediss://` and `redis+socket://` in connections that are made from now on."""
    for scheme in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"


def _drop(error: Exception) -> None:
    _log.warning("Dropped an entry of a queue that is no message: %.200r", error, extra={"action": "bad-message"})
