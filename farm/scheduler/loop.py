"""The scheduler's loop: lead, receive, settle, plan, send, and do the upkeep once a second.

Every decision is elsewhere: what a report changes in farm.store, which steps are sent in plan.py, which attempts are
lost in reconcile.py. Everything that is kept in memory here may be lost at any moment.
"""

import logging
import threading
import time
from datetime import UTC, datetime

import redis

from farm.broker.control import Inbox
from farm.config import Settings
from farm.errors import FarmNotRunning
from farm.scheduler.guard import is_outage
from farm.scheduler.hear import Receiver, frees_a_slot
from farm.scheduler.leader import Leadership, Takeover
from farm.scheduler.parts import open_parts
from farm.scheduler.upkeep import Upkeep

_log = logging.getLogger(__name__)

_LISTEN_S = 0.5
_SILENT_AT_START = 1000  # attempts whose logs the scheduler before may not have kept
_BACKOFF_S = (0.2, 2.0)  # first and longest pause while the broker or the database is away


class Scheduler:
    """Call `run`; everything else is private."""

    def __init__(self, settings: Settings) -> None:
        self._parts = parts = open_parts(settings)
        self._guard = parts.guard
        self._receiver = Receiver(parts.control, parts.admission.admit)
        self._leader = Leadership(
            parts.lock,
            parts.control,
            parts.leases,
            take_over=self._take_over,
            broker_emptied=self._forget_broker,
        )
        self._upkeep = Upkeep(parts, self._leader.renew)

    def run(self, stop: threading.Event) -> None:
        """Schedule until `stop` is set; then settle what has been reported, and return."""
        pause_s, is_away = _BACKOFF_S[0], False
        try:
            while not stop.is_set():
                try:
                    self._pass(stop)
                except Exception as error:
                    if not is_outage(error):
                        # A failure in one pass does not end the scheduler: a sender may have caused it.
                        self._guard.note("pass", error)
                        stop.wait(_BACKOFF_S[0])
                        continue
                    if not is_away:
                        _log.warning("Waiting for broker and database: %s", error, extra={"action": "outage"})
                    is_away = True
                    self._leader.suspend(error)
                    if isinstance(error, redis.OutOfMemoryError):
                        self._upkeep.make_room()
                    stop.wait(pause_s)
                    pause_s = min(pause_s * 2, _BACKOFF_S[1])
                else:
                    if is_away:
                        _log.info("Broker and database are back", extra={"action": "outage-over"})
                    pause_s, is_away = _BACKOFF_S[0], False
        finally:
            self._finish()

    def _pass(self, stop: threading.Event) -> None:
        if not self._leader.is_leader:
            self._leader.acquire(stop)
            return
        self._receiver.gather(stop)
        inbox = self._receiver.receive(timeout_s=max(0.01, min(_LISTEN_S, self._upkeep.wait_s())))
        began_at, now = time.monotonic(), datetime.now(UTC)
        self._leader.renew_when_due()
        self._settle(inbox, now)
        is_due = self._upkeep.wait_s() <= 0
        if is_due and (not inbox.has_more or self._upkeep.is_overdue()):
            self._upkeep.run_round(now)
        if inbox.is_woken:
            self._upkeep.run_on_wake(now)
        if is_due or inbox.is_woken or inbox.notices or any(frees_a_slot(report) for report in inbox.reports):
            self._guard.run("plan", lambda: self._parts.sender.plan(now))
        if inbox.documents:
            self._receiver.note_pass(began_at)

    def _settle(self, inbox: Inbox, now: datetime) -> None:
        self._parts.settler.settle(inbox, now)
        if inbox.documents:
            self._receiver.acknowledge()

    def _take_over(self, takeover: Takeover) -> None:
        parts = self._parts
        if takeover.others_led:  # after a mere outage, this scheduler's own counts are newer
            parts.sender.read_loads()
        parts.reconciler.forget(takeover.at, heard_for_s=takeover.heard_for_s)
        parts.log_keeper.note(parts.store.silent(most=_SILENT_AT_START))
        parts.hosts.forget()
        self._upkeep.run_soon()

    def _forget_broker(self) -> None:
        """Redis was emptied: write and count again everything that it lost."""
        self._parts.reconciler.forget(time.monotonic())
        self._parts.hosts.forget()

    def _finish(self) -> None:
        """Settle what has been reported; send nothing new."""
        try:
            if self._leader.is_leader:
                self._settle_the_rest()
            self._leader.release()
        except (redis.RedisError, FarmNotRunning) as error:
            _log.warning("Ended without settling everything: %s", error, extra={"action": "stop"})
        finally:
            self._parts.close()
        _log.info("Ended", extra={"action": "stop"})

    def _settle_the_rest(self) -> None:
        self._leader.renew()  # if this process was stopped for a while, the new leader has to settle it
        inbox = None
        while inbox is None or inbox.documents:
            inbox = self._receiver.receive(timeout_s=0.05)
            self._settle(inbox, datetime.now(UTC))
        self._parts.sender.record_loads(datetime.now(UTC))
