"""Access tokens in SQL. A row has the hash of a token's secret, and never the secret."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from farm.errors import NotFound, WrongState
from farm.model.actor import Role
from farm.model.token import Token
from farm.state.text import clean
from farm.store import columns, schema
from farm.store.database import Database

_COLUMN = schema.token.c
#: A request for each use would be a write for each request.
_USE_NOTED_EVERY = timedelta(minutes=1)


class TokenStore(Database):
    """The part of the store for access tokens."""

    def add_token(self, token: Token, *, sha256: str) -> Token:
        """Write it, with the hash of its secret, under the next free number, whatever `token.id` is."""
        with self.writing() as connection:
            insert = schema.token.insert().returning(schema.token)
            return _token(connection.execute(insert, _row(token) | {"sha256": sha256}).one())

    def tokens(self) -> tuple[Token, ...]:
        """All, by number, with the expired and the revoked ones."""
        with self.reading() as connection:
            return tuple(_token(row) for row in connection.execute(sa.select(schema.token).order_by(_COLUMN.id)))

    def token_and_hash(self, token_id: int) -> tuple[Token, str] | None:
        """A token and the hash of its secret; None for a number that no token has."""
        with self.reading() as connection:
            row = connection.execute(sa.select(schema.token).where(_COLUMN.id == token_id)).one_or_none()
            return (_token(row), row.sha256) if row is not None else None

    def note_use(self, token: Token, now: datetime) -> None:
        """Write that it was used now, unless a use within the last minute was written."""
        before = now - _USE_NOTED_EVERY
        if token.last_used_at is not None and token.last_used_at > before:
            return
        is_older = sa.or_(_COLUMN.last_used_at.is_(None), _COLUMN.last_used_at <= before)
        with self.writing() as connection:
            connection.execute(schema.token.update().where(_COLUMN.id == token.id, is_older).values(last_used_at=now))

    def revoke_token(self, token_id: int, *, by: str, now: datetime) -> Token:
        """Raises NotFound, and WrongState for a token that was revoked before."""
        with self.writing() as connection:
            update = schema.token.update().where(_COLUMN.id == token_id, _COLUMN.revoked_at.is_(None))
            row = connection.execute(
                update.values(revoked_at=now, revoked_by=clean(by)).returning(schema.token)
            ).one_or_none()
            if row is None and connection.scalar(sa.select(_COLUMN.id).where(_COLUMN.id == token_id)) is None:
                raise NotFound(f"there is no token {token_id}; `farm token list` shows the tokens")
            if row is None:
                raise WrongState(f"token {token_id} is revoked already")
            return _token(row)


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        actor=row.actor,
        roles=tuple(Role(role) for role in columns.decode_names(row.roles)),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        project=row.project,
    )


def _row(token: Token) -> dict[str, Any]:
    return {
        "name": clean(token.name),
        "actor": clean(token.actor),
        "roles": columns.to_text(token.roles),
        "created_at": token.created_at,
        "created_by": clean(token.created_by),
        "expires_at": token.expires_at,
        "project": token.project,
    }
