"""Compares SQL's record of live attempts with Redis: finds attempts that are lost, unsent or overdue.

It has no side effects, but remembers what it saw: an attempt is lost only when it looks lost twice, with all reports
settled in between, since a worker's report comes before its lease ends. No attempt that ran is called lost while its
worker may still come back to a Redis that was away or has forgotten it. Durations are counted on the monotonic clock,
from the first time that a state was seen: SQL's times were written by clocks that may have been wrong.
"""

from collections.abc import Iterator, Mapping, Sequence

from farm.broker.leases import LeaseState
from farm.model.label import AttemptLabel
from farm.model.outcome import Status
from farm.scheduler.plan import QueueState
from farm.store.read_view import Live
from farm.store.settling import Finding, Verdict

#: A worker ends a step at its limit by itself, and may take so much longer to do it.
OVERDUE_AFTER_S = 120
#: Attempts that one pass sends again or calls lost: a Redis that was emptied must not stall everything else.
MOST_AT_ONCE = 100
#: How long a message may be neither in its queue nor claimed: a worker needs milliseconds to claim it.
IN_HAND_S = 5
#: So many messages of a step in a row that no worker claimed are trouble of the step, whose tries have a limit: a host
#: that takes messages and claims none must not keep a step from its end.
TAKEN_AT_MOST = 10
_REMEMBERED = 10_000  # steps


class Reconciler:
    """Times are seconds of time.monotonic()."""

    def __init__(self, *, claim_s: int, lease_s: int) -> None:
        self._claim_s = claim_s
        # Workers renew every sixth of a lease, and ask every second once they know; a short lease gives less time.
        self._patience_s = max(lease_s / 2, min(lease_s, 10))
        self._suspects: frozenset[str] = frozenset()
        self._since: dict[tuple[str, Status], float] = {}
        self._gone_since: dict[str, float] = {}
        self._taken: dict[str, int] = {}  # by step: how many of its messages no worker claimed
        self._examined_at = 0.0
        self._patient_until = 0.0

    def forget(self, now: float, *, heard_for_s: float = 0.0) -> None:
        """Forget what was seen before the broker was away, or was emptied. Attempts may still run: their workers have
        half a lease's time to renew, of which `heard_for_s` has passed already."""
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
        """Call it only when every received report has been settled. `messages` counts the messages in each queue."""
        offered = [one for one in live if one.offered_at is not None]  # before its offer an attempt cannot be late
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
        """Record since when each attempt has its status, and since when its message is in no queue. Time while no slot
        is free does not count, since no worker could take the message. Time counted before that does: on a busy queue
        no slot is free for long."""
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
                    self._taken.pop(AttemptLabel.parse(one.label).step, None)
                    yield Verdict(label=one.label, finding=Finding.RUNNING, lease=state.holder)
                elif for_s > one.wall_s + OVERDUE_AFTER_S:
                    yield Verdict(label=one.label, finding=Finding.OVERDUE)
            elif state.is_offered and one.status is Status.DISPATCHED:
                if now - self._gone_since.get(one.label, now) > IN_HAND_S:
                    yield self._unclaimed(one)
                elif for_s > self._claim_s:
                    yield Verdict(label=one.label, finding=Finding.UNSENT)
            elif one.label in self._suspects:
                suspects.add(one.label)  # in case there are more than MOST_AT_ONCE
                is_running = one.status is Status.RUNNING
                if is_running and now < self._patient_until:
                    continue
                yield Verdict(label=one.label, finding=Finding.LOST) if is_running else self._unclaimed(one)
            else:
                suspects.add(one.label)

    def _unclaimed(self, one: Live) -> Verdict:
        """Its message or its offer is gone, and no worker claimed it."""
        step = AttemptLabel.parse(one.label).step
        count = self._taken.pop(step, 0) + 1
        if count < TAKEN_AT_MOST:
            while len(self._taken) >= _REMEMBERED:
                del self._taken[next(iter(self._taken))]
            self._taken[step] = count
            return Verdict(label=one.label, finding=Finding.UNSENT)
        words = f"unclaimed: it was sent to the queue {one.queue} {count} times, and no worker claimed it, though each"
        words += " message was taken; look for a host there that takes messages and runs nothing, and stop its workers"
        return Verdict(label=one.label, finding=Finding.UNCLAIMED, message=words)
