"""The store with many builds: finished builds do not slow down queries about running ones."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome, Status
from farm.queues import PUBLISH, SOURCE
from farm.state.policy import RetryPolicy
from farm.store.read_view import Ready
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from farm.store.transaction import driver_of
from tests.bench import crowd
from tests.fake_workers import fail, picked, report_for, settle_reports, succeed, token_of
from tests.scheduling import HELLO, added

MANY = 1_000
AROUND = SettlePolicy(retry=RetryPolicy(max_troubles=3, delay_s=5.0), uploads_logs=True)
#: A table that is read from end to end, without an index that says which rows matter. Small tables may be.
SCANNED = re.compile(r"SCAN (build|step|attempt|attempt_artifact|artifact|batch)\b(?! USING (COVERING )?INDEX)")


def now() -> datetime:
    return datetime.now(UTC)


def ready_of(store: Store, *, most: int) -> list[Ready]:
    with store.read_view() as look:
        look.live()
        return [
            one
            for queue, pairs in look.groups(most=500).items()
            for priority, owner in pairs
            for one in look.ready(queue, priority, owner, most=most)
        ]


def work_off(store: Store) -> None:
    """One round of all that the scheduler does: every step that is ready goes out, and is reported on."""
    store.closing()
    store.heads()
    store.promote_due(now(), most=200)
    ready = ready_of(store, most=20)
    done = store.dispatch(picked(ready), now(), with_logs=True)
    while done.orders:
        messages = [order.message for order in done.orders]
        # Each build has a package of its own: uploads of one name by two owners wait for each other.
        names = [f"hello{AttemptLabel.parse(one.attempt).job_id}" for one in messages]
        answers = [
            fail() if one.kind == "upload" else succeed(one.kind, name)
            for one, name in zip(messages, names, strict=True)
        ]
        reports = [
            report_for(one.attempt, token_of(one.attempt), one.kind, answer)
            for one, answer in zip(messages, answers, strict=True)
        ]
        done = settle_reports(store, reports, now(), AROUND)


@contextmanager
def scans(store: Store) -> Iterator[list[str]]:
    """Statements that read a whole table although they need not, as SQLite says how it goes about each. They are all
    that SQLite runs, with their values: the store gives many to the driver, past SQLAlchemy."""
    found: list[str] = []
    heard: dict[str, None] = {}
    store.close()  # its next connection is traced

    @sa.event.listens_for(store._engine, "connect")
    def trace(raw: sqlite3.Connection, _record: object) -> None:
        raw.set_trace_callback(heard.setdefault)

    try:
        yield found
    finally:
        sa.event.remove(store._engine, "connect", trace)
        store.close()
    with store.reading() as connection:
        for statement in heard:
            if statement.split(maxsplit=1)[0] in ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT"):
                plan = driver_of(connection).execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                found += [f"{line[3]}: {statement}" for line in plan if SCANNED.match(line[3])]


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'farm.db'}"
    crowd.add_finished(url, MANY)
    crowd.add_waiting(url, 50)
    store = Store.open(url)
    yield store
    store.close()


def test_a_scan_is_found_also_when_the_driver_was_given_it(crowded: Store) -> None:
    with scans(crowded) as found, crowded.reading() as connection:
        driver_of(connection).execute("SELECT id FROM step WHERE trouble = ?", ["no such"]).fetchall()
    assert len(found) == 1


def test_only_the_queues_that_are_asked_about_are_read(crowded: Store) -> None:
    with crowded.read_view() as look:
        every = look.groups(most=3)
        assert list(every) == [SOURCE]
        assert look.groups(most=3, queues=[PUBLISH, SOURCE]) == every
        assert look.groups(most=3, queues=[PUBLISH]) == {}


def test_no_list_reads_builds_that_it_does_not_show(crowded: Store) -> None:
    """With each filter: a rare status, outcome or target is found without a scan of all builds."""
    kinds = product((None, *Status), (None, *Outcome), (None, "demo", "rare"))
    for status, outcome, target in kinds:
        if (status, outcome, target) == (None, None, None):
            continue  # reads the newest by their number, and stops
        with scans(crowded) as found:
            crowded.builds(status=status, outcome=outcome, target=target)
        assert not found, (status, outcome, target, found)


def test_looking_cancelling_and_retrying_read_no_other_build(crowded: Store) -> None:
    waiting, failed = MANY + 1, 10
    with scans(crowded) as found:
        crowded.queue_counts()
        crowded.build(failed)
        crowded.build(waiting)
        crowded.batch(1)
        crowded.cancel(waiting, by="ann")
        crowded.retry(failed, by="ann")
    assert not found


def test_the_scheduler_reads_nothing_that_is_over(crowded: Store) -> None:
    with scans(crowded) as found:
        crowded.add_batch([HELLO], owner="ann")
        for _ in range(3):
            work_off(crowded)
    assert not found
    assert crowded.builds(limit=1)[0].status is Status.FINISHED


def test_a_crowd_is_as_the_farm_leaves_it(database_url: str) -> None:
    """Its builds can be looked at and run again, and new ones are numbered after them."""
    crowd.add_finished(database_url, 30)
    crowd.add_waiting(database_url, 5)
    store = Store.open(database_url)
    try:
        build = store.build(10)
        assert (build.status, build.outcome) == (Status.FINISHED, Outcome.FAILED)
        assert [len(step.attempts) for step in build.steps] == [1, 1, 1, 0]
        assert [step.outcome for step in store.build(9).steps] == [Outcome.SUCCEEDED] * 4
        store.retry(10, by="ann")
        assert len(store.builds(status=Status.READY)) == 5
        for _ in range(4):
            work_off(store)
        assert {one.status for one in store.builds(limit=100)} == {Status.FINISHED}
        assert added(store) == 36
    finally:
        store.close()


def test_a_queue_without_workers_hides_no_other_however_many_wait_in_it(database_url: str) -> None:
    """Queues come by their names, and those of other arches before `source`."""
    store = Store.open(database_url)
    try:
        request = replace(HELLO, arches=(Arch.AARCH64,))
        for number in range(20):
            store.add_batch([request], owner=f"owner-{number:02}")
        first = ready_of(store, most=50)
        done = store.dispatch(picked(first), now())
        while done.orders:
            messages = [order.message for order in done.orders]
            reports = [report_for(one.attempt, token_of(one.attempt), one.kind, succeed(one.kind)) for one in messages]
            done = settle_reports(store, reports, now(), AROUND)
        store.add_batch([replace(request, priority=5), request, replace(request, priority=-5)], owner="zoe")
        with store.read_view() as look:
            groups = look.groups(most=7)
        assert {queue: len(pairs) for queue, pairs in groups.items()} == {"build.aarch64": 7, "source": 3}
        assert groups["source"] == [(5, "zoe"), (0, "zoe"), (-5, "zoe")]
        assert groups["build.aarch64"] == [(0, f"owner-{number:02}") for number in range(7)]
    finally:
        store.close()
