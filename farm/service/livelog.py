"""Follows logs of running attempts for many readers at once: one reader of Redis for each attempt, without threads.

A follower is at an offset of its own. The feed of its attempt keeps the newest part of the log, which costs no follower
a question; a follower that is further behind reads its part from Redis or the artifact store. A stream may end at any
time, and a follower asks again with a larger offset, so a server that ends loses none.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable

import redis

from farm.broker.live import LiveReader
from farm.errors import FarmError, NotFound
from farm.model.label import AttemptLabel
from farm.model.outcome import Status
from farm.service.log import LogPart
from farm.service.permissions import OWN_PROCESS
from farm.service.service import FarmService

_KEPT_BYTES = 2**20
_PART_BYTES = 2**18
#: Between two questions for new bytes.
_TICK_S = 0.04
#: The time that a pass may take for each follower, so that many followers leave time for requests.
_PER_FOLLOWER_S = 0.0005
_LINGER_S = 3.0
_LOOK_EVERY_S = 2.0
_AWAY_S = 0.5
_CLOSE_S = 2.0
#: A stream without a byte ends before a proxy would cut it off.
_SILENCE_S = 45.0
_LONGEST_S = 3600.0
_log = logging.getLogger(__name__)


class Feed:
    """The newest part of one attempt's live log. `base` and `end` are offsets of its first and behind its last byte."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.base = self.end = 0
        self.followers = 0
        #: The attempt is over, and `is_whole` says whether nothing comes after `end`.
        self.is_over = self.is_whole = False
        self.is_closed = False
        self.is_touched = False
        self._kept = bytearray()
        self._changed = asyncio.Event()
        self.ready = asyncio.Event()

    def add(self, data: bytes) -> None:
        self._kept += data
        self.end += len(data)
        if (extra := len(self._kept) - _KEPT_BYTES) > 0:
            del self._kept[:extra]
            self.base += extra

    def tell(self) -> None:
        """Wake the followers."""
        self.ready.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def has(self, offset: int) -> bool:
        return self.base <= offset < self.end

    def part(self, offset: int) -> bytes:
        start = offset - self.base
        return bytes(self._kept[start : start + _PART_BYTES])

    def tail(self, size: int) -> int:
        """The offset of the first whole line of the last `size` bytes."""
        at = max(self.base, self.end - size)
        if at == 0:
            return 0
        line_end = self._kept.find(b"\n", at - self.base)
        return at if line_end < 0 else self.base + line_end + 1

    async def change(self, timeout_s: float) -> bool:
        """Wait for the next `tell`; False after the timeout."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class LiveLogs:
    """The feeds of one event loop. `touch` is called for each build of which an event comes."""

    def __init__(self, service: FarmService, reader: Callable[[], LiveReader]) -> None:
        self._service = service
        self._reader = reader
        self._feeds: dict[str, Feed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def touch(self, build_id: int) -> None:
        """Have the feeds of this build look whether their attempts are over."""
        for feed in self._feeds.values():
            if AttemptLabel.parse(feed.label).job_id == build_id:
                feed.is_touched = True

    async def close(self) -> None:
        """End all streams, those of requests that still come among them."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.is_closed = True
            feed.tell()
        for task in tuple(self._tasks.values()):
            # A question to Redis can swallow this; the task then ends by itself, since its feed is closed.
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_CLOSE_S)

    async def feed(self, label: str, *, is_over: bool) -> Feed:
        """The feed of an attempt, with all that its live log has now. The caller calls `leave`."""
        if is_over or self._is_closed:
            feed = Feed(label)
            feed.is_over = is_over  # each follower reads the kept log by itself
            feed.is_closed = self._is_closed
            return feed
        found = self._feeds.get(label)
        if found is None or found.is_closed:
            found = self._feeds[label] = Feed(label)
            self._tasks[label] = asyncio.create_task(self._run(found))
        feed = found
        feed.followers += 1
        try:
            await feed.ready.wait()
        except BaseException:
            self.leave(feed)
            raise
        return feed

    def leave(self, feed: Feed) -> None:
        """A feed without followers ends some seconds later: one that was cut off comes back soon."""
        feed.followers -= 1
        if feed.followers <= 0 and self._feeds.get(feed.label) is feed:
            asyncio.get_running_loop().call_later(_LINGER_S, self._drop, feed)

    def _drop(self, feed: Feed) -> None:
        if feed.followers <= 0 and self._feeds.get(feed.label) is feed:
            del self._feeds[feed.label]
            feed.is_closed = True
            self._tasks.pop(feed.label).cancel()

    async def stream(self, feed: Feed, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes from this offset on, until the attempt is over, or a proxy would end the stream for its silence."""
        ends_at = time.monotonic() + _LONGEST_S
        try:
            while not feed.is_closed and time.monotonic() < ends_at:
                if feed.has(offset):
                    data = feed.part(offset)
                elif feed.is_over and feed.is_whole and offset >= feed.end:
                    return
                elif offset < feed.base or feed.is_over:
                    part = await self._part(feed.label, offset)
                    if part is None or (not part.data and part.is_over):
                        return
                    data = part.data
                elif await feed.change(_SILENCE_S):
                    continue
                else:
                    return
                offset += len(data)
                yield data
        finally:
            self.leave(feed)

    async def _part(self, label: str, offset: int, limit: int = _PART_BYTES) -> LogPart | None:
        """None for an attempt without a log."""
        one = AttemptLabel.parse(label)
        try:
            return await asyncio.to_thread(
                self._service.log_part,
                one.job_id,
                step=one.kind,
                arch=one.arch,
                attempt=one.number,
                offset=offset,
                limit=limit,
                viewer=OWN_PROCESS,
            )
        except NotFound:
            return None

    async def _run(self, feed: Feed) -> None:
        """Read the log while it is followed."""
        looked_at = 0.0
        while not (feed.is_over or feed.is_closed):
            began_at = time.monotonic()
            try:
                has_more = await self._read(feed)
                if feed.is_touched or (not has_more and began_at - looked_at > _LOOK_EVERY_S):
                    looked_at, feed.is_touched = began_at, False
                    await self._look(feed)
            except Exception as error:
                # Any error: all followers of the log depend on this task.
                level = logging.DEBUG if isinstance(error, redis.RedisError | FarmError | OSError) else logging.ERROR
                extra = {"action": "live-log"}
                _log.log(level, "The log of %s cannot be read: %s", feed.label, error, exc_info=error, extra=extra)
                feed.ready.set()
                await asyncio.sleep(_AWAY_S)
                continue
            await asyncio.sleep(max(_TICK_S, feed.followers * _PER_FOLLOWER_S))

    async def _read(self, feed: Feed) -> bool:
        """Take all new bytes; whether there were any."""
        before = feed.end
        while data := await self._reader().read_log(feed.label, feed.end, _PART_BYTES):
            feed.add(data)
            if len(data) < _PART_BYTES:
                break
        if feed.end > before or not feed.ready.is_set():
            feed.tell()
        return feed.end > before

    async def _look(self, feed: Feed) -> None:
        """When the attempt is over, add the end of the log from where it is kept."""
        label = AttemptLabel.parse(feed.label)
        build = await asyncio.to_thread(self._service.build, label.job_id, OWN_PROCESS)
        state = next((a.status for step in build.steps for a in step.attempts if a.label == feed.label), None)
        if state not in (Status.FINISHED, None):
            return
        part = await self._part(feed.label, feed.end, _KEPT_BYTES)
        if part is not None:
            feed.add(part.data)
        feed.is_whole = part is None or part.is_over
        feed.is_over = True
        feed.tell()
