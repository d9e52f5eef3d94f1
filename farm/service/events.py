"""Events of builds for many listeners at once: one subscription at Redis, and what was missed out of SQL.

Redis has an event for a moment only. A listener that comes back names the last event that it got, and is given the
changes since then that SQL knows: steps that were sent, began or ended, and builds that were enqueued or ended. SQL
does not know why a step waited, nor an attempt that was withdrawn.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
import redis

from farm.broker.live import LiveReader
from farm.errors import FarmError, FarmNotRunning, NotFound
from farm.model.actor import Actor
from farm.model.build import Attempt, Build, Step
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT
from farm.service.service import FarmService

_WAITING_MAX = 1000
#: A project that becomes private, or a member that leaves, is noticed after so long.
_SEEN_KEPT_S = 2.0
_KEPT_MAX = 10_000
_AWAY_S = 0.5
_REPLAY_MAX = 200
#: Clients that come back all at once leave threads for requests.
_REPLAYS_AT_ONCE = 2
_REPLAY_WITHIN = timedelta(hours=1)
_log = logging.getLogger(__name__)
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class BuildEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a step of a build, or, with `step` null, of the build as a whole. `at` is when it changed.

    `package` and `project` are null in the event of a build that a person cancelled. `reason` is untrusted text.
    """

    build: int
    status: Status
    at: datetime
    project: str | None = None
    package: str | None = None
    step: str | None = None
    arch: str | None = None
    attempt: str | None = None
    outcome: Outcome | None = None
    reason: str | None = None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Events after `since` were lost; `why` says what to read instead."""

    since: datetime
    why: str


class Listener:
    """One reader of events; of one build, if `build_id` is given."""

    def __init__(self, build_id: int | None) -> None:
        self.build_id = build_id
        self._waiting: asyncio.Queue[BuildEvent | Lost | None] = asyncio.Queue(_WAITING_MAX + 1)
        self._has_lost = False

    def give(self, event: BuildEvent) -> None:
        """Events that a slow reader has not taken are dropped, and the reader is told so."""
        if self.build_id not in (None, event.build) or self._has_lost:
            return
        if self._waiting.qsize() >= _WAITING_MAX:
            self._has_lost = True
            self._waiting.put_nowait(Lost(since=event.at, why=f"{_WAITING_MAX} events waited; read the builds again"))
        else:
            self._waiting.put_nowait(event)

    def give_lost(self, lost: Lost) -> None:
        if self._waiting.qsize() < _WAITING_MAX:
            self._waiting.put_nowait(lost)

    def end(self) -> None:
        """Have `next` return None, after the events that wait."""
        if self._waiting.qsize() <= _WAITING_MAX:
            self._waiting.put_nowait(None)

    async def next(self) -> BuildEvent | Lost | None:
        found = await self._waiting.get()
        if isinstance(found, Lost):
            self._has_lost = False
        return found


class Events:
    """The listeners of one event loop. `on_event` is called with the number of each build that changes."""

    def __init__(self, service: FarmService, reader: Callable[[], LiveReader], on_event: Callable[[int], None]) -> None:
        self._service = service
        self._reader = reader
        self._on_event = on_event
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_listening = asyncio.Event()
        self._is_closed = False
        self._replays = asyncio.Semaphore(_REPLAYS_AT_ONCE)
        self._projects: dict[int, str] = {}  # by build; it never changes
        self._seen: dict[tuple[Actor, str], tuple[float, bool]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def start(self) -> None:
        """Subscribe, if that has not happened yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def check(self) -> None:
        """Raises FarmNotRunning when the broker gives no events now, or this server ends."""
        if self._is_closed:
            raise FarmNotRunning("this server ends; ask again")
        self.start()
        try:
            await asyncio.wait_for(self._is_listening.wait(), 2 * _AWAY_S)
        except TimeoutError as error:
            raise FarmNotRunning("the farm's broker does not answer, so there are no events; try again") from error

    async def close(self) -> None:
        self._is_closed = True
        for listener in self._listeners:
            listener.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=2 * _AWAY_S)

    async def listen(
        self, build_id: int | None, since: datetime | None, viewer: Actor, *, who: str
    ) -> AsyncGenerator[BuildEvent | Lost | None, None]:
        """Events that the viewer may see from now on, after those since then that SQL knows. None when the subscription
        has begun. One listener of an account, `who`, is given earlier events at a time.
        """
        if self._is_closed:
            return
        listener = Listener(build_id)
        self._listeners.add(listener)
        try:
            yield None
            if since is not None:
                for event in await self._missed(build_id, since, viewer, who):
                    yield event
            while (found := await listener.next()) is not None:
                if isinstance(found, Lost) or await self._sees(viewer, found):
                    yield found
        finally:
            self._listeners.discard(listener)

    async def _missed(self, build_id: int | None, since: datetime, viewer: Actor, who: str) -> list[BuildEvent | Lost]:
        """Reading hundreds of builds takes a thread for a while, also after its listener has left."""

        async def read(turn: asyncio.Lock) -> list[BuildEvent | Lost]:
            try:
                async with self._replays:
                    return await asyncio.to_thread(missed, self._service, build_id, since, viewer)
            finally:
                turn.release()

        turn = self._turns.setdefault(who, asyncio.Lock())
        await turn.acquire()
        return await asyncio.shield(asyncio.create_task(read(turn)))

    def _is_over(self) -> bool:
        return self._is_closed

    async def _sees(self, viewer: Actor, event: BuildEvent) -> bool:
        """Whether the viewer sees the project of its build. The build's own row says which that is, since any client of
        the broker may have published the event."""
        project = self._projects.get(event.build)
        if project is None:
            try:
                project = await asyncio.to_thread(self._service.project_of, event.build)
            except NotFound:
                return True  # no build of the farm
            except FarmError:
                return False
            _keep(self._projects, event.build, project)
        if project == DEFAULT_PROJECT:
            return True
        now = asyncio.get_running_loop().time()
        read_at, sees = self._seen.get((viewer, project), (now - _SEEN_KEPT_S, False))
        if now - read_at >= _SEEN_KEPT_S:
            sees = await asyncio.to_thread(self._service.projects.places.sees, viewer, project)
            _keep(self._seen, (viewer, project), (now, sees))
        return sees

    async def _run(self) -> None:
        away_since: datetime | None = None
        while not self._is_over():
            try:
                async with aclosing(self._reader().events()) as events:
                    async for event in events:
                        if self._is_over():  # the call to Redis can swallow a cancellation
                            return
                        if away_since is not None:
                            self._tell_lost(away_since)
                            away_since = None
                        self._is_listening.set()
                        if event is not None and (found := _event_of(event)) is not None:
                            self._on_event(found.build)
                            for listener in self._listeners:
                                listener.give(found)
            except Exception as error:
                # Any error: all listeners depend on this task.
                away_since = away_since or datetime.now(UTC)
                self._is_listening.clear()
                level = logging.DEBUG if isinstance(error, redis.RedisError | OSError) else logging.ERROR
                _log.log(level, "No events for now: %s", error, exc_info=error, extra={"action": "events"})
                await asyncio.sleep(_AWAY_S)

    def _tell_lost(self, since: datetime) -> None:
        for listener in self._listeners:
            listener.give_lost(Lost(since=since, why="the broker was away; read the builds again"))


def _keep(kept: dict[KeyT, ValueT], key: KeyT, value: ValueT) -> None:
    if len(kept) >= _KEPT_MAX:
        kept.clear()
    kept[key] = value


def _event_of(event: dict[str, Any]) -> BuildEvent | None:
    """Only the keys that every reader may see; None for an event of another form, which any client can publish."""
    try:
        return msgspec.convert({"at": datetime.now(UTC).isoformat()} | event, BuildEvent)
    except msgspec.ValidationError:
        return None


def missed(service: FarmService, build_id: int | None, since: datetime, viewer: Actor) -> list[BuildEvent | Lost]:
    """The changes after that time, in their order, as far as SQL knows them and the viewer may see them."""
    if datetime.now(UTC) - since > _REPLAY_WITHIN:
        return [Lost(since=since, why="events are kept for an hour; read the builds again")]
    ids = [build_id] if build_id is not None else service.changed_since(since, limit=_REPLAY_MAX + 1)
    if len(ids) > _REPLAY_MAX:
        return [Lost(since=since, why=f"more than {_REPLAY_MAX} builds changed; read the builds again")]
    found: list[BuildEvent] = []
    for one in ids:
        with suppress(NotFound):
            found += [event for event in _events_of(service.build(one, viewer)) if event.at > since]
    return [*sorted(found, key=lambda event: event.at)]


def _events_of(build: Build) -> Iterator[BuildEvent]:
    yield BuildEvent(
        build=build.id, project=build.project, package=build.package, status=Status.READY, at=build.created_at
    )
    for step in build.steps:
        for attempt in step.attempts:
            yield from _of_attempt(build, step, attempt)
    if build.finished_at is not None:
        yield BuildEvent(
            build=build.id,
            project=build.project,
            package=build.package,
            status=build.status,
            outcome=build.outcome,
            reason=build.reason,
            at=build.finished_at,
        )


def _of_attempt(build: Build, step: Step, attempt: Attempt) -> Iterator[BuildEvent]:
    for status, at in (
        (Status.DISPATCHED, attempt.dispatched_at),
        (Status.RUNNING, attempt.started_at),
        (Status.FINISHED, attempt.finished_at),
    ):
        if at is not None:
            is_end = status is Status.FINISHED
            yield BuildEvent(
                build=build.id,
                project=build.project,
                package=build.package,
                step=step.kind,
                arch=step.arch,
                attempt=attempt.label,
                status=status,
                outcome=attempt.outcome if is_end else None,
                reason=attempt.reason if is_end else None,
                at=at,
            )
