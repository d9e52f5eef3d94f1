"""Keys that clients gave to their requests, with the answers, in SQL (farm.server.idempotency)."""

from datetime import datetime

import sqlalchemy as sa

from farm.model.answer import KeptAnswer
from farm.store import schema
from farm.store.database import Database

_COLUMN = schema.idempotency.c


class IdempotencyStore(Database):
    """The part of the store for keys of requests. A key is its actor's own."""

    def begin_key(
        self, actor: str, key: str, *, fingerprint: str, now: datetime, older_than: datetime
    ) -> KeptAnswer | None:
        """Note that a request with this key begins: None; or return what is known of an earlier one. Keys from before
        `older_than` are deleted.
        """
        try:
            with self.writing() as connection:
                connection.execute(schema.idempotency.delete().where(_COLUMN.at < older_than))
                found = _find(connection, actor, key)
                if found is None:
                    values = {"actor": actor, "key": key, "fingerprint": fingerprint, "at": now}
                    connection.execute(schema.idempotency.insert(), values)
                return found
        except sa.exc.IntegrityError:  # another request with the key began in this moment
            with self.reading() as connection:
                return _find(connection, actor, key)

    def keep_answer(self, actor: str, key: str, *, status: int, media_type: str, answer: bytes | None) -> None:
        with self.writing() as connection:
            connection.execute(
                schema.idempotency.update()
                .where(_COLUMN.actor == actor, _COLUMN.key == key)
                .values(status=status, media_type=media_type, answer=answer)
            )

    def drop_key(self, actor: str, key: str) -> None:
        """Forget the key: the request may be made again with it."""
        with self.writing() as connection:
            connection.execute(schema.idempotency.delete().where(_COLUMN.actor == actor, _COLUMN.key == key))


def _find(connection: sa.Connection, actor: str, key: str) -> KeptAnswer | None:
    query = sa.select(schema.idempotency).where(_COLUMN.actor == actor, _COLUMN.key == key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return KeptAnswer(
        fingerprint=row.fingerprint,
        at=row.at,
        status=row.status,
        media_type=row.media_type,
        answer=row.answer,
    )
