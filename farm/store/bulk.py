"""Writes many rows of a table. The text of each statement is made once.

SQLAlchemy fills in the values of a compiled statement row by row, which takes longer than the database needs to write
them. Here the driver gets the text and the values, each as the type of its column wants it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa

from farm.store.transaction import driver_of

Row = Mapping[str, Any]


def update(connection: sa.Connection, table: sa.Table, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Set these columns of the rows with these values of `id`."""
    text = _update_text(table, names, _mark(connection))
    _execute(connection, text, _values(connection, table, (*names, "id"), rows))


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Add rows that have the same columns. Columns that are left out get no default of SQLAlchemy's."""
    if rows:
        names = tuple(rows[0])
        text = _insert_text(table, names, _mark(connection))
        _execute(connection, text, _values(connection, table, names, rows))


def _execute(connection: sa.Connection, text: str, values: list[tuple[Any, ...]]) -> None:
    if connection.dialect.name == "sqlite":
        driver_of(connection).executemany(text, values)
    else:
        connection.exec_driver_sql(text, values)


def _values(
    connection: sa.Connection, table: sa.Table, names: tuple[str, ...], rows: Sequence[Row]
) -> list[tuple[Any, ...]]:
    converters = [_converter(table, name, connection.dialect) for name in names]
    values = [[row[name] for name in names] for row in rows]
    for place, convert in enumerate(converters):
        if convert is not None:
            for one in values:
                one[place] = convert(one[place])
    return [tuple(one) for one in values]


def _mark(connection: sa.Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def delete(connection: sa.Connection, table: sa.Table, ids: Sequence[int]) -> None:
    """Remove the rows with these values of `id`."""
    if ids:
        text = f"DELETE FROM {table.name} WHERE id = {_mark(connection)}"  # noqa: S608 - made of a table's name
        _execute(connection, text, [(one,) for one in ids])


@cache
def _update_text(table: sa.Table, names: tuple[str, ...], mark: str) -> str:
    return f"UPDATE {table.name} SET {', '.join(f'{name} = {mark}' for name in names)} WHERE id = {mark}"  # noqa: S608 - made of names of columns


@cache
def _insert_text(table: sa.Table, names: tuple[str, ...], mark: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"  # noqa: S608 - as above


@lru_cache(maxsize=512)  # a process may open many databases
def _converter(table: sa.Table, name: str, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    return table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
