"""The queries behind a farm's figures. Their cost goes with the work that waits or has just ended, not with all that
ever was: they use the index of ready steps, and that of builds by the time of their end.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

from farm.model.figures import EndedAttempt, EndedWork, QueueFigures, StepTroubles
from farm.model.outcome import Outcome
from farm.queues import PUBLISH, arch_of
from farm.store import schema, waiting
from farm.store.database import Database

_BUILD, _STEP, _ATTEMPT = schema.build.c, schema.step.c, schema.attempt.c
_ATTEMPTS_MAX = 20_000


class FigureStore(Database):
    """The part of the store for figures."""

    def queue_figures(self) -> tuple[QueueFigures, ...]:
        """Each queue that the scheduler knows, or that has steps."""
        now = datetime.now(UTC)
        with self.reading() as connection:
            seen, counts = waiting.queues_seen(connection), waiting.counts(connection)
            since = _ready_since(connection)
        return tuple(
            QueueFigures(
                queue=name,
                arch=arch_of(name),
                ready=counts.get(name, (0, 0))[0],
                busy=counts.get(name, (0, 0))[1],
                slots=seen[name].slots if name in seen else 0,
                oldest_wait_s=max(0.0, (now - since[name]).total_seconds()) if name in since else 0.0,
            )
            for name in sorted({*seen, *counts})
        )

    def ended_work(self, after: datetime, until: datetime) -> EndedWork:
        """The work of builds that ended after the one time, and at the other or before."""
        has_ended = sa.and_(_BUILD.finished_at > after, _BUILD.finished_at <= until)
        steps = schema.build.join(schema.step, _STEP.job_id == _BUILD.id)
        outcomes = sa.select(_BUILD.outcome, sa.func.count()).where(has_ended).group_by(_BUILD.outcome)
        sums = [sa.func.coalesce(sa.func.sum(one), 0) for one in (_STEP.troubles, _STEP.deaths, _STEP.hand_backs)]
        troubles = sa.select(_STEP.kind, *sums).select_from(steps).where(has_ended).group_by(_STEP.kind)
        attempts = (
            sa.select(
                *(_STEP.kind, _STEP.arch, _STEP.queue),
                *(_ATTEMPT.offered_at, _ATTEMPT.started_at, _ATTEMPT.finished_at),
            )
            .select_from(steps.join(schema.attempt, _ATTEMPT.step_id == _STEP.id))
            .where(has_ended)
            .limit(_ATTEMPTS_MAX)
        )
        with self.reading() as connection:
            return EndedWork(
                outcomes={Outcome(row[0]): row[1] for row in connection.execute(outcomes) if row[0] is not None},
                troubles=tuple(
                    StepTroubles(kind=kind, retries=int(retries), losses=int(losses), hand_backs=int(hand_backs))
                    for kind, retries, losses, hand_backs in connection.execute(troubles)
                ),
                attempts=tuple(
                    EndedAttempt(
                        kind=kind,
                        arch=arch,
                        ran_s=_seconds(started_at, finished_at),
                        waited_s=_seconds(offered_at, started_at),
                        is_publication=queue == PUBLISH,
                    )
                    for kind, arch, queue, offered_at, started_at, finished_at in connection.execute(attempts)
                ),
            )


def _ready_since(connection: sa.Connection) -> dict[str, datetime]:
    """By queue, since when its oldest ready step is ready: its build was enqueued then, or an attempt of it ended."""
    oldest = sa.select(sa.func.min(_STEP.id)).where(sa.text(schema.IS_READY)).group_by(_STEP.queue)
    ids = list(connection.scalars(oldest))
    rows = connection.execute(
        sa.select(_STEP.queue, _STEP.job_id, _BUILD.created_at)
        .select_from(schema.step.join(schema.build, _STEP.job_id == _BUILD.id))
        .where(_STEP.id.in_(ids))
    ).all()
    ended = (
        sa.select(_STEP.job_id, sa.func.max(_ATTEMPT.finished_at))
        .select_from(schema.step.join(schema.attempt, _ATTEMPT.step_id == _STEP.id))
        .where(_STEP.job_id.in_([row.job_id for row in rows]))
        .group_by(_STEP.job_id)
    )
    last = {job_id: at for job_id, at in connection.execute(ended) if at is not None}
    return {row.queue: last.get(row.job_id, row.created_at) for row in rows}


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start is not None and end is not None else None
