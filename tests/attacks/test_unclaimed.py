"""Hosts that take messages, or remove offers, and claim nothing: they keep no step from its end."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from farm.broker.leases import LeaseState
from farm.model.arch import Arch
from farm.model.build import BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.scheduler.plan import QueueState
from farm.scheduler.reconcile import IN_HAND_S, TAKEN_AT_MOST, Reconciler
from farm.state.policy import RetryPolicy
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from tests.fake_workers import held_by, picked

POLICY = SettlePolicy(retry=RetryPolicy(max_troubles=3, delay_s=0.0))
QUEUES = {"source": QueueState(name="source", slots=1, free={"one": 1})}
TAKEN, REMOVED = LeaseState(is_offered=True), LeaseState(is_offered=False)


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


class Evil:
    """A farm whose every message is taken by a host that claims nothing."""

    def __init__(self, store: Store) -> None:
        source = Source(kind=SourceKind.GIT, url="https://example.org/hello.git")
        request = BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))
        self.build_id = store.add_batch([request], owner="ann").builds[0].id
        self.store = store
        self.reconciler = Reconciler(claim_s=60, lease_s=30)
        self.clock_s = 0.0

    def take(self, state: LeaseState) -> None:
        """The step is sent, and no worker claims it until the scheduler misses it."""
        now = datetime.now(UTC)
        self.store.promote_due(now + timedelta(hours=1), most=9)
        with self.store.read_view() as view:
            pairs = [(name, *pair) for name, groups in view.groups(most=9).items() for pair in groups]
            ready = [one for pair in pairs for one in view.ready(*pair, most=9)]
        self.store.dispatch(picked(ready), now)
        self.look(state)

    def look(self, state: LeaseState) -> None:
        for _ in range(2):
            self.clock_s += IN_HAND_S + 1
            with self.store.read_view() as view:
                live = view.live()
            states = {one.label: state for one in live}
            verdicts = self.reconciler.examine(live, states, QUEUES, self.clock_s, messages={"source": 0})
            self.store.judge(verdicts, datetime.now(UTC), POLICY)


@pytest.mark.parametrize("state", [TAKEN, REMOVED], ids=["taken", "removed"])
def test_a_step_that_no_worker_ever_claims_ends_with_words(store: Store, state: LeaseState) -> None:
    evil, times = Evil(store), 0
    while store.build(evil.build_id).status is not Status.FINISHED:
        evil.take(state)
        times += 1
        assert times < 200, "the step is sent without end"
    build = store.build(evil.build_id)
    assert build.outcome is Outcome.ERRORED
    assert f"it was sent to the queue source {TAKEN_AT_MOST} times, and no worker claimed it" in (build.reason or "")
    assert times == TAKEN_AT_MOST * (POLICY.retry.max_troubles + 1)


def test_a_claim_ends_the_count(store: Store) -> None:
    evil = Evil(store)
    for _ in range(3):
        for _ in range(TAKEN_AT_MOST - 1):
            evil.take(TAKEN)
        with store.read_view() as view:
            assert view.live() == ()
        evil.take(LeaseState(is_offered=False, holder=held_by("source@one", "x")))
        assert store.build(evil.build_id).steps[0].status is Status.RUNNING
        evil.look(REMOVED)  # its worker died
    reasons = [attempt.reason or "" for attempt in store.build(evil.build_id).steps[0].attempts]
    assert len(reasons) == 3
    assert all(reason.startswith("worker-lost") for reason in reasons)
