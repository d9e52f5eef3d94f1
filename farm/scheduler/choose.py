"""Reads the ready steps that may be sent now, and has plan.py choose among them.

Most of what is read is not chosen, and reading takes longer than choosing. So the steps of each owner are read up to an
even share of the room first, and up to the whole room only where that was too few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from farm.scheduler.plan import QueueState, ask_order, plan
from farm.store.read_view import ReadView, Ready

_GROUPS_AT_ONCE = 500
#: By queue, the (priority, owner) pairs that may get an assignment, in the order of their turn.
Turns = Mapping[str, tuple[tuple[int, str], ...]]


def choose(
    view: ReadView, queues: Mapping[str, QueueState], weights: Mapping[str, float], now: datetime
) -> tuple[Ready, ...]:
    """The steps to send now, in their order."""
    open_queues = [name for name, queue in queues.items() if queue.room]
    turns: Turns = {
        name: ask_order(groups, weights, queues[name].room)
        for name, groups in view.groups(most=_GROUPS_AT_ONCE, queues=open_queues).items()
    }
    found = _read(view, queues, turns, is_even=True)
    chosen = plan(found.ready, queues, weights, now)
    if found.may_lack(chosen):
        chosen = plan(_read(view, queues, turns, is_even=False).ready, queues, weights, now)
    return chosen


@dataclass(frozen=True, kw_only=True)
class _Found:
    """`last` are the last steps of owners who may have more."""

    ready: Sequence[Ready]
    last: Sequence[Ready]

    def may_lack(self, chosen: Sequence[Ready]) -> bool:
        """Whether a step that was not read could have been chosen. It could not while an older step of the same owner,
        which may be sent too, was left over."""
        ids = {one.step_id for one in chosen}
        return any(one.step_id in ids or one.avoid for one in self.last)


def _read(view: ReadView, queues: Mapping[str, QueueState], turns: Turns, *, is_even: bool) -> _Found:
    """Read as many steps of each queue as there is room for, from the owners whose turn it is. With `is_even` each
    owner's steps are read up to a little more than an even share."""
    ready: list[Ready] = []
    last: list[Ready] = []
    for name, pairs in turns.items():
        room, count = queues[name].room, 0
        for priority, level in groupby(pairs, key=lambda pair: pair[0]):
            if count >= room:
                break
            owners = [owner for _, owner in level]
            most = min(room, room // len(owners) + 2) if is_even else room
            for some in view.ready_of_owners(name, priority, owners, most=most).values():
                ready += some
                count += len(some)
                if len(some) == most < room:
                    last.append(some[-1])
    return _Found(ready=ready, last=last)
