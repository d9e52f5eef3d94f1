"""Reading few steps of each owner chooses the same steps as reading all of them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from farm.scheduler.choose import choose
from farm.scheduler.plan import QueueState, ask_order, plan
from farm.store.read_view import ReadView, Ready
from tests.scheduling import ready_step

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OWNERS, QUEUES = "abcde", ("source", "publish")


class View(ReadView):
    """Answers from memory, as the database does."""

    def __init__(self, ready: Sequence[Ready]) -> None:
        self.all = sorted(ready, key=lambda one: one.step_id)
        self.read = 0

    def groups(self, *, most: int, queues: Iterable[str] | None = None) -> dict[str, list[tuple[int, str]]]:
        pairs = {(one.queue, -one.priority, one.owner) for one in self.all}
        found: dict[str, list[tuple[int, str]]] = {}
        for queue, urgency, owner in sorted(pair for pair in pairs if queues is None or pair[0] in queues):
            found.setdefault(queue, []).append((-urgency, owner))
        return found

    def ready_of_owners(self, queue: str, priority: int, owners: Sequence[str], *, most: int) -> dict[str, list[Ready]]:
        mine = [one for one in self.all if one.queue == queue and one.priority == priority]
        found = {owner: [one for one in mine if one.owner == owner][:most] for owner in owners}
        self.read += sum(map(len, found.values()))
        return found


def ready(number: int, queue: str, priority: int, owner: str, avoid: tuple[str, ...]) -> Ready:
    due_at = NOW - timedelta(seconds=1) if avoid else None
    return ready_step(
        number, kind="fetch", arch=None, queue=queue, priority=priority, owner=owner, avoid=avoid, due_at=due_at
    )


steps = st.tuples(
    st.sampled_from(QUEUES),
    st.sampled_from([0, 0, 5]),
    st.sampled_from(OWNERS),
    st.sampled_from([(), (), (), ("one",)]),
)
states = st.fixed_dictionaries(
    {name: st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 3)) for name in QUEUES}
)


def whole(found: Sequence[Ready], queues: dict[str, QueueState], weights: dict[str, float]) -> list[Ready]:
    """Read as many steps as there is room for, of each owner whose turn it is, and of no lower priority then."""
    read: list[Ready] = []
    for queue, groups in View(found).groups(most=99).items():
        read_here: list[Ready] = []
        for priority, owner in ask_order(groups, weights, queues[queue].room):
            if len(read_here) >= queues[queue].room and read_here[-1].priority > priority:
                break
            read_here += View(found).ready_of_owners(queue, priority, [owner], most=queues[queue].room)[owner]
        read += read_here
    return read


@given(
    given_steps=st.lists(steps, max_size=40),
    free=states,
    weights=st.dictionaries(st.sampled_from(OWNERS), st.sampled_from([0.0, 30.0, 60.0, 500.0])),
)
def test_the_choice_is_that_among_all_ready_steps(
    given_steps: list[tuple[str, int, str, tuple[str, ...]]],
    free: dict[str, tuple[int, int, int]],
    weights: dict[str, float],
) -> None:
    found = [ready(number, *one) for number, one in enumerate(given_steps, start=1)]
    queues = {
        name: QueueState(name=name, slots=4, free={"one": one, "two": two}, sent=sent)
        for name, (one, two, sent) in free.items()
    }
    assert choose(View(found), queues, weights, NOW) == plan(whole(found, queues, weights), queues, weights, NOW)


def test_many_owners_with_much_work_have_few_steps_read() -> None:
    found = [
        ready(100 * number + step, "source", 0, owner, ()) for number, owner in enumerate(OWNERS) for step in range(99)
    ]
    view = View(found)
    queues = {"source": QueueState(name="source", slots=4, free={"one": 4})}
    assert len(choose(view, queues, {}, NOW)) == 5
    assert view.read == 15
