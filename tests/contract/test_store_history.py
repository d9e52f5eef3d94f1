"""Questions about the past of builds, on both databases: they find what matches, and read a bounded number of rows."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from farm.model.build import BuildRequest
from farm.model.history import BuildQuery
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.store import history, schema
from farm.store.store import Store

NAMES = ("bash", "bash-completion", "curl", "perl", "perl-Carp", "perl\N{LATIN SMALL LETTER E WITH ACUTE}")


def _request(name: str) -> BuildRequest:
    return BuildRequest(source=Source(kind=SourceKind.GIT, url=f"https://example.org/{name}.git"), target="demo")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """Ann's batch of 60 builds, ten of each name, and Bob's of six; every third build of Ann's failed."""
    store = Store.open(database_url)
    store.add_batch([_request(name) for _ in range(10) for name in NAMES], owner="ann")
    store.add_batch([_request(name) for name in NAMES], owner="bob")
    build = schema.build.c
    with store.writing() as connection:
        failed = schema.build.update().where(build.id % 3 == 0, build.owner == "ann")
        connection.execute(failed.values(status=Status.FINISHED.value, outcome=Outcome.FAILED.value))
    yield store
    store.close()


def _all(store: Store, wanted: BuildQuery, limit: int = 7) -> list[int]:
    found: list[int] = []
    before: int | None = None
    while True:
        page = store.find_builds(wanted, limit=limit, before=before)
        found += page.ids
        if page.next is None:
            return found
        assert before is None or page.next < before
        before = page.next


@pytest.mark.parametrize("scanned", [5000, 10])
@pytest.mark.parametrize(
    "wanted",
    [
        BuildQuery(package="perl"),
        BuildQuery(owner="bob"),
        BuildQuery(batch=1),
        BuildQuery(batch=2, package="curl"),
        BuildQuery(owner="ann", outcome=Outcome.FAILED),
        BuildQuery(owner="ann", package="bash", status=Status.READY, target="demo"),
        BuildQuery(owner="ann", target="nope"),
        BuildQuery(package="no-such"),
    ],
    ids=range(8),
)
def test_every_build_that_matches_is_found_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, wanted: BuildQuery, scanned: int
) -> None:
    monkeypatch.setattr(history, "_SCANNED", scanned)
    matches = [
        build.id
        for build in store.builds(limit=1000)
        if (wanted.package in (None, build.package), wanted.owner in (None, build.owner)) == (True, True)
        and wanted.batch in (None, build.batch_id)
        and wanted.target in (None, build.target)
        and wanted.status in (None, build.status)
        and wanted.outcome in (None, build.outcome)
    ]
    assert _all(store, wanted) == matches


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (BuildQuery(package="perl", outcome=Outcome.FAILED, owner="ann"), "ix_build_package_id"),
        (BuildQuery(owner="ann", outcome=Outcome.FAILED, target="demo"), "ix_build_owner_id"),
        (BuildQuery(batch=1, outcome=Outcome.FAILED), "ix_build_batch_id"),
    ],
)
def test_a_question_seeks_in_an_index(store: Store, wanted: BuildQuery, index: str) -> None:
    with store.reading() as connection:
        if connection.dialect.name != "sqlite":
            pytest.skip("PostgreSQL chooses by the number of rows")
    plans: list[str] = []

    def explain(connection: sa.Connection, _cursor: object, text: str, parameters: object, *_: object) -> None:
        if "FROM build" in text and not text.startswith("EXPLAIN"):
            plans.extend(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters))  # type: ignore[arg-type]

    sa.event.listen(store._engine, "before_cursor_execute", explain)
    store.find_builds(wanted, limit=50, before=40)
    sa.event.remove(store._engine, "before_cursor_execute", explain)
    assert plans
    assert any(index in one for one in plans)
    assert not any("SCAN build" in one for one in plans)


def test_names_are_found_by_their_beginning(store: Store) -> None:
    assert store.package_names("perl", limit=10) == ("perl", "perl-Carp", NAMES[-1])
    assert store.package_names("bash", limit=1) == ("bash",)
    assert store.package_names("zsh", limit=10) == ()
    assert set(store.package_names("", limit=50)) == set(NAMES)


def test_builds_come_in_the_order_in_which_they_are_asked_for(store: Store) -> None:
    assert [build.id for build in store.builds_numbered([5, 99, 2, 7])] == [5, 2, 7]
    assert store.builds_numbered([]) == ()
    assert store.runs([1, 2]) == ()
