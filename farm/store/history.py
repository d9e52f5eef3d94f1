"""Questions about builds of the past: of a package, of an owner, and how long their steps took.

Each reads a bounded number of rows, however many builds there are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.history import BuildQuery, Found, StepRun
from farm.model.outcome import Outcome, Status
from farm.store import schema
from farm.store.database import Database

#: The rows of one package, owner or batch that one question looks at. The next page goes on after them.
_SCANNED = 5000
_BUILD = schema.build.c
_STEP, _ATTEMPT = schema.step.c, schema.attempt.c


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """The builds that a filter may match, newest first: those of one value of an indexed column."""

    column: Any
    value: object


class HistoryStore(Database):
    """The part of the store for the past."""

    def find_builds(
        self, wanted: BuildQuery, *, limit: int, before: int | None = None, hidden: Collection[str] = ()
    ) -> Found:
        """The newest builds that match, and the `before` of the next page. A page may be short, even empty, although
        there is a next one. Builds of `hidden` projects are left out."""
        scan = _scan_of(wanted)
        query = sa.select(
            _BUILD.id, _BUILD.status, _BUILD.outcome, _BUILD.target, _BUILD.owner, _BUILD.package, _BUILD.project
        )
        if scan is not None:
            query = query.where(scan.column == scan.value)
        if before is not None:
            query = query.where(_BUILD.id < before)
        inner = query.order_by(_BUILD.id.desc()).limit(_SCANNED).subquery()
        outer = sa.select(inner.c.id).order_by(inner.c.id.desc()).limit(limit)
        for column, value in _conditions(wanted, inner.c):
            outer = outer.where(column == value)
        if hidden:
            outer = outer.where(inner.c.project.not_in(hidden))
        with self.reading() as connection:
            found = tuple(connection.scalars(outer))
            if len(found) == limit:
                return Found(ids=found, next=found[-1])
            seen = connection.execute(sa.select(sa.func.count(), sa.func.min(inner.c.id))).one()
        return Found(ids=found, next=seen[1] if seen[0] == _SCANNED else None)

    def package_names(self, start: str, *, limit: int) -> tuple[str, ...]:
        """The names of packages that have builds and begin with `start`, by name. It seeks once for each name."""
        names: list[str] = []
        query = sa.select(sa.func.min(_BUILD.package))
        with self.reading() as connection:
            name = connection.scalar(query.where(_BUILD.package >= start))
            while name is not None and name.startswith(start) and len(names) < limit:
                names.append(name)
                name = connection.scalar(query.where(_BUILD.package > name))
        return tuple(names)

    def runs(self, build_ids: Sequence[int]) -> tuple[StepRun, ...]:
        """The last attempt of each step of these builds that has begun, in the order of steps and builds."""
        query = (
            sa.select(
                *(_STEP.job_id, _STEP.kind, _STEP.arch, _STEP.status, _STEP.outcome),
                *(_ATTEMPT.number, _ATTEMPT.started_at, _ATTEMPT.finished_at, _ATTEMPT.worker),
            )
            .select_from(schema.step.join(schema.attempt, _ATTEMPT.step_id == _STEP.id))
            .where(_STEP.job_id.in_(build_ids), _ATTEMPT.started_at.is_not(None))
            .order_by(_STEP.job_id, _STEP.id, _ATTEMPT.number)
        )
        with self.reading() as connection:
            last = {(row.job_id, row.kind, row.arch): row for row in connection.execute(query)}
        return tuple(
            StepRun(
                build=row.job_id,
                kind=row.kind,
                arch=Arch(row.arch) if row.arch else None,
                status=Status(row.status),
                outcome=Outcome(row.outcome) if row.outcome else None,
                started_at=row.started_at,
                finished_at=row.finished_at,
                worker=row.worker,
            )
            for row in last.values()
        )


def _scan_of(wanted: BuildQuery) -> _Scan | None:
    for column, value in (
        (_BUILD.batch_id, wanted.batch),
        (_BUILD.package, wanted.package),
        (_BUILD.owner, wanted.owner),
    ):
        if value is not None:
            return _Scan(column=column, value=value)
    return None


def _conditions(wanted: BuildQuery, columns: Any) -> list[tuple[Any, str]]:
    given = {
        "status": wanted.status,
        "outcome": wanted.outcome,
        "target": wanted.target,
        "owner": wanted.owner,
        "package": wanted.package,
        "project": wanted.project,
    }
    return [(columns[name], str(value)) for name, value in given.items() if value is not None]
