"""An attempt's log as bytes: live out of Redis while the attempt runs, from the artifact store afterwards.

A recipe wrote its content. This module does not decode, cut or escape it; the code that shows it does.
"""

import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from farm.artifacts.base import ArtifactStore
from farm.errors import NotFound, WrongState
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Attempt, Build, Step
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome, Status
from farm.service.watch import listen
from farm.steps.registry import find_step_type

if TYPE_CHECKING:
    from farm.broker.leases import Leases

TIMES_SUFFIX = ".times.json"
_CHUNK_BYTES = 2**16
_LIVE_EVERY_S = 0.2
#: The order of preference: the failed step, then the running one, then the one that made the packages.
_NOT_TELLING = (Outcome.SUCCEEDED, Outcome.UNCHANGED, Outcome.EXCLUDED, Outcome.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class LogPlace:
    """The build, step and attempt of the log."""

    step: Step
    attempt: Attempt

    @property
    def artifact(self) -> Artifact | None:
        """The whole log; None while the attempt runs, and when it ended without one."""
        logs = (item for item in self.attempt.artifacts if item.kind is ArtifactKind.LOG)
        return next((item for item in logs if not item.name.endswith(TIMES_SUFFIX)), None)

    @property
    def times(self) -> Artifact | None:
        """The sidecar with the times at which parts of the log were written."""
        log = self.artifact
        wanted = f"{log.name}{TIMES_SUFFIX}" if log else None
        return next((item for item in self.attempt.artifacts if item.name == wanted), None)


def find_log(
    build: Build, *, step: str | None = None, arch: Arch | None = None, attempt: int | None = None
) -> LogPlace:
    """The requested log; the most useful one if step, arch or attempt are left out.

    Raises NotFound for a step or attempt that the build does not have, WrongState when none has begun yet.
    """
    steps = [one for one in build.steps if step in (None, one.kind) and (arch is None or one.arch in (None, arch))]
    if not steps:
        have = ", ".join(one.name for one in build.steps)
        raise NotFound(f"build {build.id} has no step {step or ''} {arch or ''}; it has {have}".replace("  ", " "))
    begun = [one for one in steps if one.attempts]
    if not begun:
        why = next((one.waits_for or one.reason for one in steps if one.waits_for or one.reason), "it waits")
        raise WrongState(f"{steps[0].name} of build {build.id} has no log yet: {why}")
    chosen = min(begun, key=lambda one: (_how_telling(one), -begun.index(one)))
    tries = {one.number: one for one in chosen.attempts}
    if attempt is not None and attempt not in tries:
        have = ", ".join(map(str, tries))
        raise NotFound(f"{chosen.name} of build {build.id} has no attempt {attempt}; it has {have}")
    return LogPlace(step=chosen, attempt=tries[attempt] if attempt is not None else chosen.attempts[-1])


def _how_telling(step: Step) -> int:
    if step.outcome is not None and step.outcome not in _NOT_TELLING and step.counts:
        return 0
    if step.status is Status.RUNNING:
        return 1
    kind = find_step_type(step.kind)
    if kind is not None and kind.makes_packages:
        return 2
    return 3


def read_log(
    place: LogPlace, store: ArtifactStore, leases: "Callable[[], Leases]", *, refresh: Callable[[], Build], follow: bool
) -> Iterator[bytes]:
    """The log's bytes; with `follow`, until the attempt is over. Raises NotFound when there is none."""
    offset = 0
    if place.attempt.status is not Status.FINISHED:
        import redis

        from farm.broker.connection import unanswered

        try:
            for data in _live(place, leases(), refresh, follow=follow):
                offset += len(data)
                yield data
        except redis.RedisError as error:
            raise unanswered(error) from error
        place = _again(refresh(), place)
    if place.artifact is not None:
        yield from _stored(place.artifact, store, offset)
    elif offset == 0 and place.attempt.status is Status.FINISHED:
        raise _no_log(place)


@dataclass(frozen=True, kw_only=True)
class LogPart:
    """Some bytes of an attempt's log; `is_over` when the log has no byte after them and gets none."""

    attempt: str
    data: bytes
    is_over: bool


def read_part(
    place: LogPlace,
    store: ArtifactStore,
    leases: "Callable[[], Leases]",
    *,
    refresh: Callable[[], Build],
    offset: int,
    limit: int,
) -> LogPart:
    """At most `limit` bytes from the byte at `offset` on, as they are there now: none is awaited. Raises NotFound when
    the attempt left no log.
    """
    label = place.attempt.label
    if place.attempt.status is not Status.FINISHED:
        import redis

        from farm.broker.connection import unanswered

        try:
            data = leases().read_log(label, offset)[:limit]
        except redis.RedisError as error:
            raise unanswered(error) from error
        place = _again(refresh(), place)
        if data or place.attempt.status is not Status.FINISHED:
            return LogPart(attempt=label, data=data, is_over=False)
    if place.artifact is None:
        if offset == 0:
            raise _no_log(place)
        return LogPart(attempt=label, data=b"", is_over=True)
    with store.open(place.artifact.sha256, offset) as file:
        data = file.read(limit + 1)
    return LogPart(attempt=label, data=data[:limit], is_over=len(data) <= limit)


def _no_log(place: LogPlace) -> NotFound:
    why = place.attempt.reason or place.step.reason or place.attempt.outcome
    return NotFound(f"attempt {place.attempt.label} left no log: {why}")


def _live(place: LogPlace, leases: "Leases", refresh: Callable[[], Build], *, follow: bool) -> Iterator[bytes]:
    label = place.attempt.label
    build_id = AttemptLabel.parse(label).job_id
    offset = 0
    with closing(listen(leases, _LIVE_EVERY_S)) as events:
        for event in events:
            # Others' builds make most of the events; None comes often enough for the log to flow.
            if event is not None and event.get("build") != build_id:
                continue
            if data := leases.read_log(label, offset):
                offset += len(data)
                yield data
            if not follow:
                return
            if _again(refresh(), place).attempt.status is Status.FINISHED:
                return


def _again(build: Build, place: LogPlace) -> LogPlace:
    """The same attempt in its present state."""
    for step in build.steps:
        for attempt in step.attempts:
            if attempt.label == place.attempt.label:
                return LogPlace(step=step, attempt=attempt)
    raise NotFound(f"attempt {place.attempt.label} was withdrawn: {build.reason or 'its step is tried again'}")


def _stored(artifact: Artifact, store: ArtifactStore, offset: int) -> Iterator[bytes]:
    with store.open(artifact.sha256, offset) as file:
        while data := file.read(_CHUNK_BYTES):
            yield data


class Times:
    """The times at which the parts of a log were written, from its sidecar: [milliseconds since the start, byte offset]
    pairs.

    >>> Times(b"[[0, 0], [1500, 80]]").seconds_at(100)
    1.5
    """

    def __init__(self, document: bytes) -> None:
        """Raises ValueError for a document that is no sidecar."""
        pairs = msgspec.json.decode(document, type=list[tuple[int, int]])
        self._offsets: Sequence[int] = [offset for _, offset in pairs]
        self._milliseconds: Sequence[int] = [at for at, _ in pairs]

    def seconds_at(self, offset: int) -> float | None:
        """The time from the step's start until the byte at `offset` was written; None before the first stamp."""
        place = bisect.bisect_right(self._offsets, offset) - 1
        return self._milliseconds[place] / 1000 if place >= 0 else None
