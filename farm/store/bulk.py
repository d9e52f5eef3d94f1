"""Writes many rows of a table. The text of each statement is made once.

SQLAlchemy fills in the values of a compiled statement row by row, which takes longer than the database needs to write
them. Here the driver gets the text and the values, each as the type of its column wants it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa

Row = Mapping[str, Any]


def update(connection: sa.Connection, table: sa.Table, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Set these columns of the rows with these values of `id`."""
    text = _update_text(table, names, _mark(connection))
    connection.exec_driver_sql(text, _values(connection, table, (*names, "id"), rows))


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Add rows that have the same columns. Columns that are left out get no default of SQLAlchemy's."""
    if rows:
        names = tuple(rows[0])
        text = _insert_text(table, names, _mark(connection))
        connection.exec_driver_sql(text, _values(connection, table, names, rows))


def _values(
    connection: sa.Connection, table: sa.Table, names: tuple[str, ...], rows: Sequence[Row]
) -> list[tuple[Any, ...]]:
    columns = [(name, _converter(table, name, connection.dialect)) for name in names]
    return [tuple(convert(row[name]) if convert else row[name] for name, convert in columns) for row in rows]


def _mark(connection: sa.Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


@cache
def _update_text(table: sa.Table, names: tuple[str, ...], mark: str) -> str:
    return f"UPDATE {table.name} SET {', '.join(f'{name} = {mark}' for name in names)} WHERE id = {mark}"  # noqa: S608 - made of names of columns


@cache
def _insert_text(table: sa.Table, names: tuple[str, ...], mark: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"  # noqa: S608 - as above


@lru_cache(maxsize=512)  # a process may open many databases
def _converter(table: sa.Table, name: str, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    return table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
