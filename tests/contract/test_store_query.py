"""Queries whose text is made once give the rows that SQLAlchemy gives, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from farm.errors import FarmNotRunning
from farm.store import schema
from farm.store.query import Query
from farm.store.store import Store

HOST = schema.host.c
AT = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
NAMES = [f"host-{number} of 100% 'ann'" for number in range(600)]
COLUMNS = sa.select(HOST.name, HOST.hands_back, HOST.held_at, HOST.until_at, HOST.times)
BY_NAME = COLUMNS.where(HOST.name.in_(sa.bindparam("names", expanding=True)), HOST.times < sa.bindparam("most"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    with store.writing() as connection:
        connection.execute(schema.host.insert(), [host(place, name) for place, name in enumerate(NAMES)])
    yield store
    store.close()


def host(place: int, name: str) -> dict[str, object]:
    until_at = AT + timedelta(seconds=place) if place % 2 else None
    values = {"name": name, "hands_back": place % 3 == 0, "held_at": AT, "until_at": until_at, "times": place}
    return values | {"hold": "drained", "reason": "a test", "held_by": "ann"}


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 250, 251, 600])
def test_a_list_of_any_length_gives_each_row_once(store: Store, count: int) -> None:
    query, values = Query(BY_NAME, of_list="names"), {"names": NAMES[:count], "most": 590}
    with store.reading() as connection:
        for _ in range(2):  # the second time with the text of the first
            rows = query.rows(connection, values)
            assert len(rows) == min(count, 590)
            assert sorted(rows) == sorted(tuple(row) for row in connection.execute(BY_NAME, values))


def test_a_query_without_a_list_or_of_text_gives_the_values_of_its_columns(store: Store) -> None:
    text = sa.text("SELECT name, hands_back, until_at FROM host WHERE times BETWEEN :low AND :high ORDER BY times")
    typed = text.columns(HOST.name, HOST.hands_back, HOST.until_at)
    with store.reading() as connection:
        found = Query(typed).rows(connection, {"low": 3, "high": 4})
        assert found == [(NAMES[3], True, AT + timedelta(seconds=3)), (NAMES[4], False, None)]
        assert len(Query(COLUMNS).rows(connection)) == len(NAMES)


def test_a_database_that_refuses_a_query_is_an_outage(store: Store) -> None:
    with store.writing() as connection:
        connection.execute(sa.text("ALTER TABLE host RENAME TO host_before"))
    with pytest.raises((FarmNotRunning, sa.exc.ProgrammingError)), store.reading() as connection:
        Query(COLUMNS).rows(connection)
