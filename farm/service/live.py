"""The live part of a server: its subscription to events, and the logs that clients follow, in one event loop."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime

from farm.broker.live import LiveReader
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.outcome import Status
from farm.service.events import BuildEvent, Events, Lost
from farm.service.livelog import Feed, LiveLogs
from farm.service.log import LogPlace, find_log
from farm.service.service import FarmService


class Live:
    """Connects to Redis on first use. For one event loop."""

    def __init__(self, service: FarmService) -> None:
        self._service = service
        self._reader: LiveReader | None = None
        self.logs = LiveLogs(service, self._connected)
        self.events = Events(service, self._connected, self.logs.touch)

    def _connected(self) -> LiveReader:
        if self._reader is None:
            self._reader = LiveReader(self._service.settings)
        return self._reader

    async def close(self) -> None:
        """End all streams: their clients ask again."""
        await self.events.close()
        await self.logs.close()
        if self._reader is not None:
            await self._reader.close()

    async def place(
        self, build_id: int, *, step: str | None, arch: Arch | None, attempt: int | None, viewer: Actor
    ) -> LogPlace:
        """Raises NotFound, and WrongState when the step has not begun."""
        build = await asyncio.to_thread(self._service.build, build_id, viewer)
        return find_log(build, step=step, arch=arch, attempt=attempt)

    async def start(self, place: LogPlace, *, offset: int, tail: int | None) -> int:
        """The offset at which a stream of this log begins: `offset`, or that of the first line of the last `tail`
        bytes."""
        if tail is None:
            return offset
        if place.attempt.status is Status.FINISHED:
            return max(0, place.artifact.size_bytes - tail) if place.artifact is not None else 0
        feed = await self._feed(place)
        self.logs.leave(feed)
        return feed.tail(tail)

    async def log(self, place: LogPlace, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes from there on, until the attempt is over, or earlier: `log_part` says whether more may come."""
        async for data in self.logs.stream(await self._feed(place), offset):
            yield data

    async def _feed(self, place: LogPlace) -> Feed:
        self.events.start()
        return await self.logs.feed(place.attempt.label, is_over=place.attempt.status is Status.FINISHED)

    def listen(
        self, build_id: int | None, since: datetime | None, viewer: Actor, *, who: str
    ) -> AsyncGenerator[BuildEvent | Lost | None, None]:
        """Events that the viewer may see from now on, after those since then that SQL knows. None when the subscription
        has begun."""
        return self.events.listen(build_id, since, viewer, who=who)
