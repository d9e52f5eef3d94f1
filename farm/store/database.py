"""The database: its engine, and whether the schema is the one that this code knows.

Not transactions (transaction.py), nor the migrations (migrate.py). Only migrate.py imports Alembic, which takes longer
than all other imports.
"""

import os
import sqlite3
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from farm.errors import BadSettings, FarmNotRunning
from farm.store.schema import REVISION
from farm.store.transaction import shown, transaction

_BUSY_TIMEOUT_MS = 30_000
_BESIDE = ("-wal", "-shm", "-journal")
#: A process that was stopped, or cut off, in the middle of a transaction does not hold its locks for long: the server
#: ends an idle transaction, and both sides find out within a minute that the other is gone.
_POSTGRESQL = {
    "options": " ".join(
        f"-c {setting}"
        for setting in (
            "idle_in_transaction_session_timeout=30000",  # milliseconds
            "tcp_keepalives_idle=20",  # seconds
            "tcp_keepalives_interval=10",  # seconds
            "tcp_keepalives_count=3",
        )
    ),
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds
}


#: Engines by URL that `prepare` made.
_prepared: dict[str, sa.Engine] = {}


class Database:
    """One engine. Safe to use from several threads; each transaction has a connection of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that reads, at one moment. Raises FarmNotRunning when the database does not answer."""
        return transaction(self._engine, is_writing=False)

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """One transaction, committed at the end. On SQLite it is the only writer from its beginning, so that the rows
        that it read are unchanged when it writes. On PostgreSQL a transaction that changes builds locks their rows.

        Raises FarmNotRunning when the database does not answer.
        """
        return transaction(self._engine, is_writing=True)


def prepare(url: str) -> None:
    """Let all databases that this process, or a fork of it, opens at this URL have one engine, with the statements that
    it has compiled. Each closes the connections of all, so this is for a process that has one open at a time.
    """
    _prepared[url] = make_engine(url)


def write_alone(connection: sa.Connection, table: sa.Table) -> None:
    """Let no other transaction write this table until this one ends; others may read it.

    For tables that the leading scheduler writes whole: one that was stopped may believe that it leads when it wakes up.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(sa.text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))


def open_database(url: str, *, create: bool) -> sa.Engine:
    """The database at `url`, with the current schema; with `create` it is made or migrated where that is necessary.

    Raises FarmNotRunning if it does not exist or has another schema, BadSettings for a URL of an unknown kind.
    """
    engine = _prepared.get(url) or make_engine(url)
    path = engine.url.database
    is_file = engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
    if is_file and not create and not Path(str(path)).exists():
        raise FarmNotRunning(f"there is no farm at {path}; start it with `farm up`")
    try:
        if is_file:
            _close_file(Path(str(path)), create=create)
        _check_schema(engine, create=create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _close_file(path: Path, *, create: bool) -> None:
    """Let only its owner read the database: it has the passwords that are in sources' URLs. Its other files (-wal,
    -shm, -journal) get its mode from SQLite. Raises BadSettings for the database of another user."""
    if not path.exists() and create:
        with suppress(OSError):  # SQLite reports the problem
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600))
    if not path.exists():
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise BadSettings(
            f"only {_owner_of(path)} may use {path}: run farm as that user (sudo -u {_owner_of(path)} farm …), or give "
            "the farm PostgreSQL (FARM_DATABASE_URL), which has accounts"
        )
    # By its path: opening and closing the file would end the locks that another connection of this process has on it.
    for one in (path, *(path.with_name(path.name + end) for end in _BESIDE)):
        with suppress(OSError):
            found = one.stat()
            if found.st_uid == os.geteuid() and found.st_mode & 0o077:
                one.chmod(0o600)


def _owner_of(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "another user"


def make_engine(url: str) -> sa.Engine:
    """Raises BadSettings for anything but SQLite and PostgreSQL."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise BadSettings("FARM_DATABASE_URL is no database URL; use sqlite:///… or postgresql://…") from error
    if parsed.get_backend_name() == "postgresql":
        # An option in the URL goes first.
        options = {key: value for key, value in _POSTGRESQL.items() if key not in parsed.query}
        address = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(address, pool_pre_ping=True, connect_args=options)
    if parsed.get_backend_name() != "sqlite":
        raise BadSettings(f"FARM_DATABASE_URL is for {parsed.get_backend_name()}; use sqlite:///… or postgresql://…")
    engine = sa.create_engine(parsed)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and late; `transaction` begins them.
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL lets readers go on while one writes. NORMAL loses the newest commits when the machine (not the process)
    # dies, and never consistency; FULL would pay a flush to disk for each of a build's eight transactions.
    for pragma in (f"busy_timeout={_BUSY_TIMEOUT_MS}", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _use_wal(cursor)
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """SQLite's busy timeout does not apply to the switch to WAL, which fails at once if two processes make it."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_schema(engine: sa.Engine, *, create: bool) -> None:
    found = _revision(engine, missing_ok=create)
    if found == REVISION:
        return
    if not create:
        raise FarmNotRunning(
            f"{shown(engine)} has schema {found or 'none'}, and this version of the farm needs {REVISION}; start it "
            "with `farm up`, or use the version of the farm that made the database"
        )
    from farm.store.migrate import upgrade  # late, since it imports Alembic

    upgrade(engine, found)


def _revision(engine: sa.Engine, *, missing_ok: bool) -> str | None:
    try:
        with engine.connect() as connection:
            found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return found
    except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.DatabaseError) as error:
        is_there = isinstance(error, sa.exc.ProgrammingError) or "no such table" in str(error.orig)
        if is_there and missing_ok:
            return None
        if is_there:
            raise FarmNotRunning(f"{shown(engine)} holds no farm; start one with `farm up`") from error
        raise FarmNotRunning(f"{shown(engine)} does not answer: {error.orig}; start it with `farm up`") from error
