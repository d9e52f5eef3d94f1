"""Lost workers, work handed back, hosts that get none: as the store keeps it, on both databases."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from farm import wire
from farm.errors import WorkerLost
from farm.model.outcome import Outcome, Status
from farm.model.worker import Holder, HoldKind, HostHold
from farm.store import schema
from farm.store.scheduling import Held
from farm.store.settling import Finding, Verdict
from farm.store.store import Store
from farm.wire import digest_of
from tests.contract.test_store import AROUND, add, drive, now, send
from tests.fake_workers import held_by, report_for, settle_reports, token_of

DIED = wire.TroubleReport(code=WorkerLost.code, retryable=True, message="the process that ran it died: signal 9")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    yield store
    store.close()


def sent(store: Store, build_id: int) -> tuple[str, str]:
    """Label and token of the one attempt that goes out now; it runs on a host of its own."""
    store.promote_due(now() + timedelta(hours=1), most=10)
    message = send(store).orders[0].message
    running = Verdict(
        label=message.attempt, finding=Finding.RUNNING, lease=held_by(f"build@h{message.number}", message.attempt)
    )
    store.judge([running], now(), AROUND)
    assert store.build(build_id).steps[0].status is Status.RUNNING
    return message.attempt, token_of(message.attempt)


@pytest.mark.parametrize("how", ["its lease ends", "its main process says so"])
def test_a_step_that_lost_three_workers_is_not_given_a_fourth(store: Store, how: str) -> None:
    build_id = add(store)
    for number in range(1, 4):
        label, token = sent(store, build_id)
        if how == "its lease ends":
            store.judge([Verdict(label=label, finding=Finding.LOST)], now(), AROUND)
        else:
            report = report_for(label, token, "fetch", DIED, worker=f"build@h{number}")
            assert settle_reports(store, [report], now(), AROUND).late == ()
    build = store.build(build_id)
    assert (build.outcome, len(build.steps[0].attempts)) == (Outcome.ERRORED, 3)
    assert "3 workers were lost while they ran it (on h1, h2, h3)" in (build.reason or "")
    assert f"farm retry {build_id}" in (build.reason or "")
    store.retry(build_id, by="ann")
    assert sent(store, build_id)[0] == f"{build_id}.fetch.4", "a person may try again"


def test_a_report_for_a_dead_process_does_not_change_its_start(store: Store) -> None:
    build_id = add(store)
    message = send(store).orders[0].message
    running = Verdict(label=message.attempt, finding=Finding.RUNNING, lease=held_by("build@h1", message.attempt))
    began_at = now() - timedelta(seconds=40)
    store.judge([running], began_at, AROUND)
    done = settle_reports(store, [report_for(message.attempt, token_of(message.attempt), "fetch", DIED)], now(), AROUND)
    assert store.build(build_id).steps[0].attempts[0].started_at == began_at
    assert 40 <= done.used_s["ann"] < 60


def test_after_a_workers_death_the_step_goes_out_again_at_once(store: Store) -> None:
    build_id = add(store)
    label, _ = sent(store, build_id)
    store.judge([Verdict(label=label, finding=Finding.LOST)], now(), AROUND)
    assert store.build(build_id).steps[0].status is Status.READY


def test_an_attempt_that_is_handed_back_blames_no_host_and_is_ready_at_once(store: Store) -> None:
    build_id = add(store)
    for _ in range(5):
        label, token = sent(store, build_id)
        verdict = Verdict(
            label=label, finding=Finding.HANDED_BACK, message="one is drained by ann", digest=digest_of(token)
        )
        done = store.judge([verdict], now(), AROUND)
        assert done.closes == (label, f"{build_id}.srpm.{label.rpartition('.')[2]}")
        step = store.build(build_id).steps[0]
        assert (step.status, step.attempts[-1].outcome) == (Status.READY, Outcome.CANCELLED)
        assert step.attempts[-1].reason == "one is drained by ann"
    drive(store)
    assert store.build(build_id).outcome is Outcome.SUCCEEDED


def test_a_verdict_on_another_token_changes_nothing(store: Store) -> None:
    build_id = add(store)
    label, _ = sent(store, build_id)
    for finding in (Finding.HANDED_BACK, Finding.UNSENT):
        store.judge([Verdict(label=label, finding=finding, digest=digest_of("another"))], now(), AROUND)
    assert store.build(build_id).steps[0].status is Status.RUNNING


@pytest.mark.parametrize("finding", Finding)
def test_no_verdict_ends_an_attempt_without_a_holder(store: Store, finding: Finding) -> None:
    build_id = add(store)
    sent(store, build_id)
    before = store.build(build_id)
    store.judge(
        [Verdict(label=f"{build_id}.srpm.1", finding=finding, lease=held_by("w@h", f"{build_id}.srpm.1"))],
        now(),
        AROUND,
    )
    assert store.build(build_id) == before, "it ends with the fetch step, and never alone"


def test_the_store_knows_the_holder_of_an_attempt(store: Store) -> None:
    build_id = add(store)
    label, token = sent(store, build_id)
    waiting = f"{build_id}.srpm.1"
    held = Held(holder=Holder(digest=digest_of(token), worker="build@h1"), following=waiting)
    assert store.held([label, waiting, "99.fetch.1", "rubbish"]) == {label: held}, "the srpm step has not its turn"
    store.cancel(build_id, by="ann")
    assert store.held([label]) == {}


def test_a_report_on_an_older_schedulers_message_still_counts(store: Store) -> None:
    """It went out under a token that the scheduler made, and the worker is of that version as well."""
    build_id = add(store)
    label = send(store).orders[0].message.attempt
    with store.writing() as connection:
        connection.execute(schema.attempt.update().values(token="the-old-way"))
    for token, late in (("", 1), ("another", 1), ("the-old-way", 0)):
        assert len(store.settle([report_for(label, token, "fetch")], now(), AROUND, {}).late) == late
    assert store.build(build_id).steps[0].outcome is Outcome.SUCCEEDED


def test_an_attempt_keeps_its_first_holder(store: Store) -> None:
    """A worker of the same queue may write a lease: what SQL has seen is not changed by that."""
    build_id = add(store)
    label, token = sent(store, build_id)
    forged = report_for(label, "another", "fetch")
    lease = {label: held_by("build@evil", label, "another")}
    assert store.settle([forged], now(), AROUND, lease).late == (label,)
    done = store.settle([report_for(label, token, "fetch", worker="build@liar")], now(), AROUND, lease)
    assert [one.worker for one in done.heard] == ["build@h1"]
    assert store.build(build_id).steps[0].attempts[0].worker == "build@h1"


def hold(kind: HoldKind = HoldKind.DRAINED, *, minutes: int | None = None) -> HostHold:
    until_at = now() + timedelta(minutes=minutes) if minutes is not None else None
    return HostHold(host="one", kind=kind, reason="new \0 disks", by="ann", at=now(), until_at=until_at)


def test_a_held_host_is_remembered_until_it_is_released(store: Store) -> None:
    store.hold(hold())
    found = store.holds()["one"]
    assert (found.kind, found.by, found.until_at, found.holds(now())) == (HoldKind.DRAINED, "ann", None, True)
    assert store.release("one", now())
    assert store.holds() == {}
    assert not store.release("one", now())


def test_a_quarantine_does_not_replace_a_persons_word_and_ends_by_itself(store: Store) -> None:
    store.hold(hold())
    assert store.hold(hold(HoldKind.QUARANTINED, minutes=10)).kind is HoldKind.DRAINED
    assert store.holds()["one"].kind is HoldKind.DRAINED
    store.release("one", now())
    store.hold(hold(HoldKind.QUARANTINED, minutes=-1))
    assert not store.holds()["one"].holds(now())
    assert not store.release("one", now()), "there is nothing to end"
