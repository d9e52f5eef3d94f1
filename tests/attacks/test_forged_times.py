"""A hostile host chooses the times in its reports: they must not count against the owner of a build."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from farm.store.store import Store
from tests.contract.test_store import AROUND, add, now, send
from tests.fake_workers import report_for, settle_reports, token_of


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    yield store
    store.close()


def test_an_owner_pays_for_no_more_time_than_has_passed(store: Store) -> None:
    """A host of one arch could put the builds of an owner behind those of all others, on every arch."""
    add(store)
    message = send(store).orders[0].message
    report = report_for(message.attempt, token_of(message.attempt), message.kind)
    forged = replace(report, started_at=datetime(1971, 1, 1, tzinfo=UTC), finished_at=datetime(2999, 1, 1, tzinfo=UTC))
    done = settle_reports(store, [forged], now() + timedelta(seconds=5), AROUND)
    assert 5 <= done.used_s["ann"] < 30
