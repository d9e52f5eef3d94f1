"""Hosts that are given no work, as people and the scheduler decided. They are in SQL, so that a restart keeps them."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm import queues
from farm.model.worker import HoldKind, HostHold
from farm.state.text import clean
from farm.store import schema
from farm.store.database import Database, write_alone

_COLUMN = schema.host.c


class HostStore(Database):
    """The part of the store for holds on hosts."""

    def holds(self) -> dict[str, HostHold]:
        """All holds by HostHold.key, expired ones included."""
        with self.reading() as connection:
            return {row.name: _hold(row) for row in connection.execute(sa.select(schema.host))}

    def hold(self, hold: HostHold) -> HostHold:
        """Hold a host from now on, in place of its hold before. A quarantine does not replace a person's hold.

        Returns the host's hold as it is then.
        """
        with self.writing() as connection:
            write_alone(connection, schema.host)
            name = clean(hold.key)
            row = connection.execute(sa.select(schema.host).where(_COLUMN.name == name)).one_or_none()
            if row is not None and hold.kind is HoldKind.QUARANTINED and row.hold == HoldKind.DRAINED.value:
                return _hold(row)
            connection.execute(schema.host.delete().where(_COLUMN.name == name))
            connection.execute(schema.host.insert(), _row(hold))
        return hold

    def release(self, host: str, now: datetime) -> bool:
        """Give the host work again, in every role. False when it had no hold."""
        names = [host, *(f"{role}@{host}" for role in queues.WORKER_ROLES)]
        with self.writing() as connection:
            write_alone(connection, schema.host)
            rows = connection.execute(sa.select(schema.host).where(_COLUMN.name.in_(names))).all()
            if not rows:
                return False
            connection.execute(schema.host.delete().where(_COLUMN.name.in_(names)))
            return any(_hold(row).holds(now) for row in rows)


def _hold(row: Any) -> HostHold:
    role, at, host = row.name.partition("@")
    is_of_a_role = bool(at) and role in queues.WORKER_ROLES
    return HostHold(
        host=host if is_of_a_role else row.name,
        role=role if is_of_a_role else "",
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
        "name": clean(hold.key),
        "hold": hold.kind.value,
        "reason": clean(hold.reason),
        "held_by": clean(hold.by),
        "held_at": hold.at,
        "until_at": hold.until_at,
        "hands_back": hold.hands_back,
        "times": hold.times,
    }
