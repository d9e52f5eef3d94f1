"""A connection of the server, with bounds on what a client may leave undone. Uvicorn has one only after an answer.

Owns the time for a request to arrive and for an answer to be taken, and the number of connections. Not the size of a
body (farm.server.app).
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True, kw_only=True)
class ConnectionBounds:
    """A request arrives whole within `receive_s`. A client that takes no byte of an answer for `send_s` is cut off.

    Above `connections_max`, the connection is closed that has waited longest for its client: for the rest of a request,
    or for the client to take what was sent.
    """

    receive_s: float = 30.0
    send_s: float = 60.0
    connections_max: int = 1000


class BoundedConnection(H11Protocol):
    """One connection. Uvicorn makes it, with its own arguments."""

    def __init__(self, *args: Any, bounds: ConnectionBounds, **more: Any) -> None:
        super().__init__(*args, **more)
        self._bounds = bounds
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._bounds.connections_max:
            self._close_longest_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receiving()
        self._stop_sending()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self._bounds.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_sending()
        super().resume_writing()

    @property
    def waits_since(self) -> float | None:
        """The time of the loop since when the connection waits for its client; None unless it does."""
        if self._sending is not None:
            return self._sending.when() - self._bounds.send_s
        return self._receiving.when() - self._bounds.receive_s if self._receiving else None

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_receiving()
        elif self._receiving is None and not self.transport.is_closing():
            self._receiving = self.loop.call_later(self._bounds.receive_s, self.transport.abort)

    def _close_longest_waiting(self) -> None:
        waiting = [
            (one.waits_since, id(one), one)
            for one in self.connections
            if isinstance(one, BoundedConnection) and one.waits_since is not None and not one.transport.is_closing()
        ]
        if waiting:
            min(waiting)[2].transport.abort()

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
