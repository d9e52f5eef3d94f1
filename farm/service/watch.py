"""Watches builds: reads snapshots from SQL whenever Redis announces an event.

SQL is the truth, so events come from comparing snapshots. If the broker is away, no event is lost or invented; events
only come later.
"""

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from farm.model.arch import Arch
from farm.model.build import Build, Step
from farm.model.outcome import Outcome, Status

if TYPE_CHECKING:
    from farm.broker.leases import Leases

POLL_S = 0.5
_log = logging.getLogger(__name__)
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something about a build changed: a step of it, or, with `step` None, the build as a whole.

    `worker` is the worker that ran it, `seconds` the duration of a finished attempt. `reason` is printable but
    untrusted text out of a log.
    """

    build: int
    package: str
    step: str | None
    arch: Arch | None
    attempt: str | None
    status: Status
    outcome: Outcome | None
    reason: str | None
    waits_for: str | None
    worker: str | None
    seconds: float | None
    at: datetime

    @property
    def name(self) -> str:
        """`build x86_64`, `fetch`; empty for the build as a whole."""
        return f"{self.step or ''} {self.arch or ''}".strip()

    def __str__(self) -> str:
        took = f" in {self.seconds:.1f} s" if self.seconds is not None else ""
        more = f": {self.reason}" if self.reason else ""
        if self.status is not Status.FINISHED:
            took = f" on {self.worker}" if self.worker and self.status is Status.RUNNING else ""
            more = f": {self.waits_for}" if self.waits_for else ""
        words = (str(self.build), self.package, self.name, str(self.outcome or self.status))
        return " ".join(word for word in words if word) + took + more


def changes(before: Build | None, after: Build) -> Iterator[Event]:
    """The differences, steps in order, the build as a whole last. Without `before`, an event for each step that has
    begun.
    """
    known = {(step.kind, step.arch): _state(step) for step in before.steps} if before else {}
    for step in after.steps:
        old = known.get((step.kind, step.arch))
        if _state(step) != old and not (old is None and step.status is Status.WAITING):
            yield _step_event(after, step)
    if before is None or (before.status, before.outcome) != (after.status, after.outcome):
        yield _build_event(after)


def watch(
    read: Callable[[], Build], leases: "Callable[[], Leases]", *, build_id: int, timeout_s: float | None = None
) -> Generator[Build | None, None, None]:
    """Yield the result of `read`, at once and then whenever it may have changed; the finished build is last.

    Yields None, and ends, when `timeout_s` have passed, at most POLL_S late.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    poll_s = POLL_S if timeout_s is None else min(POLL_S, max(timeout_s, 0.001))
    with closing(_signals(leases(), build_id, poll_s)) as signals:
        for _ in signals:
            build = read()
            yield build
            if build.status is Status.FINISHED:
                return
            if deadline is not None and time.monotonic() >= deadline:
                yield None
                return


def _signals(leases: "Leases", build_id: int, poll_s: float) -> Generator[None, None, None]:
    """Yield None at once, for each event about this build, and at least every `poll_s`.

    The first comes after the subscription to events, so that no event between read and subscription is missed.
    """
    import redis

    is_away = False
    while True:
        try:
            with closing(listen(leases, poll_s)) as events:
                for event in events:
                    is_away = False
                    if event is None or event.get("build") == build_id:
                        yield None
        except redis.RedisError as error:
            if not is_away:
                _log.warning("The farm's broker does not answer (%s); reading the database alone", error)
            is_away = True
            yield None
            time.sleep(poll_s)


def listen(leases: "Leases", timeout_s: float) -> Generator[dict[str, Any] | None, None, None]:
    """All events, with None at least every `timeout_s`, even during a stream of events of other builds."""
    quiet_at = time.monotonic() + timeout_s
    for event in leases.events(timeout_s=timeout_s):
        yield event
        if event is None:
            quiet_at = time.monotonic() + timeout_s
        elif time.monotonic() > quiet_at:
            quiet_at = time.monotonic() + timeout_s
            yield None


def _state(step: Step) -> tuple[object, ...]:
    """The values of which a change makes an event. Positions in queues and seconds to a retry count down without an
    event.
    """
    waits_for = _NUMBERS.sub("", step.waits_for) if step.waits_for else None
    return step.status, step.outcome, step.reason, waits_for, len(step.attempts)


def _step_event(build: Build, step: Step) -> Event:
    last = step.attempts[-1] if step.attempts else None
    at = (last.finished_at or last.started_at or last.dispatched_at) if last else None
    return Event(
        build=build.id,
        package=build.package,
        step=step.kind,
        arch=step.arch,
        attempt=last.label if last else None,
        status=step.status,
        outcome=step.outcome,
        reason=step.reason,
        waits_for=step.waits_for,
        worker=last.worker if last else None,
        seconds=seconds(last.started_at, last.finished_at) if last else None,
        at=at or datetime.now(UTC),
    )


def _build_event(build: Build) -> Event:
    return Event(
        build=build.id,
        package=build.package,
        step=None,
        arch=None,
        attempt=None,
        status=build.status,
        outcome=build.outcome,
        reason=build.reason,
        waits_for=None,
        worker=None,
        seconds=seconds(build.created_at, build.finished_at),
        at=build.finished_at or datetime.now(UTC),
    )


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """The duration, not negative even if the clocks of two hosts differ."""
    return max(0.0, (end - start).total_seconds()) if start and end else None
