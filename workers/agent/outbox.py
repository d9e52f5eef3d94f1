"""Reports on their way to the scheduler: sent, and kept until they are settled.

A report can be lost after it was sent, when Redis loses its data. Once a report is settled, its attempt is closed; a
report that is neither settled nor waiting is sent again, and the scheduler drops duplicates. Until then the lease is
kept, since it names the sender of the report: a scheduler that was down may never have seen the attempt run.
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
#: The most reports that are kept: a scheduler that is down must not fill the memory of this process.
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
        """Stop watching the reports that were sent."""
        self._is_closed.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def send(self, report: wire.AnyReport) -> None:
        """Returns once the broker has the report. Raises FarmNotRunning when the broker was down for ten minutes."""
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
                pause_s = min(pause_s * 2, 1.0)  # the farm promises to know of a dead worker within five seconds
        self._keep(report)

    def _keep(self, report: wire.AnyReport) -> None:
        with self._changed:
            if len(self._sent) < _KEPT:
                self._sent[report.attempt] = (report, 1)
            if self._thread is None:
                # Started with the first report, and so after the fork.
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
                # Usually the broker is down. After any error the thread tries again.
                _log.warning("Could not see whether reports were settled: %s", error, extra={"action": "report"})

    def _look(self) -> None:
        with self._changed:
            kept = dict(self._sent)
        # In this order: a report that is settled between the two questions is found closed.
        is_empty = self._control.is_empty()
        settled = set(self._leases.closed(list(kept)))
        for attempt, (report, sends) in kept.items():
            if attempt not in settled:
                # The lease names the sender of the report to a scheduler that did not see the attempt run.
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
