"""Reads rows with queries that the scheduler asks again and again. The text of each is made once.

SQLAlchemy prepares a query and its values each time that it is asked, which takes longer than the answer of the
database. Here the driver gets the text and the values, and the values of a row are those that the types of its columns
make.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from farm.store.transaction import driver_of

#: The numbers of values that a list is filled up to, by repeating its last value: a query of each has a text of its
#: own, which a database prepares once.
_LENGTHS = (1, 4, 16, 64, 250)


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The text for one database. `names` are its parameters in their order, `converters` the places in a row whose
    values a type converts."""

    text: str
    names: Sequence[str]
    converters: Sequence[tuple[int, Callable[[Any], Any]]]


class Query:
    """A query of SQLAlchemy's whose parameters are numbers or texts, and at most one a list: `in_` with an expanding
    parameter. A value that a list repeats must not matter."""

    def __init__(self, query: Any, *, of_list: str | None = None) -> None:
        self._query = query
        self._list = of_list

    def rows(self, connection: sa.Connection, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows. A list longer than 250 values is asked for in parts, each of which has its own order."""
        given = dict(values or {})
        if self._list is None:
            return self._rows(connection, given, 0)
        items = list(given.pop(self._list))
        most = _LENGTHS[-1]
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(items), most):
            part = items[start : start + most]
            length = next(length for length in _LENGTHS if length >= len(part))
            part += part[-1:] * (length - len(part))
            named = {f"{self._list}_{place}": item for place, item in enumerate(part, start=1)}
            rows += self._rows(connection, given | named, length)
        return rows

    def _rows(self, connection: sa.Connection, values: Mapping[str, Any], length: int) -> list[tuple[Any, ...]]:
        found = _text(self._query, self._list, length, connection.dialect)
        if connection.dialect.name == "sqlite":
            rows = driver_of(connection).execute(found.text, [values[name] for name in found.names]).fetchall()
        else:
            rows = list(connection.exec_driver_sql(found.text, dict(values)).all())
        return [_converted(row, found.converters) for row in rows] if found.converters else rows


def _converted(row: Sequence[Any], converters: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    values = list(row)
    for place, convert in converters:
        if values[place] is not None:
            values[place] = convert(values[place])
    return tuple(values)


@lru_cache(maxsize=512)  # a process may open many databases
def _text(query: Any, of_list: str | None, length: int, dialect: sa.Dialect) -> _Text:
    filled = query
    if of_list is not None:  # the list's length has to be known, and then SQLAlchemy asks for every value
        filled = query.params(dict.fromkeys(query.compile(dialect=dialect).params) | {of_list: range(length)})
    compiled = filled.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    types = [column.type.dialect_impl(dialect) for column in query.selected_columns]
    converters = [one.result_processor(dialect, None) for one in types]
    return _Text(
        text=compiled.string,
        names=tuple(compiled.positiontup or ()),
        converters=[(place, convert) for place, convert in enumerate(converters) if convert is not None],
    )
