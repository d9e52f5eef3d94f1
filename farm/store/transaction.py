"""One transaction on SQLite or PostgreSQL; an outage of either is raised as FarmNotRunning.

Not the engine (database.py).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from farm.errors import FarmNotRunning


@contextmanager
def transaction(engine: sa.Engine, *, is_writing: bool, is_migration: bool = False) -> Iterator[sa.Connection]:
    """Raises FarmNotRunning when the database does not answer.

    In a migration SQLite checks foreign keys only at the end: a table that others refer to may be made again.
    """
    try:
        with engine.connect() as connection:
            is_lenient = is_migration and engine.dialect.name == "sqlite"
            if is_lenient:
                _on_driver(connection, "PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    if engine.dialect.name == "sqlite":
                        # Begun by hand: a transaction that begins as a reader and then writes can fail at once,
                        # whatever the busy timeout. On the driver's connection, since an event listener would slow
                        # every statement down.
                        _on_driver(connection, "BEGIN IMMEDIATE" if is_writing else "BEGIN")
                    yield connection
                    if is_lenient:
                        _check_foreign_keys(connection)
            finally:
                if is_lenient:
                    _on_driver(connection, "PRAGMA foreign_keys=ON")
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError) as error:
        # PostgreSQL's class 54: a value exceeds a limit. Another try would fail too, so this is no outage.
        if str(getattr(error.orig, "sqlstate", None) or "").startswith("54"):
            raise
        # InternalError: the server ended a transaction that was idle for too long.
        raise FarmNotRunning(f"{shown(engine)} does not answer: {error.orig}; check that it runs") from error
    except sqlite3.OperationalError as error:
        raise FarmNotRunning(f"{shown(engine)} does not answer: {error}; check which process has it locked") from error


def driver_of(connection: sa.Connection) -> Any:
    """The driver's connection, for statements that SQLAlchemy need not prepare. On SQLite alone: SQLAlchemy has to see
    the errors of a server, so that it drops the connections that those end."""
    return connection.connection.driver_connection


def _on_driver(connection: sa.Connection, statement: str) -> None:
    driver_of(connection).execute(statement)


def _check_foreign_keys(connection: sa.Connection) -> None:
    broken = connection.execute(sa.text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise FarmNotRunning(f"the migration would leave a row of table {broken[0]} without the row that it refers to")


def shown(engine: sa.Engine) -> str:
    """The database's address for people: no password."""
    return f"the database {engine.url.render_as_string(hide_password=True)}"
