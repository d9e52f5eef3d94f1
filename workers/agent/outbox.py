"""Reports on their way to the scheduler: sent, and kept until they are settled.

What was sent may be lost all the same: a Redis that is emptied forgets it. A report that is settled shows by its
attempt being closed, so one that is neither settled nor waiting is sent again; the scheduler drops what it has had.
Until then the lease is kept, since it says whose report it is: a scheduler that was away may never have seen it.
"""

import logging
import threading
import time

from farm import wire
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.errors import FarmNotRunning

_log = logging.getLogger(__name__)

_GIVE_UP_S = 600.0
_LOOK_EVERY_S = 2.0
#: Reports that are kept at most: a scheduler that is away must not fill this process.
_KEPT = 1000
_SENDS = 5


class Outbox:
    """One for a process. Safe to use from several threads."""

    def __init__(self, control: Control, leases: Leases, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._control = control
        self._leases = leases
        self._look_every_s = look_every_s
        self._sent: dict[str, tuple[wire.AnyReport, int]] = {}  # by attempt: the report, how often it was sent
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    def close(self) -> None:
        """What was sent is not looked after any more."""
        self._is_closed.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def send(self, report: wire.AnyReport) -> None:
        """Returns when the broker has it. Raises FarmNotRunning when the broker was away for ten minutes."""
        give_up_at = time.monotonic() + _GIVE_UP_S
        pause_s = 0.1
        while True:
            try:
                self._control.report(report)
                break
            except FarmNotRunning as error:
                if time.monotonic() > give_up_at:
                    raise
                extra = {"action": "report", "attempt": report.attempt}
                _log.warning("Could not report %s yet: %s", report.attempt, error, extra=extra)
                threading.Event().wait(pause_s)
                pause_s = min(pause_s * 2, 1.0)  # a death is to be known within five
        self._keep(report)

    def _keep(self, report: wire.AnyReport) -> None:
        with self._changed:
            if len(self._sent) < _KEPT:
                self._sent[report.attempt] = (report, 1)
            if self._thread is None:
                # Made with the first report, so after the fork.
                self._thread = threading.Thread(target=self._watch, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _watch(self) -> None:
        while not self._is_closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: bool(self._sent) or self._is_closed.is_set())
            if self._is_closed.wait(self._look_every_s):
                return
            try:
                self._look()
            except Exception as error:
                # Mostly the broker is away. Whatever it is, it is looked at again.
                _log.warning("Could not see whether reports were settled: %s", error, extra={"action": "report"})

    def _look(self) -> None:
        with self._changed:
            kept = dict(self._sent)
        # In this order: what was settled in between is found closed.
        is_empty = self._control.is_empty()
        settled = set(self._leases.closed(list(kept)))
        for attempt, (report, sends) in kept.items():
            if attempt not in settled:
                # By its lease the scheduler knows whose report it is, when it did not see the attempt run.
                self._leases.touch(attempt, report.token)
            if attempt not in settled and is_empty and sends < _SENDS:
                extra = {"action": "report-again", "attempt": attempt}
                _log.warning("The report of %s was lost before it was settled; sending it again", attempt, extra=extra)
                self._control.report(report)
                with self._changed:
                    self._sent[attempt] = (report, sends + 1)
            elif attempt in settled or is_empty:
                with self._changed:
                    self._sent.pop(attempt, None)
