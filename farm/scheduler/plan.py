"""Chooses the ready steps that are sent now: a pure function of the steps, the queues, the owners' loads and the clock.

A queue gets messages for its free slots and one more, which a worker takes while its report travels. Everything else
waits in SQL, so that priority and fairness are decided as late as possible. Priority comes first, then the owner who
used least, then age. A step that had trouble on a host waits a while for a slot on another host.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farm import wire
from farm.fitness import Withholding, unfit_reason
from farm.model.arch import Arch
from farm.model.outcome import Status
from farm.model.worker import HostHold, WorkerFacts
from farm.queues import build_queue
from farm.store.read_view import Live, Ready

HALF_LIFE_S = 4 * 3600
#: The load that a sent step counts for until it is known how much it used.
EXPECTED_S = 60.0
#: Steps of one queue that are sent and not yet begun. An account may claim any number of slots for its queue.
SENT_AT_MOST = 1000
#: How long a step waits for another host than the host on which it had trouble.
AVOID_FOR = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """`free` are the idle slots of its workers, by host; `sent` counts the steps that are sent and not yet begun.
    `note` says why workers that serve the queue do not count."""

    name: str
    slots: int = 0
    free: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    note: str = ""

    @property
    def free_slots(self) -> int:
        return sum(self.free.values())

    @property
    def room(self) -> int:
        return max(0, min(self.free_slots + 1, SENT_AT_MOST) - self.sent) if self.slots else 0


def queue_states(
    names: Iterable[str],
    workers: Sequence[WorkerFacts],
    live: Sequence[Live],
    *,
    held: Mapping[str, HostHold] | None = None,
) -> dict[str, QueueState]:
    """Every queue as it is now. A worker that is unfit for the queue, or given no work from it, has no slots there."""
    # By queue too: a lease has its worker's name from the worker, and a name from one role proves nothing in another.
    busy: dict[tuple[str, str], int] = {}
    sent: dict[str, int] = {}
    for attempt in live:
        if attempt.status is Status.RUNNING and attempt.worker:
            key = attempt.queue, attempt.worker
            busy[key] = busy.get(key, 0) + 1
        elif attempt.offered_at is not None:
            sent[attempt.queue] = sent.get(attempt.queue, 0) + 1
    withholding = Withholding(held or {}, workers, speaks=wire.VERSION)
    states = {}
    for name in names:
        free: dict[str, int] = {}
        serving = [worker for worker in workers if name in worker.queues]
        why = {one.name: unfit_reason(one, name) or withholding.reason(one, name) for one in serving}
        mine = [worker for worker in serving if not why[worker.name]]
        for worker in mine:
            free[worker.host] = free.get(worker.host, 0) + max(0, worker.slots - busy.get((name, worker.name), 0))
        slots = sum(worker.slots for worker in mine)
        states[name] = QueueState(name=name, slots=slots, free=free, sent=sent.get(name, 0), note=_note(why))
    return states


def _note(why: Mapping[str, str | None]) -> str:
    return "; ".join(dict.fromkeys(reason for _, reason in sorted(why.items()) if reason))


def native_arches(workers: Sequence[WorkerFacts], queue_of: Mapping[Arch, QueueState]) -> tuple[Arch, ...]:
    """Arches that a worker runs without emulation; first the arches with a slot free for one more step. A worker's
    first arch is its native one. The number of slots does not count: an arch whose workers claim very many would get
    all noarch builds."""
    natives = ((worker.arches[0], worker) for worker in workers if worker.arches and worker.unfit is None)
    found = {arch for arch, worker in natives if build_queue(arch) in worker.queues}
    have = [arch for arch in queue_of if arch in found and queue_of[arch].slots]
    return tuple(sorted(have, key=lambda arch: queue_of[arch].sent >= queue_of[arch].free_slots))


class Loads:
    """The owners' loads: the slot-seconds that they used, which halve every four hours, and the steps they run now."""

    def __init__(self, used: Mapping[str, tuple[float, datetime]] | None = None) -> None:
        self._used = dict(used or {})

    def add(self, owner: str, used_s: float, now: datetime) -> None:
        self._used[owner] = (self.used_s(owner, now) + used_s, now)

    def used_s(self, owner: str, now: datetime) -> float:
        load_s, at = self._used.get(owner, (0.0, now))
        return load_s * math.exp2(-max(0.0, (now - at).total_seconds()) / HALF_LIFE_S)

    def all(self, now: datetime) -> dict[str, float]:
        """The loads that still matter, by owner."""
        loads = {owner: self.used_s(owner, now) for owner in self._used}
        return {owner: load_s for owner, load_s in loads.items() if load_s > 1.0}

    def weigh(self, live: Iterable[Live], now: datetime) -> dict[str, float]:
        """Each owner's weight: the load, and EXPECTED_S for each step in `live`."""
        weights = {owner: self.used_s(owner, now) for owner in self._used}
        for attempt in live:
            weights[attempt.owner] = weights.get(attempt.owner, 0.0) + EXPECTED_S
        return weights


def ask_order(
    groups: Iterable[tuple[int, str]], weights: Mapping[str, float], room: int
) -> tuple[tuple[int, str], ...]:
    """The (priority, owner) pairs that may get one of `room` assignments, in the order of their turn.

    No more than `room` owners of one priority can have a turn.
    """
    levels: dict[int, list[str]] = {}
    for priority, owner in groups:
        levels.setdefault(priority, []).append(owner)
    return tuple(
        (priority, owner)
        for priority in sorted(levels, reverse=True)
        for owner in sorted(levels[priority], key=lambda owner: (weights.get(owner, 0.0), owner))[:room]
    )


def plan(
    ready: Sequence[Ready], queues: Mapping[str, QueueState], weights: Mapping[str, float], now: datetime
) -> tuple[Ready, ...]:
    """The steps to send now, in their order. `weights` are not changed."""
    weight = dict(weights)
    room = {name: state.room for name, state in queues.items()}
    lines: dict[tuple[int, str, str], deque[Ready]] = {}
    for one in sorted(ready, key=lambda one: one.step_id):
        if room.get(one.queue, 0) and not _kept_back(one, queues[one.queue], now):
            lines.setdefault((-one.priority, one.owner, one.queue), deque()).append(one)
    chosen: list[Ready] = []
    while lines:
        key = min(lines, key=lambda key: (key[0], weight.get(key[1], 0.0), lines[key][0].step_id))
        _, owner, queue = key
        chosen.append(lines[key].popleft())
        weight[owner] = weight.get(owner, 0.0) + EXPECTED_S
        room[queue] -= 1
        if not room[queue]:
            lines = {other: line for other, line in lines.items() if other[2] != queue}
        elif not lines[key]:
            del lines[key]
    return tuple(chosen)


def _kept_back(one: Ready, queue: QueueState, now: datetime) -> bool:
    """Hosts share a queue, so a step avoids a host by waiting until another host has a free slot."""
    if not one.avoid or one.due_at is None or not timedelta(0) <= now - one.due_at <= AVOID_FOR:
        return False
    others = [free for host, free in queue.free.items() if host not in one.avoid]
    return bool(others) and not any(others)
