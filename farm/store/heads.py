"""Heads: the version of each of the farm's repositories that new builds use, and its URL.

SQL has them so that making a build's work asks no server. The content of a repository is in the repository back end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from farm.store import schema
from farm.store.database import Database

_COLUMN = schema.repository.c
# Both databases spell it alike; SQLAlchemy offers it only per dialect.
_INSERT = "INSERT INTO repository (path, version, url, updated_at) VALUES (:path, :version, :url, :updated_at)"
_TIMED = sa.bindparam("updated_at", type_=schema.UtcTime())
_SET = sa.text(
    f"{_INSERT} ON CONFLICT (path) DO UPDATE"
    " SET version = excluded.version, url = excluded.url, updated_at = excluded.updated_at"
).bindparams(_TIMED)
_INSERT_NEW = sa.text(f"{_INSERT} ON CONFLICT (path) DO NOTHING").bindparams(_TIMED)


@dataclass(frozen=True, kw_only=True)
class Head:
    """`url` always leads to this version. Version 0 is the empty repository, which has no URL."""

    version: int
    url: str = ""


class HeadStore(Database):
    """The part of the store for heads of repositories."""

    def heads(self) -> dict[str, Head]:
        """All known heads, by the repository's path."""
        with self.reading() as connection:
            return _read(connection, None)

    def publish_head(self, path: str, head: Head) -> None:
        """Record a version that was made just now."""
        with self.writing() as connection:
            publish_heads(connection, [(path, head)], datetime.now(UTC))

    def note_head(self, path: str, head: Head, *, instead_of: Head | None) -> Head:
        """Record the back end's answer, unless the head is no longer `instead_of`.

        Returns the head that is recorded then.
        """
        with self.writing() as connection:
            values = {"path": path, "version": head.version, "url": head.url, "updated_at": datetime.now(UTC)}
            if instead_of is None:
                connection.execute(_INSERT_NEW, values)
            else:
                is_same = sa.and_(
                    _COLUMN.path == path, _COLUMN.version == instead_of.version, _COLUMN.url == instead_of.url
                )
                connection.execute(schema.repository.update().where(is_same).values(**values))
            return _read(connection, [path]).get(path, head)


def doubt_heads(connection: sa.Connection, changed: Iterable[tuple[str, int]]) -> Mapping[str, Head | None]:
    """Drop the heads of repositories that have another version now, as reports say; returns their paths, each with
    None. The scheduler then asks the back end: it does not believe a report's version or URL."""
    said = dict(changed)
    known = _read(connection, list(said), is_locked=True) if said else {}
    doubted = sorted(path for path, version in said.items() if path not in known or known[path].version != version)
    if doubted:
        connection.execute(schema.repository.delete().where(_COLUMN.path.in_(doubted)))
    return dict.fromkeys(doubted)


def publish_heads(
    connection: sa.Connection, published: Iterable[tuple[str, Head]], at: datetime
) -> Mapping[str, Head | None]:
    """Record published versions, and return the changed heads: None for a head that is dropped.

    A version below the known one either comes late, or is of a repository that was deleted and made again. Only the
    back end can say which, so the head is dropped, and the scheduler asks the back end.
    """
    newest: dict[str, Head] = {}
    for path, head in published:
        if path not in newest or head.version > newest[path].version:
            newest[path] = head
    if not newest:
        return {}
    known = _read(connection, list(newest), is_locked=True)
    after: dict[str, Head | None] = {}
    for path, head in sorted(newest.items()):
        if path in known and head.version < known[path].version:
            connection.execute(schema.repository.delete().where(_COLUMN.path == path))
            after[path] = None
        elif known.get(path) != head:
            connection.execute(_SET, {"path": path, "version": head.version, "url": head.url, "updated_at": at})
            after[path] = head
    return after


def _read(connection: sa.Connection, paths: list[str] | None, *, is_locked: bool = False) -> dict[str, Head]:
    query = sa.select(_COLUMN.path, _COLUMN.version, _COLUMN.url).order_by(_COLUMN.path)
    if paths is not None:
        query = query.where(_COLUMN.path.in_(paths))
    if is_locked:
        query = query.with_for_update()
    return {row.path: Head(version=row.version, url=row.url) for row in connection.execute(query)}
