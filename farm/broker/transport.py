"""A Redis transport for kombu that needs no key shared by the accounts of the broker, and survives bad entries.

kombu keeps the bindings of exchanges to queues in tables that every account would have to read and write, and maintains
them with scripts of its own. The farm's exchanges need neither: a task's routing key is its queue, a worker's answer
goes to the queue that is named after the asking client, and every other message is published to listening processes.
"""

import logging
from typing import Any

import kombu.transport
from kombu.transport import redis, virtual

from farm import queues
from farm.broker import keys

_log = logging.getLogger(__name__)
_FORM = ("application/json", "utf-8", "base64")


class QoS(virtual.QoS):  # type: ignore[misc]
    """Keeps unacknowledged messages only in this process.

    kombu keeps them in Redis, where another worker finds them an hour after this one died; for that every account needs
    commands with which it can stop the server. The farm's scheduler sends an attempt again long before.
    """

    def restore_visible(self, **_: object) -> None:
        """Does nothing: Redis has no unacknowledged messages."""


class Channel(redis.Channel):  # type: ignore[misc]
    """Routes by name, and goes on after an entry that is not JSON in UTF-8.

    kombu 5.7 raises the errors of its JSON decoder, and a KeyError for an entry without the fields of a message. Either
    ends the worker. Builders push messages to the queue of uploads, so one builder could end every publisher.
    """

    ack_emulation = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = QoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Chooses the protocol that needs no HELLO, which no account may use."""
        return {**super()._connparams(asynchronous), "protocol": 2}

    def _queue_bind(self, exchange: str, routing_key: str, _pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def _lookup(self, exchange: str, routing_key: str, _default: str | None = None) -> list[str]:
        if exchange == keys.BEHIND:
            return [queues.behind(routing_key)]
        return [f"{routing_key}.{exchange}" if exchange == keys.REPLIES else routing_key]

    def _delete(self, queue: str, *_binding: object, **options: Any) -> None:
        self.auto_delete_queues.discard(queue)
        with self.conn_or_acquire(client=options.get("client")) as client:
            client.delete(*(self._q_for_pri(queue, priority) for priority in self.priority_steps))

    def maybe_refresh_binding_expiry(self) -> None:
        """Does nothing: there are no tables that expire."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError) as error:
            _drop(error)
            return True  # an entry was read


class Transport(redis.Transport):  # type: ignore[misc]
    """Goes on after an entry that does not have the fields of a message."""

    Channel = Channel

    def _deliver(self, message: Any, queue: Any) -> None:
        try:
            # The reader of the message, not its sender, decides where it goes if the reader dies.
            message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
            # The farm compresses no message, and kombu would decompress it: a small message could become large.
            form = (message["content-type"], message["content-encoding"], message["properties"]["body_encoding"])
            if form != _FORM or "compression" in message["headers"]:
                raise ValueError(f"its form is {str(form)[:100]}")
            super()._deliver(message, queue)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            _drop(error)


def install() -> None:
    """Make kombu use this transport for `redis://`, `rediss://` and `redis+socket://` in all later connections."""
    for scheme in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"


def _drop(error: Exception) -> None:
    _log.warning("Dropped an entry of a queue that is no message: %.200r", error, extra={"action": "bad-message"})
