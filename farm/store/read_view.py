"""The scheduler's read of ready steps, and of attempts that are not finished, as of one moment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.label import AttemptLabel, label_text
from farm.model.outcome import Status
from farm.store import columns, schema
from farm.store.query import Query

_STEP = schema.step.c
_ATTEMPT = schema.attempt.c


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A step that may be sent now. `avoid` are hosts on which it had trouble."""

    step_id: int
    build_id: int
    kind: str
    arch: Arch | None
    queue: str
    priority: int
    owner: str
    target: str
    package: str
    options: BuildOptions
    target_sha256: str | None = None
    avoid: tuple[str, ...] = ()
    due_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Live:
    """An attempt that is not finished. `offered_at` is None while an earlier step of its chain runs."""

    label: str
    queue: str
    owner: str
    status: Status
    worker: str | None
    wall_s: int
    offered_at: datetime | None


# Every queue with ready work, and every (urgency, owner) with ready work in one queue, by skipping along the index
# from one to the next: a seek or two for each, however much work there is. Each queue has a query of its own, so that
# a queue without workers, with work of very many owners in it, hides no other queue.
_NEXT = "(SELECT later.{} FROM step AS later WHERE later.status = 'ready' AND {} LIMIT 1)"
_NEXT_QUEUE = _NEXT.format("queue", "later.queue > found.queue ORDER BY later.queue")
_QUEUES = sa.text(
    f"""
    WITH RECURSIVE found(queue) AS (
      SELECT * FROM (SELECT queue FROM step WHERE step.status = 'ready' ORDER BY queue LIMIT 1) AS first
      UNION ALL
      SELECT {_NEXT_QUEUE} FROM found WHERE found.queue IS NOT NULL
    )
    SELECT queue FROM found WHERE queue IS NOT NULL
    """  # noqa: S608 - made of constants
)
# Not `(urgency, owner) > (…)`: SQLite 3.40 seeks only by the first column of such a pair.
_NEXT_OWNER = _NEXT.format(
    "id", "later.queue = :of_queue AND later.urgency = found.urgency AND later.owner > found.owner ORDER BY later.owner"
)
_NEXT_URGENCY = _NEXT.format(
    "id", "later.queue = :of_queue AND later.urgency > found.urgency ORDER BY later.urgency, later.owner"
)
_GROUPS = Query(
    sa.text(
        f"""
        WITH RECURSIVE found(urgency, owner) AS (
          SELECT * FROM (SELECT urgency, owner FROM step WHERE step.status = 'ready' AND step.queue = :of_queue
                         ORDER BY urgency, owner LIMIT 1) AS first
          UNION ALL
          SELECT step.urgency, step.owner FROM found
          JOIN step ON step.id = COALESCE({_NEXT_OWNER}, {_NEXT_URGENCY})
        )
        SELECT urgency, owner FROM found LIMIT :most
        """  # noqa: S608 - made of constants
    ).columns(_STEP.urgency, _STEP.owner)
)
_READY_COLUMNS = (
    *(_STEP.id, _STEP.job_id, _STEP.kind, _STEP.arch, _STEP.queue, _STEP.urgency, _STEP.owner),
    *(schema.build.c.target, schema.build.c.package, schema.build.c.options, schema.build.c.target_sha256),
    *(_STEP.trouble_hosts, _STEP.not_before_at),
)
_READY = f"""
    SELECT * FROM (
      SELECT {", ".join(f"{column.table.name}.{column.name}" for column in _READY_COLUMNS)}
      FROM step JOIN build ON step.job_id = build.id
      WHERE {schema.IS_READY}
        AND step.queue = :of_queue AND step.urgency = :of_urgency AND step.owner = :owner_{{place}}
      ORDER BY step.id LIMIT :most
    ) AS part_{{place}}
"""  # noqa: S608 - made of constants
_OWNERS_AT_ONCE = 32  # SQLite takes 500 parts
_LIVE = Query(
    sa.select(
        *(_STEP.job_id, _STEP.kind, _STEP.arch, _ATTEMPT.number, _STEP.queue, _STEP.owner, _ATTEMPT.status),
        *(_ATTEMPT.worker, _ATTEMPT.wall_s, _ATTEMPT.offered_at),
    )
    .select_from(schema.attempt.join(schema.step, _ATTEMPT.step_id == _STEP.id))
    .where(sa.text(schema.IS_LIVE))
)
#: The live attempts of these builds that have been offered. An attempt before its turn ends with the step before it.
_HOLDERS = Query(
    sa.select(_STEP.job_id, _STEP.kind, _STEP.arch, _ATTEMPT.number, _ATTEMPT.holder)
    .select_from(schema.attempt.join(schema.step, _ATTEMPT.step_id == _STEP.id))
    .where(
        sa.text(schema.IS_LIVE),
        _ATTEMPT.offered_at.is_not(None),
        _STEP.job_id.in_(sa.bindparam("job_ids", expanding=True)),
    ),
    of_list="job_ids",
)


class ReadView:
    """One consistent read of what the scheduler needs before it decides."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def live(self) -> tuple[Live, ...]:
        """Every attempt that is not finished, oldest first."""
        return tuple(_live(row) for row in _LIVE.rows(self._connection))

    def holders(self, labels: Iterable[str]) -> dict[str, str]:
        """By label, the digests of the holders of these attempts, as far as they are live and offered; empty for an
        attempt that was not seen running."""
        wanted = {label: found for label in labels if (found := AttemptLabel.parse_or_none(label)) is not None}
        if not wanted:
            return {}
        rows = _HOLDERS.rows(self._connection, {"job_ids": sorted({one.job_id for one in wanted.values()})})
        known = {label_text(*place): holder or "" for *place, holder in rows}
        return {label: known[label] for label in wanted if label in known}

    def groups(self, *, most: int, queues: Iterable[str] | None = None) -> dict[str, list[tuple[int, str]]]:
        """By queue, the (priority, owner) pairs that have ready work there, highest priority first; at most `most`
        pairs for each queue. `queues` are the queues that are asked about, or None for all of them; a queue without
        ready work is left out."""
        names = self._connection.scalars(_QUEUES).all() if queues is None else queues
        return {name: pairs for name in names if (pairs := self._pairs(name, most))}

    def _pairs(self, queue: str, most: int) -> list[tuple[int, str]]:
        found = _GROUPS.rows(self._connection, {"of_queue": queue, "most": most})
        return [(-urgency, owner) for urgency, owner in found]

    def ready(self, queue: str, priority: int, owner: str, *, most: int) -> list[Ready]:
        """Ready work of one pair, oldest first."""
        return self.ready_of_owners(queue, priority, (owner,), most=most)[owner]

    def ready_of_owners(self, queue: str, priority: int, owners: Sequence[str], *, most: int) -> dict[str, list[Ready]]:
        """Ready work of one queue and priority for each of these owners, oldest first; at most `most` for each."""
        found: dict[str, list[Ready]] = {owner: [] for owner in owners}
        for start in range(0, len(owners), _OWNERS_AT_ONCE):
            some = owners[start : start + _OWNERS_AT_ONCE]
            wanted = {"of_queue": queue, "of_urgency": -priority, "most": most}
            wanted |= {f"owner_{place}": owner for place, owner in enumerate(some)}
            for row in _ready_of(len(some)).rows(self._connection, wanted):
                one = _ready(row)
                found[one.owner].append(one)
        return found


@cache
def _ready_of(owners: int) -> Query:
    """One question for so many owners: each costs little more than its rows."""
    question = " UNION ALL ".join(_READY.format(place=place) for place in range(owners))
    return Query(sa.text(question).columns(*_READY_COLUMNS))


def _ready(row: Any) -> Ready:
    step_id, build_id, kind, arch, queue, urgency, owner, target, package, options, sha256, hosts, due_at = row
    return Ready(
        step_id=step_id,
        build_id=build_id,
        kind=kind,
        arch=Arch(arch) if arch else None,
        queue=queue,
        priority=-urgency,
        owner=owner,
        target=target,
        package=package,
        options=columns.decode_options(options),
        target_sha256=sha256,
        avoid=columns.decode_names(hosts) if hosts else (),
        due_at=due_at,
    )


def _live(row: Any) -> Live:
    job_id, kind, arch, number, queue, owner, status, worker, wall_s, offered_at = row
    return Live(
        label=label_text(job_id, kind, arch, number),
        queue=queue,
        owner=owner,
        status=Status(status),
        worker=worker,
        wall_s=wall_s,
        offered_at=offered_at,
    )
