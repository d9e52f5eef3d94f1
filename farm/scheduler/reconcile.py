"""Compares what SQL believes of live attempts with what Redis knows: finds the lost, the unsent and the overdue.

A pure judgement but for what it remembers: an attempt is called lost only when it looks so twice, with all reports
settled in between, since a worker's report comes before its lease ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from farm.leases import LeaseState
from farm.model.outcome import Status
from farm.scheduler.plan import QueueState
from farm.store.scheduling import Live
from farm.store.settling import Finding, Verdict

#: A worker ends a step at its limit itself; this is how much longer it may take about it.
OVERDUE_AFTER = timedelta(seconds=120)
#: Attempts that are sent again or given up at a time: a Redis that was emptied must not stall everything else.
MOST_AT_ONCE = 100


class Reconciler:
    def __init__(self, *, claim_s: int) -> None:
        self._claim = timedelta(seconds=claim_s)
        self._suspects: frozenset[str] = frozenset()

    def forget(self) -> None:
        """What was seen before says nothing: the broker was away."""
        self._suspects = frozenset()

    def examine(
        self,
        live: Sequence[Live],
        states: Mapping[str, LeaseState],
        queues: Mapping[str, QueueState],
        now: datetime,
    ) -> tuple[Verdict, ...]:
        """Call it only when every report that was there has been settled."""
        suspects: set[str] = set()
        verdicts = list(self._verdicts(live, states, queues, now, suspects))
        self._suspects = frozenset(suspects)
        running = [one for one in verdicts if one.finding is Finding.RUNNING]
        others = [one for one in verdicts if one.finding is not Finding.RUNNING]
        return (*running, *others[:MOST_AT_ONCE])

    def _verdicts(
        self,
        live: Sequence[Live],
        states: Mapping[str, LeaseState],
        queues: Mapping[str, QueueState],
        now: datetime,
        suspects: set[str],
    ) -> Iterator[Verdict]:
        for one in live:
            state = states.get(one.label)
            if one.offered_at is None or state is None:
                continue  # an earlier step of its chain runs: nothing is expected of it
            if state.worker is not None:
                if one.status is Status.DISPATCHED:
                    yield Verdict(label=one.label, finding=Finding.RUNNING, worker=state.worker)
                elif one.started_at is not None and _is_overdue(one, one.started_at, now):
                    yield Verdict(label=one.label, finding=Finding.OVERDUE)
            elif state.is_offered and one.status is Status.DISPATCHED:
                queue = queues.get(one.queue)
                if now - one.offered_at > self._claim and queue is not None and queue.free_slots:
                    yield Verdict(label=one.label, finding=Finding.UNSENT)
            elif one.label in self._suspects:
                suspects.add(one.label)  # should it be more than are judged at once
                is_running = one.status is Status.RUNNING
                yield Verdict(label=one.label, finding=Finding.LOST if is_running else Finding.UNSENT)
            else:
                suspects.add(one.label)


def _is_overdue(one: Live, started_at: datetime, now: datetime) -> bool:
    return now - started_at > timedelta(seconds=one.wall_s) + OVERDUE_AFTER
