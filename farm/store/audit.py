"""The audit log in SQL. Rows are added and never changed; only `prune_audit` deletes some."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from farm.model.audit import AuditRecord
from farm.state.text import clean
from farm.store import schema
from farm.store.database import Database

_COLUMN = schema.audit.c
_TEXT_MAX = 300
_SKEW = timedelta(minutes=1)
#: No record is older. The first times of the calendar have no times before them.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class AuditStore(Database):
    """The part of the store for the audit log."""

    def add_audit(self, record: AuditRecord) -> None:
        """Write it under the next free number, whatever `record.id` is."""
        with self.writing() as connection:
            connection.execute(schema.audit.insert(), _row(record))

    def audit(
        self,
        *,
        actor: str | None = None,
        verb: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[AuditRecord, ...]:
        """The newest records first; only those older than the record `before`."""
        query = sa.select(schema.audit).order_by(_COLUMN.id.desc()).limit(limit)
        if actor is not None:
            query = query.where(_COLUMN.actor == actor)
        if verb is not None:
            query = query.where(_COLUMN.verb == verb)
        if before is not None:
            query = query.where(_COLUMN.id < before)
        if since is not None:
            # The index of times gives the number at which a page ends. Clocks of processes differ by less than _SKEW.
            is_near = _COLUMN.at >= max(since, _EARLIEST) - _SKEW
            first = sa.select(_COLUMN.id).where(is_near).order_by(_COLUMN.at, _COLUMN.id).limit(1).scalar_subquery()
            query = query.where(_COLUMN.id >= first, _COLUMN.at >= since)
        with self.reading() as connection:
            return tuple(_record(row) for row in connection.execute(query))

    def prune_audit(self, *, before: datetime, dry_run: bool = False) -> int:
        """Delete the records of acts that ended before this time. Returns their number."""
        is_old = _COLUMN.at < before
        if dry_run:
            with self.reading() as connection:
                query = sa.select(sa.func.count()).select_from(schema.audit).where(is_old)
                return int(connection.scalar(query) or 0)
        with self.writing() as connection:
            return int(connection.execute(schema.audit.delete().where(is_old)).rowcount)


def _record(row: Any) -> AuditRecord:
    return AuditRecord(
        id=row.id,
        at=row.at,
        actor=row.actor,
        origin=row.origin,
        verb=row.verb,
        subject=row.subject,
        detail=row.detail,
        outcome=row.outcome,
    )


def _row(record: AuditRecord) -> dict[str, Any]:
    texts = {name: clean(getattr(record, name), _TEXT_MAX) for name in ("actor", "origin", "verb", "subject")}
    return texts | {"at": record.at, "detail": clean(record.detail, _TEXT_MAX), "outcome": record.outcome}
