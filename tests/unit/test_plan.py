"""The messages that the scheduler sends, with a virtual clock and no store."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from farm import queues
from farm.broker.leases import LeaseState
from farm.model.arch import Arch
from farm.model.outcome import Status
from farm.model.worker import Holder, HoldKind, HostHold
from farm.scheduler.plan import SENT_AT_MOST, Loads, QueueState, ask_order, native_arches, plan, queue_states
from farm.scheduler.reconcile import MOST_AT_ONCE, Reconciler
from farm.store.read_view import Live, Ready
from farm.store.settling import Finding
from tests.messages import WHEN, worker_facts
from tests.scheduling import ready_step

NOW = WHEN
QUEUE = queues.build_queue(Arch.X86_64)


def ready(
    step_id: int, *, owner: str = "ann", priority: int = 0, queue: str = QUEUE, avoid: tuple[str, ...] = ()
) -> Ready:
    due_at = NOW if avoid else None
    return ready_step(step_id, queue=queue, priority=priority, owner=owner, avoid=avoid, due_at=due_at)


def live(label: str, status: Status, *, on: str | None = None, is_offered: bool = True) -> Live:
    return Live(
        label=label,
        queue=QUEUE,
        owner="ann",
        status=status,
        worker=on,
        wall_s=60,
        offered_at=NOW if is_offered else None,
    )


def room(slots: int, *, sent: int = 0, host: str = "one") -> dict[str, QueueState]:
    return {QUEUE: QueueState(name=QUEUE, slots=slots, free={host: slots}, sent=sent)}


def chosen(*work: Ready, slots: int = 9, weights: dict[str, float] | None = None) -> list[int]:
    return [one.step_id for one in plan(work, room(slots), weights or {}, NOW)]


# --- plan


def test_a_queue_is_fed_up_to_its_free_slots_and_one_more() -> None:
    work = [ready(number) for number in range(10)]
    assert len(plan(work, room(2), {}, NOW)) == 3
    assert len(plan(work, room(2, sent=3), {}, NOW)) == 0
    assert plan(work, {QUEUE: QueueState(name=QUEUE)}, {}, NOW) == ()
    assert plan(work, {}, {}, NOW) == ()


def test_priority_goes_before_fairness_and_fairness_before_age() -> None:
    work = [ready(1, owner="ann"), ready(2, owner="ann"), ready(3, owner="bob"), ready(4, owner="ann", priority=1)]
    assert chosen(*work) == [4, 3, 1, 2]
    assert chosen(*work, weights={"bob": 1000.0}) == [4, 1, 2, 3]


def test_owners_take_turns() -> None:
    work = [ready(number, owner="ann") for number in range(4)] + [ready(number, owner="bob") for number in (7, 8)]
    assert chosen(*work) == [0, 7, 1, 8, 2, 3]


def test_a_full_queue_holds_up_no_other() -> None:
    both = room(0) | {"other": QueueState(name="other", slots=1, free={"one": 1})}
    work = [ready(1, priority=9), ready(2, queue="other")]
    assert [one.step_id for one in plan(work, both, {}, NOW)] == [2]


def test_work_waits_a_while_for_a_host_on_which_it_had_no_trouble() -> None:
    work = [ready(1, avoid=("one",))]
    busy_other = {QUEUE: QueueState(name=QUEUE, slots=4, free={"one": 2, "two": 0})}
    assert plan(work, busy_other, {}, NOW) == ()
    assert plan(work, busy_other, {}, NOW + timedelta(minutes=2)) != ()
    assert plan(work, {QUEUE: QueueState(name=QUEUE, slots=4, free={"one": 2, "two": 1})}, {}, NOW) != ()
    assert plan(work, room(2), {}, NOW) != ()


@given(
    work=st.lists(
        st.builds(ready, st.integers(), owner=st.sampled_from("abc"), priority=st.integers(0, 2)),
        unique_by=lambda one: one.step_id,
    ),
    slots=st.integers(0, 5),
)
def test_nothing_is_sent_twice_and_nothing_important_is_left_for_less(work: list[Ready], slots: int) -> None:
    picks = plan(work, room(slots), {}, NOW)
    assert len(picks) == len(set(picks)) == min(len(work), slots + 1 if slots else 0)
    left = [one for one in work if one not in picks]
    assert not picks or not left or min(one.priority for one in picks) >= max(one.priority for one in left)


# --- queues


def test_a_worker_that_is_unfit_or_on_a_quarantined_host_has_no_slots() -> None:
    workers = [worker_facts("build@one"), worker_facts("build@two"), worker_facts("build@three", unfit="no bwrap")]
    held = {"two": HostHold(host="two", kind=HoldKind.QUARANTINED, reason="trouble", by="the farm", at=NOW)}
    states = queue_states([QUEUE], workers, [], held=held)
    assert (states[QUEUE].slots, states[QUEUE].free) == (2, {"one": 2})
    only = queue_states([QUEUE], workers[1:], [], held=held)
    assert only[QUEUE].slots == 2, "a queue's last host is kept"


def test_a_worker_on_a_host_without_build_roots_publishes_all_the_same() -> None:
    both = (queues.PUBLISH, queues.SOURCE)
    workers = [worker_facts("publish@one", unfit="not root"), worker_facts("mixed@two", names=both, unfit="not root")]
    states = queue_states(both, workers, [])
    assert states[queues.PUBLISH].free == {"one": 2, "two": 2}
    assert states[queues.PUBLISH].note == ""
    assert (states[queues.SOURCE].slots, states[queues.SOURCE].note) == (0, "not root"), "it makes source packages"


def test_a_quarantined_publish_host_is_held_while_another_one_without_build_roots_is_there() -> None:
    held = {"one": HostHold(host="one", kind=HoldKind.QUARANTINED, reason="trouble", by="the farm", at=NOW)}
    workers = [worker_facts("publish@one"), worker_facts("publish@two", unfit="not root")]
    assert queue_states([queues.PUBLISH], workers, [], held=held)[queues.PUBLISH].free == {"two": 2}


def test_running_attempts_take_slots_and_sent_ones_take_places_in_the_queue() -> None:
    attempts = [
        live("1.build.x86_64.1", Status.RUNNING, on="build@one"),
        live("2.build.x86_64.1", Status.DISPATCHED),
        live("3.build.x86_64.1", Status.DISPATCHED, is_offered=False),
    ]
    state = queue_states([QUEUE], [worker_facts("build@one")], attempts)[QUEUE]
    assert (state.free_slots, state.sent, state.room) == (1, 1, 1)


def test_only_arches_with_a_worker_of_their_own_are_native() -> None:
    states = {Arch.X86_64: room(2)[QUEUE], Arch.AARCH64: room(5)[QUEUE]}
    assert native_arches([replace(worker_facts(), arches=(Arch.X86_64, Arch.AARCH64))], states) == (Arch.X86_64,)


def test_claimed_slots_draw_no_more_work_than_a_pass_can_send() -> None:
    workers = [worker_facts(f"build-{number}@one", names=(QUEUE,), slots=1024) for number in range(2000)]
    state = queue_states([QUEUE], workers, [])[QUEUE]
    assert (state.free_slots, state.room) == (2000 * 1024, SENT_AT_MOST)
    assert replace(state, sent=SENT_AT_MOST).room == 0


def test_claimed_slots_draw_no_noarch_builds() -> None:
    claims = "build@claims"
    workers = [worker_facts(), worker_facts(claims, names=(queues.build_queue(Arch.PPC64LE),), slots=1024)]
    workers[1] = replace(workers[1], arches=(Arch.PPC64LE,))
    states = {Arch.X86_64: room(1)[QUEUE], Arch.PPC64LE: room(1024)[QUEUE]}
    assert native_arches(workers, states) == (Arch.X86_64, Arch.PPC64LE)
    states[Arch.X86_64] = replace(states[Arch.X86_64], sent=1)
    assert native_arches(workers, states) == (Arch.PPC64LE, Arch.X86_64), "every slot of x86_64 has its step"


# --- loads


def test_recorded_usage_halves_every_four_hours() -> None:
    loads = Loads()
    loads.add("ann", 800.0, NOW)
    assert loads.used_s("ann", NOW + timedelta(hours=4)) == 400.0
    loads.add("ann", 100.0, NOW + timedelta(hours=4))
    assert round(loads.used_s("ann", NOW + timedelta(hours=8))) == 250
    assert loads.used_s("bob", NOW) == 0
    assert loads.all(NOW + timedelta(days=4)) == {}


def test_only_owners_who_can_have_a_turn_are_queried() -> None:
    groups = [(0, "ann"), (5, "bob"), (5, "cid"), (5, "dot")]
    assert ask_order(groups, {"bob": 9.0}, 2) == ((5, "cid"), (5, "dot"), (0, "ann"))


# --- reconcile

FREE = LeaseState(is_offered=False)
OFFERED = LeaseState(is_offered=True)
HELD = LeaseState(is_offered=False, holder=Holder(digest="d", worker="build@one"))


def found(one: Live, state: LeaseState, *, after_s: tuple[float, ...] = (0,), slots: int = 1) -> list[Finding]:
    """The findings of the last of these looks."""
    reconciler = Reconciler(claim_s=60, lease_s=30)
    verdicts = ()
    for at in after_s:
        verdicts = reconciler.examine([one], {one.label: state}, room(slots), at)
    return [verdict.finding for verdict in verdicts]


def test_an_attempt_is_lost_only_when_it_looks_so_twice() -> None:
    running = live("1.build.x86_64.1", Status.RUNNING, on="build@one")
    assert found(running, FREE) == []
    assert found(running, FREE, after_s=(0, 1)) == [Finding.LOST]
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    assert found(sent, FREE) == []
    assert found(sent, FREE, after_s=(0, 1)) == [Finding.UNSENT]


def test_an_attempt_that_is_held_is_running_until_it_was_seen_for_too_long() -> None:
    assert found(live("1.build.x86_64.1", Status.DISPATCHED), HELD) == [Finding.RUNNING]
    running = live("1.build.x86_64.1", Status.RUNNING, on="build@one")
    assert found(running, HELD, after_s=(0, 179)) == []
    assert found(running, HELD, after_s=(0, 181)) == [Finding.OVERDUE]


def test_an_unclaimed_offer_is_sent_again_only_when_a_worker_could_claim_it() -> None:
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    assert found(sent, OFFERED) == []
    assert found(sent, OFFERED, after_s=(0, 61)) == [Finding.UNSENT]
    assert found(sent, OFFERED, after_s=(0, 61), slots=0) == []


def test_a_message_that_is_in_no_queue_and_with_no_worker_is_sent_again_at_once() -> None:
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    for count, verdicts in ((1, 0), (0, 1)):
        reconciler = Reconciler(claim_s=60, lease_s=30)
        for at in (0, 6):
            found = reconciler.examine([sent], {sent.label: OFFERED}, room(1), at, messages={sent.queue: count})
        assert len(found) == verdicts


def test_a_message_that_a_worker_takes_this_moment_is_not_sent_again_however_long_it_waited() -> None:
    """A report frees the slot, and the worker has the next message in hand before anybody has seen its claim."""
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    reconciler = Reconciler(claim_s=60, lease_s=30)
    for at in (0, 100):
        assert reconciler.examine([sent], {sent.label: OFFERED}, room(0), at, messages={sent.queue: 1}) == ()
    assert reconciler.examine([sent], {sent.label: OFFERED}, room(1), 101, messages={sent.queue: 0}) == ()
    assert reconciler.examine([sent], {sent.label: OFFERED}, room(1), 107, messages={sent.queue: 0}) != ()


def test_a_message_that_was_lost_is_missed_on_a_queue_that_is_hardly_ever_free_too() -> None:
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    for messages, seen_free in ((0, 7), (1, 62)):
        reconciler = Reconciler(claim_s=60, lease_s=30)
        looks = [
            reconciler.examine([sent], {sent.label: OFFERED}, room(at % 10 == 0), at, messages={sent.queue: messages})
            for at in range(1000)
        ]
        assert next(at for at, verdicts in enumerate(looks) if verdicts) in range(10 * seen_free - 20, 10 * seen_free)


def test_a_message_that_waited_long_is_not_missed_when_it_is_taken_at_last() -> None:
    sent = live("1.build.x86_64.1", Status.DISPATCHED)
    reconciler = Reconciler(claim_s=60, lease_s=30)
    for at in range(200):
        reconciler.examine([sent], {sent.label: OFFERED}, room(at % 10 == 0), at, messages={sent.queue: 1})
    assert reconciler.examine([sent], {sent.label: OFFERED}, room(1), 200, messages={sent.queue: 0}) == ()


def test_running_attempts_are_not_lost_while_workers_may_come_back() -> None:
    running = live("1.build.x86_64.1", Status.RUNNING, on="build@one")
    sent = live("2.build.x86_64.1", Status.DISPATCHED)
    states = {one.label: FREE for one in (running, sent)}
    reconciler = Reconciler(claim_s=60, lease_s=30)
    reconciler.forget(100)
    found = [
        [verdict.finding for verdict in reconciler.examine([running, sent], states, room(1), at)]
        for at in (100, 101, 114, 116)
    ]
    assert found == [[], [Finding.UNSENT], [Finding.UNSENT], [Finding.LOST, Finding.UNSENT]]


def test_a_new_leader_waits_no_longer_than_the_one_that_saw_the_broker_come_back() -> None:
    running = live("1.build.x86_64.1", Status.RUNNING, on="build@one")
    for heard_for_s, lost_at in ((0, 116), (10, 106), (15, 101), (1000, 101)):
        reconciler = Reconciler(claim_s=60, lease_s=30)
        reconciler.forget(100, heard_for_s=heard_for_s)
        found = {at: reconciler.examine([running], {running.label: FREE}, room(1), at) for at in range(100, 120)}
        assert min(at for at, verdicts in found.items() if verdicts) in (lost_at - 1, lost_at)


def test_nothing_is_expected_of_a_step_that_waits_for_its_chain() -> None:
    assert found(live("1.build.x86_64.1", Status.DISPATCHED, is_offered=False), FREE, after_s=(0, 1, 2)) == []


def test_an_emptied_redis_is_repaired_in_bounded_passes() -> None:
    attempts = [live(f"{number}.build.x86_64.1", Status.DISPATCHED) for number in range(3 * MOST_AT_ONCE)]
    states = {one.label: FREE for one in attempts}
    reconciler = Reconciler(claim_s=60, lease_s=30)
    assert reconciler.examine(attempts, states, room(1), 0) == ()
    for _ in range(3):
        verdicts = reconciler.examine(attempts, states, room(1), 0)
        assert len(verdicts) == MOST_AT_ONCE
        gone = {verdict.label for verdict in verdicts}
        attempts = [one for one in attempts if one.label not in gone]
    assert attempts == []
