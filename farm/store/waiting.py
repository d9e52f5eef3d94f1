"""The reason why a step waits. It is worked out when a client asks, so that waiting costs no writes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from farm.model.outcome import Status
from farm.queues import arch_of
from farm.state.graph import How
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
    """By queue, how many steps are ready, and how many are sent or running; queues without steps are left out."""
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
    """The step's place among the ready steps of its queue, from 1; fair share between owners may change it."""
    ready = schema.step.c
    ahead = sa.or_(ready.urgency < step.urgency, sa.and_(ready.urgency == step.urgency, ready.id < step.id))
    query = sa.select(sa.func.count()).where(ready.queue == step.queue, sa.text(schema.IS_READY), ahead)
    return 1 + (connection.scalar(query) or 0)


def needs_of(connection: sa.Connection, job_ids: Sequence[int]) -> dict[tuple[int, str, str], list[tuple[str, str]]]:
    """By job, kind and arch of a step: kind and arch of the steps that it needs, its predecessor in the chain first."""
    edge = schema.step_need.c
    query = sa.select(schema.step_need).where(edge.job_id.in_(job_ids), edge.needs_job_id == edge.job_id)
    found: dict[tuple[int, str, str], list[tuple[str, str]]] = {}
    for row in sorted(connection.execute(query), key=lambda row: bool(row.how != How.CHAIN.value)):
        found.setdefault((row.job_id, row.kind, row.arch), []).append((row.needs_kind, row.needs_arch))
    return found


def waits_for(step: Any, needed: Iterable[Any], queues: Mapping[str, QueueSeen], place: int | None) -> str | None:
    """One line for a row of `step`; None for a step that runs or is over. `needed` are the rows of the steps that it
    needs."""
    status = Status(step.status)
    if status in (Status.RUNNING, Status.FINISHED):
        return None
    if status is Status.WAITING and step.not_before_at is not None:
        left_s = max(0, round((step.not_before_at - datetime.now(UTC)).total_seconds()))
        return f"retry in {left_s} s after {step.trouble}"
    for before in needed:
        if before.status != Status.FINISHED.value:
            return f"waits for {before.kind} {before.arch}".rstrip()
    return _in_queue(step, status, queues.get(step.queue), place)


def _in_queue(step: Any, status: Status, seen: QueueSeen | None, place: int | None) -> str:
    if seen is None:
        return "waits for the scheduler to look at it"
    if seen.slots == 0:
        why = f": {seen.note}" if seen.note else ""
        return f"no worker for {arch_of(step.queue) or 'queue ' + step.queue}{why}"
    if status is Status.DISPATCHED:
        return f"sent to queue {step.queue}, not yet started"
    busy = f"{min(seen.busy, seen.slots)} of {seen.slots} slots busy"
    return f"{busy}, position {place}" if place is not None else busy
