"""Compares what SQL believes of live attempts with what Redis knows: finds the lost, the unsent and the overdue.

A pure judgement but for what it remembers: an attempt is called lost only when it looks so twice, with all reports
settled in between, since a worker's report comes before its lease ends. Nothing that ran is called lost while workers
may still come back to a Redis that was away or has forgotten them. How long something has been so is counted on a clock
that nobody can set, from when it was first seen: what SQL has was written by clocks that may have been wrong.
"""

from collections.abc import Iterator, Mapping, Sequence

from farm.broker.leases import LeaseState
from farm.model.outcome import Status
from farm.scheduler.plan import QueueState
from farm.store.read_view import Live
from farm.store.settling import Finding, Verdict

#: A worker ends a step at its limit itself; this is how much longer it may take about it.
OVERDUE_AFTER_S = 120
#: Attempts that are sent again or given up at a time: a Redis that was emptied must not stall everything else.
MOST_AT_ONCE = 100
#: How long a message may be between its queue and its claim: a worker takes milliseconds about it.
IN_HAND_S = 5


class Reconciler:
    """Times are seconds of time.monotonic()."""

    def __init__(self, *, claim_s: int, lease_s: int) -> None:
        self._claim_s = claim_s
        # Workers renew every sixth of a lease, and ask every second once they know; but a short lease is short anyway.
        self._patience_s = max(lease_s / 2, min(lease_s, 10))
        self._suspects: frozenset[str] = frozenset()
        self._since: dict[tuple[str, Status], float] = {}
        self._gone_since: dict[str, float] = {}
        self._examined_at = 0.0
        self._patient_until = 0.0

    def forget(self, now: float, *, heard_for_s: float = 0.0) -> None:
        """What was seen before says nothing. After the broker was away, or was emptied, what ran may run on: workers
        have half a lease's time to be heard of again, of which they had `heard_for_s` already."""
        self._suspects = frozenset()
        self._patient_until = now + self._patience_s - heard_for_s

    def examine(
        self,
        live: Sequence[Live],
        states: Mapping[str, LeaseState],
        queues: Mapping[str, QueueState],
        now: float,
        *,
        messages: Mapping[str, int] | None = None,
    ) -> tuple[Verdict, ...]:
        """Call it only when every report that was there has been settled. `messages` are how many each queue has."""
        offered = [one for one in live if one.offered_at is not None]  # before that nothing is expected of an attempt
        self._look(offered, queues, now, messages or {})
        suspects: set[str] = set()
        verdicts = list(self._verdicts(offered, states, now, suspects))
        self._suspects, self._examined_at = frozenset(suspects), now
        running = [one for one in verdicts if one.finding is Finding.RUNNING]
        others = [one for one in verdicts if one.finding is not Finding.RUNNING]
        return (*running, *others[:MOST_AT_ONCE])

    def _look(
        self, offered: Sequence[Live], queues: Mapping[str, QueueState], now: float, messages: Mapping[str, int]
    ) -> None:
        """Since when each is what it is, and since when its message is in no queue. While no slot is free, nobody could
        have taken it, and that time does not count; what was counted before does, for on a queue with much to do a
        slot is never free for long."""
        busy_s = now - self._examined_at
        since, gone_since = {}, {}
        for one in offered:
            queue = queues.get(one.queue)
            is_stuck = one.status is Status.DISPATCHED and (queue is None or not queue.free_slots)
            shift_s = busy_s if is_stuck else 0.0
            since[one.label, one.status] = min(now, self._since.get((one.label, one.status), now) + shift_s)
            if messages.get(one.queue) == 0:
                gone_since[one.label] = min(now, self._gone_since.get(one.label, now) + shift_s)
        self._since, self._gone_since = since, gone_since

    def _verdicts(
        self, offered: Sequence[Live], states: Mapping[str, LeaseState], now: float, suspects: set[str]
    ) -> Iterator[Verdict]:
        for one in offered:
            state = states[one.label]
            for_s = now - self._since[one.label, one.status]
            if state.holder is not None:
                if one.status is Status.DISPATCHED:
                    yield Verdict(label=one.label, finding=Finding.RUNNING, lease=state.holder)
                elif for_s > one.wall_s + OVERDUE_AFTER_S:
                    yield Verdict(label=one.label, finding=Finding.OVERDUE)
            elif state.is_offered and one.status is Status.DISPATCHED:
                if for_s > self._claim_s or now - self._gone_since.get(one.label, now) > IN_HAND_S:
                    yield Verdict(label=one.label, finding=Finding.UNSENT)
            elif one.label in self._suspects:
                suspects.add(one.label)  # should it be more than are judged at once
                is_running = one.status is Status.RUNNING
                if is_running and now < self._patient_until:
                    continue
                yield Verdict(label=one.label, finding=Finding.LOST if is_running else Finding.UNSENT)
            else:
                suspects.add(one.label)
