"""Keeps the logs of attempts that ended without a report: cancelled, handed back, lost with their worker.

Redis has the part of such a log that was shown live, for a few minutes. It becomes an artifact here, and can then be
read for as long as any other. The part that Redis has dropped is lost.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import redis

from farm.artifacts import open_store
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import FarmError, FarmNotRunning
from farm.model.artifact import ArtifactKind
from farm.model.label import AttemptLabel
from farm.store.store import Store

_log = logging.getLogger(__name__)

#: A worker that was told to stop shows the end of its log within this time.
_WRITTEN_WITHIN_S = 4.0
_LOOK_EVERY_S = 1.0
_CLOSE_S = 5.0
_AWAY = (redis.ConnectionError, redis.TimeoutError, FarmNotRunning)
#: The logs of later attempts of a step are not kept, unless the attempts report.
_ATTEMPTS_KEPT = 20
_END = b"\n[farm] the log ends here: the attempt ended without a report\n"


class LogKeeper:
    """Works in a thread of its own: an artifact store that hangs, as one on a network may, delays nothing else.

    `note` is for the scheduler's thread. A log that a takeover leaves to two schedulers at once is kept once.
    """

    def __init__(self, settings: Settings, leases: Leases, store: Store) -> None:
        self._artifacts = open_store(settings)
        self._leases = leases
        self._store = store
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, labels: Iterable[str]) -> None:
        """Keep the logs of these attempts, which ended without a report, or may have."""
        at = time.monotonic() + _WRITTEN_WITHIN_S
        with self._lock:
            for label in labels:
                self._due.setdefault(label, at)
        if self._thread is None and self._due:
            self._thread = threading.Thread(target=self._run, name="keep-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread. The next scheduler finds in SQL the attempts whose logs have not been kept."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._is_closed.wait(_LOOK_EVERY_S):
            try:
                self._keep_due()
            except _AWAY as error:
                _log.debug("No logs are kept for now: %s", error, extra={"action": "keep-log"})

    def _keep_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [label for label, at in self._due.items() if at <= now]
        for label in due:
            if self._is_closed.is_set():
                return
            try:
                # Any worker may name an attempt in a notice: only SQL says whether the attempt exists.
                if _is_early(label) and self._store.is_silent(label) and (data := self._leases.read_log(label, 0)):
                    self._keep(label, data)
            except _AWAY:
                raise
            except Exception:
                # A log that cannot be kept, for any reason, must not stop the others from being kept.
                extra = {"action": "keep-log", "attempt": label}
                _log.exception("The log of %s could not be kept", label, extra=extra)
            with self._lock:
                del self._due[label]

    def _keep(self, label: str, data: bytes) -> None:
        step = AttemptLabel.parse(label).step_name
        try:
            with tempfile.TemporaryDirectory(prefix="farm-log-") as name:
                path = Path(name) / "log"
                path.write_bytes(data + _END)
                artifact = self._artifacts.put(path, name=f"{step}.log", kind=ArtifactKind.LOG)
        except (FarmError, OSError) as error:
            extra = {"action": "keep-log", "attempt": label}
            _log.warning("The log of %s could not be kept: %s", label, error, extra=extra)
            return
        if self._store.keep_log(label, artifact):
            _log.info("Kept the known part of the log of %s", label, extra={"action": "keep-log", "attempt": label})


def _is_early(label: str) -> bool:
    """Whether it is one of a step's first attempts. A worker that hands a step back again and again makes many."""
    attempt = AttemptLabel.parse_or_none(label)
    return attempt is not None and attempt.number <= _ATTEMPTS_KEPT
