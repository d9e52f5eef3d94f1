"""Answers that stay open: events of builds, and logs while they grow. None of them holds a thread.

A log is sent as it is, in chunks, and not as events of text: its bytes need not be text, and `curl` shows them. Its
offset says where a client goes on.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from farm.errors import TooManyRequests
from farm.model.actor import Actor
from farm.model.token import Token
from farm.server.parameters import ActorRequest, MaybeId
from farm.server.share import account_of
from farm.service.bodies import ATTEMPT_HEADER, OFFSET_HEADER, PREFIX
from farm.service.events import BuildEvent, Lost
from farm.service.live import Live
from farm.service.log import LogPlace
from farm.service.service import FarmService

#: Open answers of one actor, and of all. A server has connections for more, which are left for requests.
OF_ONE_ACTOR, OF_ALL = 100, 600
_BEAT_S = 15.0
_CHECK_EVERY_S = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Streams:
    """The open answers of this server."""

    def __init__(self, service: FarmService) -> None:
        self._live = Live(service)
        self._service = service
        self._open: Counter[str] = Counter()
        self._checks: dict[int, tuple[float, asyncio.Task[bool]]] = {}
        self.place = self._live.place

    async def close(self) -> None:
        await self._live.close()

    async def log(self, request: ActorRequest, place: LogPlace, *, offset: int, tail: int | None) -> Response[Any]:
        """Raises TooManyRequests."""
        self._check_room(request.user)
        start = await self._live.start(place, offset=offset, tail=tail)
        headers = {
            ATTEMPT_HEADER: place.attempt.label,
            OFFSET_HEADER: str(start),
            "x-accel-buffering": "no",  # nginx would keep small parts back
        }
        chunks = self._counted(request, self._live.log(place, start))
        return Stream(chunks, media_type="application/octet-stream", headers=headers)

    async def events(self, request: ActorRequest, build_id: int | None, since: datetime | None) -> Response[Any]:
        """Raises TooManyRequests, and FarmNotRunning when there are no events now."""
        self._check_room(request.user)
        await self._live.events.check()
        viewer = request.user
        found = self._counted(request, _written(self._live.listen(build_id, since, viewer, who=account_of(viewer))))
        return Stream(found, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def _check_room(self, actor: Actor) -> None:
        if self._open[who := account_of(actor)] >= OF_ONE_ACTOR:
            raise TooManyRequests(f"{who} follows {OF_ONE_ACTOR} logs or events already; close some of them")
        if self._open.total() >= OF_ALL:
            raise TooManyRequests(f"this server has {OF_ALL} followers already; try again later, or ask without follow")

    async def _counted(self, request: ActorRequest, chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        # Counted when its first byte is asked for: an answer that is never taken is not closed either.
        who = account_of(request.user)
        self._open[who] += 1
        try:
            async with aclosing(chunks):
                async for data in chunks:
                    if request.auth is not None and not await self._is_valid(request.auth):
                        return
                    yield data
        finally:
            self._open[who] -= 1
            if self._open[who] <= 0:
                del self._open[who]

    async def _is_valid(self, token: Token) -> bool:
        """Whether the token was valid within the last seconds. One thread asks for all streams of a token."""
        now = time.monotonic()
        at, task = self._checks.get(token.id, (-_CHECK_EVERY_S, None))
        if task is None or (task.done() and now - at >= _CHECK_EVERY_S):
            self._checks = {number: one for number, one in self._checks.items() if now - one[0] < 2 * _CHECK_EVERY_S}
            task = asyncio.ensure_future(asyncio.to_thread(self._service.is_valid, token))
            self._checks[token.id] = (now, task)
        return await asyncio.shield(task)


LiveStreams = NamedDependency[Streams]


class LiveEvents(Controller):
    """The route of events."""

    path = PREFIX
    tags = ("builds",)

    @get("/events", media_type="text/event-stream")
    async def events(
        self,
        live: LiveStreams,
        request: ActorRequest,
        build: MaybeId = None,
        last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
        after: Annotated[str | None, QueryParameter(max_length=40)] = None,
    ) -> Response[Any]:
        """Changes of builds as server-sent events: `change` has a change, `lost` says which changes may be missing.

        A client that sends the id of the last event that it got, as Last-Event-ID or as `after`, is given the later
        changes out of the database first: all but reasons for waiting, and withdrawn attempts.
        """
        return await live.events(request, build, _time_of(last_event_id or after))


def _time_of(event_id: str | None) -> datetime | None:
    """None for an id that no event has."""
    with suppress(ValueError, OverflowError):
        if event_id is not None and event_id.isascii():
            return _EPOCH + timedelta(microseconds=int(event_id))
    return None


def _id_of(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


async def _written(events: AsyncGenerator[BuildEvent | Lost | None, None]) -> AsyncGenerator[bytes, None]:
    """As text, with a comment whenever nothing happened for some seconds."""
    async with aclosing(events):
        waiting: asyncio.Task[BuildEvent | Lost | None] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait((waiting,), timeout=_BEAT_S)
                if not done:
                    yield b": still here\n\n"
                    continue
                task, waiting = waiting, None
                try:
                    yield _text(task.result())
                except StopAsyncIteration:
                    return
        finally:
            if waiting is not None:
                waiting.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting


def _text(event: BuildEvent | Lost | None) -> bytes:
    if event is None:  # its id lets a client come back that has got no other event
        return b"retry: 1000\nid: %d\nevent: ready\ndata: {}\n\n" % _id_of(datetime.now(UTC))
    if isinstance(event, Lost):
        return b"event: lost\ndata: %s\n\n" % msgspec.json.encode(event)
    return b"id: %d\nevent: change\ndata: %s\n\n" % (_id_of(event.at), msgspec.json.encode(event))
