"""A build host that claims every attempt and hands it back: the step goes elsewhere, and comes to an end."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from farm.model.outcome import Outcome, Status
from farm.scheduler.plan import QueueState, plan
from farm.state.policy import RetryPolicy
from farm.store.read_view import Ready
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from farm.wire import digest_of
from tests.fake_workers import held_by, picked, token_of
from tests.scheduling import added, ready

POLICY = SettlePolicy(retry=RetryPolicy(max_troubles=2, delay_s=0.0))
EVIL, HONEST = "source@evil", "source@honest"


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


@pytest.fixture
def build_id(store: Store) -> int:
    return added(store)


def due(store: Store) -> list[Ready]:
    """Everything that is ready an hour from now."""
    store.promote_due(now() + timedelta(hours=1), most=10)
    return ready(store)


def now() -> datetime:
    return datetime.now(UTC)


def hand_back(store: Store, worker: str, *, is_drained: bool = False) -> None:
    """The worker claims the one step that is ready, and hands it back before it is seen running."""
    (order,) = store.dispatch(picked(due(store)), now()).orders
    label = order.message.attempt
    digest = None if is_drained else digest_of(token_of(label))
    verdict = Verdict(
        label=label, finding=Finding.HANDED_BACK, message="\x1b[2J", lease=held_by(worker, label), digest=digest
    )
    store.judge([verdict], now(), POLICY)


def test_a_step_that_was_handed_back_waits_for_a_slot_on_another_host(store: Store, build_id: int) -> None:
    hand_back(store, EVIL)
    queue = QueueState(name="source", slots=2, free={"evil": 1, "honest": 0})
    (one,) = due(store)
    assert one.avoid == ("evil",)
    assert plan([one], {"source": queue}, {}, now()) == ()
    queue = QueueState(name="source", slots=2, free={"evil": 1, "honest": 1})
    assert plan([one], {"source": queue}, {}, now()) == (one,)


def test_a_step_that_is_always_handed_back_ends_with_words(store: Store, build_id: int) -> None:
    times = 0
    while store.build(build_id).status is not Status.FINISHED:
        hand_back(store, EVIL)
        times += 1
        assert times < 100, "the step is handed back without end"
    build = store.build(build_id)
    assert build.outcome is Outcome.ERRORED
    assert f"{times} times workers handed it back, the last on evil" in (build.reason or "")
    assert times == POLICY.retry.max_hand_backs + POLICY.retry.max_troubles + 1
    store.retry(build_id, by="ann")
    hand_back(store, EVIL)
    assert store.build(build_id).steps[0].status is Status.READY, "a retry counts from the start"


def test_a_host_that_a_person_drains_counts_for_nothing(store: Store, build_id: int) -> None:
    for _ in range(20):
        hand_back(store, HONEST, is_drained=True)
    (one,) = due(store)
    assert one.avoid == ()
