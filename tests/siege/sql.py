"""Reads the farm's database without the farm's code: the judge checks the state that the farm believes."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

Row = tuple[Any, ...]
_TIMEOUT_S = 3.0


class DatabaseAway(Exception):
    """It does not answer; its words are in the message."""


class Sql:
    """One connection, made again when it was lost. For one thread."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection: Any = None

    def rows(self, query: str) -> list[Row]:
        """Raises DatabaseAway."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            return list(self._connection.execute(query).fetchall())
        except (sqlite3.Error, psycopg.Error) as error:
            self.close()
            raise DatabaseAway(str(error)) from error

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


def sqlite(path: Path) -> Sql:
    def connect() -> sqlite3.Connection:
        found = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_TIMEOUT_S, check_same_thread=False)
        found.isolation_level = None
        return found

    return Sql(connect)


def postgresql(socket: Path, user: str, database: str) -> Sql:
    def connect() -> "psycopg.Connection[Any]":
        return psycopg.connect(
            host=str(socket), user=user, dbname=database, connect_timeout=int(_TIMEOUT_S), autocommit=True
        )

    return Sql(connect)
