"""Receiving and settling: reports and notices of workers, and verdicts on attempts that did not report.

Not the changes that a report or a verdict makes (farm.store.settling), nor the checks of notices (notices.py).
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime

import redis

from farm import wire
from farm.broker.control import Admit, Control, Inbox
from farm.broker.leases import Leases
from farm.errors import FarmError
from farm.model.remote import Remote
from farm.model.tally import Tally
from farm.scheduler.admit import Admission
from farm.scheduler.guard import Guard
from farm.scheduler.held import HeldHosts
from farm.scheduler.keep_logs import LogKeeper
from farm.scheduler.notices import Notices
from farm.scheduler.send import Sender
from farm.scheduler.snapshot import Snapshot
from farm.steps.registry import build_workflow, queue_of, step_type
from farm.store.settling import Finding, Heard, Verdict
from farm.store.store import Store

_log = logging.getLogger(__name__)
_GATHER_S = 0.03


class Receiver:
    """Receives documents, and lets reports gather while many come: a pass costs little more for many reports than for
    one, and leaves the processor to the builds. Passes take no more than a third of the time; a single report never
    waits for others."""

    def __init__(self, control: Control, admit: Admit) -> None:
        self._control = control
        self._admit = admit
        self._heard_at = 0.0
        self._pass_s = 0.0

    def gather(self, stop: threading.Event) -> None:
        """Wait for more reports if the last pass settled some a moment ago."""
        pause_s = min(_GATHER_S, 2 * self._pass_s)
        since_s = time.monotonic() - self._heard_at
        if since_s < pause_s:
            stop.wait(pause_s - since_s)

    def receive(self, *, timeout_s: float) -> Inbox:
        return self._control.receive(timeout_s=timeout_s, admit=self._admit)

    def acknowledge(self) -> None:
        """Everything that was received is settled."""
        self._control.acknowledge()

    def note_pass(self, began_at: float) -> None:
        """Record that a pass settled documents; it began at `began_at` of time.monotonic()."""
        self._heard_at = time.monotonic()
        self._pass_s = self._heard_at - began_at


class Settler:
    """For the scheduler's thread alone. Methods raise redis.RedisError, and FarmNotRunning while the database is
    away."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        *,
        admission: Admission,
        snapshot: Snapshot,
        sender: Sender,
        hosts: HeldHosts,
        log_keeper: LogKeeper,
        guard: Guard,
    ) -> None:
        self._store = store
        self._admission = admission
        self._snapshot = snapshot
        self._sender = sender
        self._hosts = hosts
        self._log_keeper = log_keeper
        self._guard = guard
        self._notices = Notices(store, leases)
        self._unsettled = Tally()

    def settle(self, inbox: Inbox, now: datetime) -> None:
        """Settle reports, then notices."""
        if inbox.reports:
            heard = self._settle_reports(inbox.reports, now)
            for one in heard:
                found = one.report.trouble
                self._hosts.note(
                    one.worker,
                    one.report.attempt,
                    now,
                    trouble=found.message if found else None,
                    remote=_remote(found),
                    owner=one.owner,
                    package=one.package,
                )
            reports = (one.report for one in heard)
            silent = (one.attempt for one in reports if one.trouble and not one.trouble.artifacts)
            self._log_keeper.note(silent)
        if inbox.notices:
            verdicts: list[Verdict] = self._guard.split("notices", inbox.notices, self._notices.process_notices)
            self.judge(verdicts, now)
            if verdicts:  # a worker that refused an attempt must not be given the next one
                self._guard.run("workers", self._snapshot.read_workers)
                self._guard.run("hosts", lambda: self.check_hosts(now))

    def judge(self, verdicts: Sequence[Verdict], now: datetime) -> None:
        """Apply verdicts on attempts that did not report. A verdict that cannot be applied stops no other."""
        if verdicts:
            self._guard.split("judge", verdicts, lambda some: self._judge_some(some, now))
            self._log_keeper.note(one.label for one in verdicts if one.finding is not Finding.RUNNING)

    def check_hosts(self, now: datetime) -> None:
        """Stop work from going to held hosts, and have the attempts that drained hosts hand back run elsewhere."""
        self.judge(self._hosts.look(self._snapshot.workers, now), now)

    def _settle_reports(self, reports: Sequence[wire.AnyReport], now: datetime) -> Sequence[Heard]:
        """Returns the reports that counted."""
        try:
            leases = self._admission.leases(report.attempt for report in reports)
            committed = self._store.settle(reports, now, self._snapshot.settle_policy(), leases)
            self._sender.deliver(committed, now)
        except (redis.RedisError, FarmError):
            raise
        except Exception:
            # A report that cannot be settled, for any reason, must not stop the others or the scheduler: its attempt
            # is lost when its lease ends.
            if len(reports) == 1:
                if count := self._unsettled.due(queue_of(reports[0].attempt)):
                    extra = {"action": "bad-report", "attempt": reports[0].attempt, "count": count}
                    _log.exception("Dropped a report of %s that cannot be settled", reports[0].attempt, extra=extra)
                return ()
            return [heard for report in reports for heard in self._settle_reports((report,), now)]
        return committed.heard

    def _judge_some(self, verdicts: Sequence[Verdict], now: datetime) -> Sequence[Verdict]:
        self._sender.deliver(self._store.judge(verdicts, now, self._snapshot.settle_policy()), now)
        return verdicts


def _remote(trouble: wire.TroubleReport | None) -> Remote | None:
    return Remote(name=trouble.remote, kind=trouble.remote_kind) if trouble and trouble.remote else None


def frees_a_slot(report: wire.AnyReport) -> bool:
    """False for a step that succeeded and hands its slot to the next step of its chain: no slot becomes free."""
    following = build_workflow().following(report.kind)
    if report.result is None or not report.result.outcome.is_success or following is None or following.is_per_arch:
        return True
    return following.queue(None) != step_type(report.kind).queue(None)
