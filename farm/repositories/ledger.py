"""The packages of each version of one repository, in an SQLite file beside it.

Owns the record, which is the truth from which the repository's files are made; not those files, nor any lock on
them. A ledger is opened for one call of one thread, so that no connection meets a fork.

A package row is *waiting* until it has `added_in`, *live* until it has `removed_in`: a version N has the packages
with added_in <= N and not removed_in <= N. Ids only grow, so neighbouring ids make stable groups of the metadata.

Publishing is synchronised to the disk, and with it everything that was written before. Waiting rows are not: a power
cut loses them, but no caller was told that they are published.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BadRequest, DiskFull, RepositoryTrouble
from farm.formats.index import Entry, Group, Index

_BUSY_TIMEOUT_S = 60.0
_GROUP_PACKAGES = 64  # compressed again when one of them changes; 64 cost a few milliseconds
#: A larger entry is a group of its own, so a group is compressed from 64 MiB or from one package's metadata. Its number
#: is the id of the package, negated.
_LARGE_BYTES = 2**20

#: The columns of entries and groups are named after the parts of the format's index.
_SCHEMA = """
CREATE TABLE package (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    added_in INTEGER,
    removed_in INTEGER,
    {entry}
);
CREATE UNIQUE INDEX package_here ON package (filename, sha256) WHERE removed_in IS NULL;
CREATE INDEX package_waiting ON package (id) WHERE added_in IS NULL;
CREATE INDEX package_removed ON package (removed_in) WHERE removed_in IS NOT NULL;
CREATE TABLE version (number INTEGER PRIMARY KEY, published_at_s REAL NOT NULL, packages INTEGER NOT NULL);
CREATE TABLE metadata_group (
    number INTEGER PRIMARY KEY,
    {sizes},
    {members}
);
"""

#: Of rows called `old`; both parameters are the version's number.
_IN_VERSION = "old.added_in <= ? AND (old.removed_in IS NULL OR old.removed_in > ?)"


@dataclass(frozen=True, kw_only=True)
class Version:
    number: int
    published_at_s: float
    packages: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A package's place in the repository."""

    filename: str
    sha256: str


class _Columns:
    """The names of the columns for an index of these parts. The endings `_xml` and `_gz` are those of the first format:
    existing ledgers have them, and other formats have them too, whatever their index is made of."""

    def __init__(self, parts: Sequence[str]) -> None:
        if bad := [part for part in parts if not part.isidentifier()]:
            raise ValueError(f"{bad[0]!r} cannot be part of a column's name")
        self.count = len(parts)
        self.entry = [f"{part}_xml" for part in parts]
        self.sizes = [f"{part}_size" for part in parts]
        self.members = [f"{part}_gz" for part in parts]

    @property
    def schema(self) -> str:
        return _SCHEMA.format(
            entry=",\n    ".join(f"{one} BLOB NOT NULL" for one in self.entry),
            sizes=",\n    ".join(f"{one} INTEGER NOT NULL" for one in self.sizes),
            members=",\n    ".join(f"{one} BLOB NOT NULL" for one in self.members),
        )

    @property
    def entries(self) -> str:
        return ", ".join(self.entry)

    @property
    def old_entries(self) -> str:
        return ", ".join(f"old.{one}" for one in self.entry)

    @property
    def entry_size(self) -> str:
        return " + ".join(f"length({one})" for one in self.entry)

    @property
    def groups(self) -> str:
        return ", ".join((*self.sizes, *self.members))


class Ledger:
    """Its connection is made when it is first used; `close` it in the end."""

    def __init__(self, path: Path, index: Index) -> None:
        self._path = path
        self._index = index
        self._columns = _Columns(index.parts)
        self._open: sqlite3.Connection | None = None

    def close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def create(self, now_s: float) -> None:
        """With version 0, which is empty. Not safe to call twice at once; does nothing if it is there.

        Raises BadRequest where there is one with packages of another format.
        """
        with self._connection() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0]:
                self._check_format(connection)
                return
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {self._columns.schema}")
            connection.execute("INSERT INTO version VALUES (0, ?, 0)", (now_s,))
            connection.execute("PRAGMA user_version = 1")
            connection.execute("COMMIT")

    def _check_format(self, connection: sqlite3.Connection) -> None:
        found = {name for _, name, *_ in connection.execute("PRAGMA table_info(package)")}
        if not found >= set(self._columns.entry):
            raise BadRequest(f"{self._path} is of a repository of another format; give the target another name")

    @contextmanager
    def writing(self, *, durable: bool) -> Iterator["Writing"]:
        """One transaction; at most one in all processes at a time."""
        with self._connection() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writing(connection, self._index)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def here(self, rows: Sequence[Row]) -> dict[Row, int]:
        """The ids of these packages that are live or waiting."""
        with self._connection() as connection:
            return {row: found for row in rows if (found := _here(connection, row)) is not None}

    def version_with(self, ids: Sequence[int], *, shown: int) -> int | None:
        """A version with all of these; None while one waits, or is in no version up to `shown`.

        It is `shown` itself if that has them all, else the first that had, until other packages replaced them.
        """
        with self._connection() as connection:
            known, live, waiting, first = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE removed_in IS NULL),"
                " count(*) FILTER (WHERE added_in IS NULL), max(added_in) FROM package"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(ids),),
            ).fetchone()
        # Another upload of the same packages has withdrawn the unknown ones.
        if waiting or known < len(ids) or first > shown:
            return None
        return shown if live == len(ids) else int(first)

    def versions(self) -> list[Version]:
        """Newest first."""
        with self._connection() as connection:
            found = connection.execute("SELECT number, published_at_s, packages FROM version ORDER BY number DESC")
            return [Version(number=row[0], published_at_s=row[1], packages=row[2]) for row in found]

    def packages(self, number: int, sha256s: Collection[str]) -> dict[Row, Entry]:
        """The packages of these digests that the version has."""
        with self._connection() as connection:
            found = connection.execute(
                f"SELECT filename, sha256, {self._columns.entries} FROM package AS old"  # noqa: S608
                f" WHERE {_IN_VERSION} AND sha256 IN (SELECT value FROM json_each(?)) ORDER BY id",
                (number, number, json.dumps(sorted(sha256s))),
            )
            return {Row(filename=row[0], sha256=row[1]): tuple(row[2:]) for row in found}

    def newest(self) -> Version:
        with self._connection() as connection:
            found = connection.execute("SELECT * FROM version ORDER BY number DESC LIMIT 1").fetchone()
        return Version(number=found[0], published_at_s=found[1], packages=found[2])

    @contextmanager
    def groups(self) -> Iterator[Iterator[Group]]:
        """The metadata of the newest version."""
        with self._connection() as connection:
            count = self._columns.count
            cursor = connection.execute(f"SELECT {self._columns.groups} FROM metadata_group ORDER BY number")  # noqa: S608
            yield (Group(open_sizes_bytes=row[:count], members=row[count:]) for row in cursor)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self._open = self._open or sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            yield self._open
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFull(f"{self._path} was not written: {error}; free some space") from error
            raise RepositoryTrouble(f"{self._path} does not work: {error}") from error


class Writing:
    """The operations on a ledger inside one transaction."""

    def __init__(self, connection: sqlite3.Connection, index: Index) -> None:
        self._connection = connection
        self._index = index
        self._columns = _Columns(index.parts)

    def here(self, row: Row) -> int | None:
        return _here(self._connection, row)

    def knows(self, row: Row) -> bool:
        """Whether any version that is kept may have it."""
        found = self._connection.execute(
            "SELECT 1 FROM package WHERE filename = ? AND sha256 = ? LIMIT 1", (row.filename, row.sha256)
        )
        return found.fetchone() is not None

    def add(self, row: Row, entry: Entry) -> int:
        """A new waiting package; returns its id."""
        found = self._connection.execute(
            f"INSERT INTO package (filename, sha256, {self._columns.entries})"  # noqa: S608
            f" VALUES (?, ?, {_marks(entry)})",
            (row.filename, row.sha256, *entry),
        )
        return int(found.lastrowid or 0)

    def withdraw(self, ids: Sequence[int]) -> list[Row]:
        """Drop the waiting ones of these packages; return the places without a kept package."""
        gone = self._connection.execute(
            "DELETE FROM package WHERE added_in IS NULL AND id IN (SELECT value FROM json_each(?))"
            " RETURNING filename, sha256",
            (json.dumps(ids),),
        ).fetchall()
        return self._unknown(gone)

    def publish(self, now_s: float) -> None:
        """Make one new version of all waiting packages, if there are any. The last package of a file name wins, unless
        the index tells two editions of it apart."""
        waiting = self._connection.execute(
            "SELECT id, filename FROM package WHERE added_in IS NULL ORDER BY id"
        ).fetchall()
        if not waiting:
            return
        last, packages = self._newest()
        changed = [id_ for id_, _ in waiting]
        for id_, filename in waiting:
            replaced = self._replaced_by(id_, filename)
            for old in replaced:
                self._connection.execute("UPDATE package SET removed_in = ? WHERE id = ?", (last + 1, old))
            changed += replaced
            packages += 1 - len(replaced)
        self._connection.execute("UPDATE package SET added_in = ? WHERE added_in IS NULL", (last + 1,))
        self._add_version(last + 1, now_s, packages, changed)

    def _replaced_by(self, id_: int, filename: str) -> list[int]:
        # A package that a rollback restored may have a higher id than one that was waiting then.
        here = "FROM package WHERE filename = ? AND removed_in IS NULL AND (added_in IS NOT NULL OR id <= ?)"
        found = self._connection.execute(f"SELECT id {here}", (filename, id_)).fetchall()
        if len(found) == 1:
            return []  # most packages: no entry is read
        rows = self._connection.execute(f"SELECT id, {self._columns.entries} {here}", (filename, id_))
        editions = {row[0]: self._index.edition(row[1:]) for row in rows}
        return [old for old, edition in editions.items() if old != id_ and edition == editions[id_]]

    def remove(self, sha256s: Collection[str], now_s: float) -> None:
        """Make one new version without these packages, if the newest has any of them. Waiting ones stay waiting."""
        last, packages = self._newest()
        gone = self._connection.execute(
            "UPDATE package SET removed_in = ? WHERE added_in IS NOT NULL AND removed_in IS NULL"
            " AND sha256 IN (SELECT value FROM json_each(?)) RETURNING id",
            (last + 1, json.dumps(sorted(sha256s))),
        ).fetchall()
        if gone:
            self._add_version(last + 1, now_s, packages - len(gone), [id_ for (id_,) in gone])

    def restore(self, to: int, now_s: float) -> None:
        """Make one new version with the content of version `to`; nothing if the newest has this content already."""
        last, packages = self._newest()
        number = last + 1
        gone = self._connection.execute(
            "UPDATE package SET removed_in = ? WHERE added_in IS NOT NULL AND removed_in IS NULL AND added_in > ?"  # noqa: S608
            " AND NOT EXISTS (SELECT 1 FROM package AS old WHERE old.filename = package.filename"
            f" AND old.sha256 = package.sha256 AND {_IN_VERSION}) RETURNING id",
            (number, to, to, to),
        ).fetchall()
        # A waiting row of a missing content is used for it: a content has at most one live row.
        claimed = self._connection.execute(
            "UPDATE package SET added_in = ? WHERE added_in IS NULL AND EXISTS (SELECT 1 FROM package AS old"  # noqa: S608
            f" WHERE old.filename = package.filename AND old.sha256 = package.sha256 AND {_IN_VERSION}) RETURNING id",
            (number, to, to),
        ).fetchall()
        back = self._connection.execute(
            f"INSERT INTO package (filename, sha256, added_in, {self._columns.entries})"  # noqa: S608
            f" SELECT old.filename, old.sha256, ?, {self._columns.old_entries}"
            f" FROM package AS old WHERE {_IN_VERSION} AND NOT EXISTS (SELECT 1 FROM package AS here"
            " WHERE here.filename = old.filename AND here.sha256 = old.sha256 AND here.removed_in IS NULL)"
            " ORDER BY old.id RETURNING id",
            (number, to, to),
        ).fetchall()
        changed = [id_ for found in (gone, claimed, back) for (id_,) in found]
        if changed:
            self._add_version(number, now_s, packages - len(gone) + len(claimed) + len(back), changed)

    def old_versions(self, *, keep: int, before_s: float, limit: int) -> list[int]:
        """The oldest versions that are neither among the newest `keep` nor published after `before_s`."""
        found = self._connection.execute(
            "SELECT number FROM version WHERE published_at_s < ?"
            " AND number <= (SELECT max(number) FROM version) - ? ORDER BY number LIMIT ?",
            (before_s, max(keep, 1), limit),
        )
        return [number for (number,) in found]

    def forget_version(self, number: int) -> None:
        self._connection.execute("DELETE FROM version WHERE number = ?", (number,))

    def forget_packages(self) -> list[Row]:
        """Drop packages that no kept version has; return the places without a kept package."""
        gone = self._connection.execute(
            "DELETE FROM package WHERE removed_in <= (SELECT min(number) FROM version) RETURNING filename, sha256"
        ).fetchall()
        return self._unknown(gone)

    def _unknown(self, gone: Iterable[tuple[str, str]]) -> list[Row]:
        rows = {Row(filename=filename, sha256=sha256) for filename, sha256 in gone}
        return [row for row in rows if not self.knows(row)]

    def _newest(self) -> tuple[int, int]:
        """Number and packages."""
        found: tuple[int, int] = self._connection.execute(
            "SELECT number, packages FROM version ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return found

    def _add_version(self, number: int, now_s: float, packages: int, changed: Iterable[int]) -> None:
        for group in {id_ // _GROUP_PACKAGES for id_ in changed}:
            self._regroup(group)
        self._connection.execute("INSERT INTO version VALUES (?, ?, ?)", (number, now_s, packages))

    def _regroup(self, number: int) -> None:
        """Make the group of these ids, and one for each large entry among them, which no change of the others touches.
        At most one entry is in memory."""
        first, end = number * _GROUP_PACKAGES, (number + 1) * _GROUP_PACKAGES
        sizes = self._connection.execute(
            f"SELECT id, {self._columns.entry_size} FROM package"  # noqa: S608
            " WHERE id >= ? AND id < ? AND added_in IS NOT NULL AND removed_in IS NULL ORDER BY id",
            (first, end),
        ).fetchall()
        large = {-id_: [id_] for id_, size_bytes in sizes if size_bytes > _LARGE_BYTES}
        small = [id_ for id_, size_bytes in sizes if size_bytes <= _LARGE_BYTES]
        have = self._connection.execute(
            "SELECT number FROM metadata_group WHERE number = ? OR (number < 0 AND number > ? AND number <= ?)",
            (number, -end, -first),
        )
        known = {found for (found,) in have}
        wanted = large | ({number: small} if small else {})
        for gone in known - wanted.keys():
            self._connection.execute("DELETE FROM metadata_group WHERE number = ?", (gone,))
        for own, ids in wanted.items():
            if own >= 0 or own not in known:
                self._write_group(own, ids)

    def _write_group(self, number: int, ids: Sequence[int]) -> None:
        one = f"SELECT {self._columns.entries} FROM package WHERE id = ?"  # noqa: S608
        group = self._index.group(self._connection.execute(one, (id_,)).fetchone() for id_ in ids)
        values = (number, *group.open_sizes_bytes, *group.members)
        self._connection.execute(
            f"INSERT OR REPLACE INTO metadata_group (number, {self._columns.groups}) VALUES ({_marks(values)})",  # noqa: S608
            values,
        )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _here(connection: sqlite3.Connection, row: Row) -> int | None:
    found = connection.execute(
        "SELECT id FROM package WHERE filename = ? AND sha256 = ? AND removed_in IS NULL", (row.filename, row.sha256)
    ).fetchone()
    return None if found is None else int(found[0])
