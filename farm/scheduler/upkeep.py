"""Upkeep: the jobs that the leader does once a second or less often, as a table of job and interval.

The guard runs each job, so that the failure of one does not stop the others.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import redis

from farm.errors import GIVEN, FarmNotRunning, WorkerLost
from farm.model.label import AttemptLabel
from farm.model.outcome import Status
from farm.model.remote import Remote, RemoteKind
from farm.scheduler.parts import Parts
from farm.store.settling import Finding

_log = logging.getLogger(__name__)

_ROUND_S = 1.0
_PROMOTE_AT_ONCE = 200
#: The jobs that a client's nudge asks for: the client cancelled a build, rolled a repository back, or drained a host.
_ON_WAKE = ("close", "heads", "hosts")


@dataclass(frozen=True, kw_only=True)
class Job:
    """`every_s` of one round or less means every round."""

    name: str
    every_s: float
    do: Callable[[datetime], object]


class Upkeep:
    """For the scheduler's thread alone. `renew` renews the leadership, and raises when it is lost; then no job runs."""

    def __init__(self, parts: Parts, renew: Callable[[], None]) -> None:
        self._parts = parts
        self._renew = renew
        self._jobs = {job.name: job for job in self._table()}
        now = time.monotonic()
        self._due_at = {job.name: now + job.every_s for job in self._jobs.values()}
        self._round_at = 0.0

    def _table(self) -> tuple[Job, ...]:
        """The jobs in the order in which they run."""
        parts = self._parts
        return (
            Job(name="room", every_s=5, do=lambda _: self._look_for_room()),
            Job(name="scripts", every_s=1, do=lambda _: parts.leases.load_scripts()),
            Job(name="close-rest", every_s=1, do=lambda _: parts.delivery.close_rest()),
            Job(name="workers", every_s=1, do=lambda _: parts.snapshot.read_workers()),
            Job(name="hosts", every_s=1, do=parts.settler.check_hosts),
            Job(name="heads", every_s=1, do=lambda _: parts.heads.read(parts.store.heads())),
            Job(name="close", every_s=1, do=lambda _: self._close_cancelled()),
            Job(name="promote", every_s=1, do=self._promote),
            Job(name="reconcile", every_s=1, do=self._reconcile),
            Job(name="sweep", every_s=60, do=lambda _: parts.sweeper.sweep(self._live_labels)),
            Job(name="loads", every_s=30, do=parts.sender.record_loads),
        )

    # --- when ---------------------------------------------------------------------------------------------------

    def wait_s(self) -> float:
        """Seconds until the next round; below zero once it is due."""
        return self._round_at - time.monotonic()

    def is_overdue(self) -> bool:
        """A sender that keeps its control list full must not stop the scheduler's other jobs."""
        return self.wait_s() < -_ROUND_S

    def run_soon(self) -> None:
        """The next round is due now."""
        self._round_at = 0.0

    def run_round(self, now: datetime) -> None:
        """Run every job whose interval is over."""
        self._round_at = time.monotonic() + _ROUND_S
        self._renew()
        due = [job for job in self._jobs.values() if job.every_s <= _ROUND_S or self._round_at > self._due_at[job.name]]
        for job in due:
            self._due_at[job.name] = self._round_at + job.every_s
        for job in due:
            self._run(job, now)

    def run_on_wake(self, now: datetime) -> None:
        """Run the jobs that a client waits for."""
        for name in _ON_WAKE:
            self._run(self._jobs[name], now)

    def _run(self, job: Job, now: datetime) -> None:
        self._parts.guard.run(job.name, lambda: job.do(now))

    def make_room(self) -> None:
        """Sweep now, since the broker has no memory left for others. The next sweep makes up for one that fails."""
        with suppress(redis.RedisError, FarmNotRunning):
            self._parts.guard.run("sweep", lambda: self._parts.sweeper.sweep(self._live_labels))

    # --- the longer jobs ----------------------------------------------------------------------------------------

    def _look_for_room(self) -> None:
        if self._parts.leases.is_nearly_full():
            self.make_room()

    def _promote(self, now: datetime) -> None:
        """Make steps ready that waited for a time that has come."""
        self._parts.sender.deliver(self._parts.store.promote_due(now, most=_PROMOTE_AT_ONCE), now)

    def _close_cancelled(self) -> None:
        """End the attempts in Redis that people cancelled in SQL: workers stop them, and waiting clients are told."""
        store = self._parts.store
        if labels := store.closing():
            builds = sorted(
                {found.job_id for label in labels if (found := AttemptLabel.parse_or_none(label)) is not None}
            )
            events = [{"build": build, "step": None, "status": Status.FINISHED} for build in builds]
            self._parts.leases.hand_on(closes=labels, events=events)
            store.closed(labels)
            self._parts.log_keeper.note(labels)

    def _reconcile(self, now: datetime) -> None:
        """Find attempts that are lost, were never sent, or are overdue."""
        parts = self._parts
        with parts.store.read_view() as view:
            live = view.live()
        parts.snapshot.read_queues(live)
        self._parts.guard.run("queues", parts.snapshot.record_queues)
        if not live:
            return
        labels = [one.label for one in live if one.offered_at is not None]
        waiting = {one.queue for one in live if one.offered_at is not None and one.status is Status.DISPATCHED}
        # Messages before leases: an attempt whose message is taken in between is found claimed.
        messages = parts.leases.unclaimed(sorted(waiting))
        states = parts.leases.states(labels)
        verdicts = parts.reconciler.examine(live, states, parts.snapshot.queues, time.monotonic(), messages=messages)
        if not verdicts:
            return
        for verdict in verdicts:
            if verdict.finding is not Finding.RUNNING:
                extra = {"action": verdict.finding.value, "attempt": verdict.label}
                _log.warning("Attempt %s is %s", verdict.label, verdict.finding.value, extra=extra)
        workers = {one.label: one.worker for one in live if one.status is Status.RUNNING}
        owners = {one.label: one.owner for one in live}
        parts.settler.judge(verdicts, now)
        for verdict in verdicts:
            if verdict.finding is Finding.LOST:
                worker, owner = workers.get(verdict.label) or "", owners.get(verdict.label) or ""
                # A package may end a worker on any host.
                remote = Remote(name=GIVEN, kind=RemoteKind.INPUT)
                parts.hosts.note(worker, verdict.label, now, trouble=WorkerLost.code, remote=remote, owner=owner)

    def _live_labels(self) -> frozenset[str]:
        with self._parts.store.read_view() as view:
            return frozenset(one.label for one in view.live())
