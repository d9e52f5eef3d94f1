"""Hosts that are given no work: what people and the scheduler wrote down, so that no restart forgets it."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm.model.worker import HoldKind, HostHold
from farm.store import schema
from farm.store.database import Database, write_alone
from farm.store.machine import clean

_COLUMN = schema.host.c


class HostStore(Database):
    """The part of the store that knows of hosts."""

    def holds(self) -> dict[str, HostHold]:
        """By host, those that are over included."""
        with self.reading() as connection:
            return {row.name: _hold(row) for row in connection.execute(sa.select(schema.host))}

    def hold(self, hold: HostHold) -> HostHold:
        """From now on, in place of what held the host before. A quarantine does not replace a person's word.

        Returns what holds the host now.
        """
        with self.writing() as connection:
            write_alone(connection, schema.host)
            name = clean(hold.host)
            row = connection.execute(sa.select(schema.host).where(_COLUMN.name == name)).one_or_none()
            if row is not None and hold.kind is HoldKind.QUARANTINED and row.hold == HoldKind.DRAINED.value:
                return _hold(row)
            connection.execute(schema.host.delete().where(_COLUMN.name == name))
            connection.execute(schema.host.insert(), _row(hold))
        return hold

    def release(self, host: str, now: datetime) -> bool:
        """Work goes there again. False when nothing held the host."""
        with self.writing() as connection:
            write_alone(connection, schema.host)
            row = connection.execute(sa.select(schema.host).where(_COLUMN.name == host)).one_or_none()
            if row is None:
                return False
            connection.execute(schema.host.delete().where(_COLUMN.name == host))
            return _hold(row).holds(now)


def _hold(row: Any) -> HostHold:
    return HostHold(
        host=row.name,
        kind=HoldKind(row.hold),
        reason=row.reason,
        by=row.held_by,
        at=row.held_at,
        until_at=row.until_at,
        hands_back=row.hands_back,
        times=row.times,
    )


def _row(hold: HostHold) -> dict[str, Any]:
    return {
        "name": clean(hold.host),
        "hold": hold.kind.value,
        "reason": clean(hold.reason),
        "held_by": clean(hold.by),
        "held_at": hold.at,
        "until_at": hold.until_at,
        "hands_back": hold.hands_back,
        "times": hold.times,
    }
