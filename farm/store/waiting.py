"""Why a step that does not run does not: worked out when somebody asks, so that waiting costs no writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from farm.model.build import StepKind
from farm.model.outcome import Status
from farm.store import schema


@dataclass(frozen=True, kw_only=True)
class QueueSeen:
    """A queue as the scheduler last saw it."""

    slots: int
    busy: int
    note: str = ""


def queues_seen(connection: sa.Connection) -> dict[str, QueueSeen]:
    rows = connection.execute(sa.select(schema.queue))
    return {row.name: QueueSeen(slots=row.slots, busy=row.busy, note=row.note or "") for row in rows}


def counts(connection: sa.Connection) -> dict[str, tuple[int, int]]:
    """(ready, sent or running) steps by queue; queues without any are left out."""
    column = schema.step.c
    ready = sa.select(column.queue, sa.func.count()).where(sa.text(schema.IS_READY)).group_by(column.queue)
    live = (
        sa.select(column.queue, sa.func.count())
        .select_from(schema.attempt.join(schema.step, schema.attempt.c.step_id == column.id))
        .where(sa.text(schema.IS_LIVE), schema.attempt.c.offered_at.is_not(None))
        .group_by(column.queue)
    )
    ready_by: dict[str, int] = {row[0]: row[1] for row in connection.execute(ready)}
    live_by: dict[str, int] = {row[0]: row[1] for row in connection.execute(live)}
    return {name: (ready_by.get(name, 0), live_by.get(name, 0)) for name in sorted({*ready_by, *live_by})}


def position(connection: sa.Connection, step: Any) -> int:
    """How many ready steps of its queue go before this one, and one; fair share between owners may change it."""
    ready = schema.step.c
    ahead = sa.or_(ready.urgency < step.urgency, sa.and_(ready.urgency == step.urgency, ready.id < step.id))
    query = sa.select(sa.func.count()).where(ready.queue == step.queue, sa.text(schema.IS_READY), ahead)
    return 1 + (connection.scalar(query) or 0)


def waits_for(
    step: Any, siblings: Mapping[tuple[str, str], Any], queues: Mapping[str, QueueSeen], place: int | None
) -> str | None:
    """One line for a row of `step`; None for one that runs or is over. `siblings` are the rows of its build."""
    status = Status(step.status)
    if status in (Status.RUNNING, Status.FINISHED):
        return None
    if status is Status.WAITING and step.not_before_at is not None:
        left_s = max(0, round((step.not_before_at - datetime.now(UTC)).total_seconds()))
        return f"retry in {left_s} s after {step.trouble}"
    before = _upstream(step, siblings)
    if before is not None and before.status != Status.FINISHED.value:
        return f"waits for {before.kind} {before.arch}".rstrip()
    return _in_queue(step, status, queues.get(step.queue), place)


def _upstream(step: Any, siblings: Mapping[tuple[str, str], Any]) -> Any | None:
    match StepKind(step.kind):
        case StepKind.FETCH:
            return None
        case StepKind.SRPM:
            return siblings.get((StepKind.FETCH.value, ""))
        case StepKind.BUILD:
            return siblings.get((StepKind.SRPM.value, ""))
        case StepKind.UPLOAD:
            return siblings.get((StepKind.BUILD.value, step.arch))


def _in_queue(step: Any, status: Status, seen: QueueSeen | None, place: int | None) -> str:
    if seen is None:
        return "waits for the scheduler to look at it"
    if seen.slots == 0:
        why = f": {seen.note}" if seen.note else ""
        return f"no worker for {step.arch if step.kind == StepKind.BUILD.value else 'queue ' + step.queue}{why}"
    if status is Status.DISPATCHED:
        return f"sent to queue {step.queue}, not yet started"
    busy = f"{min(seen.busy, seen.slots)} of {seen.slots} slots busy"
    return f"{busy}, position {place}" if place is not None else busy
