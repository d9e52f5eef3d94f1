"""Keeps the logs of attempts that ended without a report: cancelled, handed back, lost with their worker.

What was shown live of such a log is in Redis for a few minutes; here it becomes an artifact, so that it can be read for
as long as any other. What Redis does not have any more is gone.
"""

import logging
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import FarmError
from farm.leases import Leases
from farm.model.artifact import ArtifactKind
from farm.store.store import Store

_log = logging.getLogger(__name__)

#: A worker that was told to stop shows the end of its log within this time.
_WRITTEN_WITHIN_S = 4.0
_AT_ONCE = 50
_END = b"\n[farm] the log ends here: the attempt ended without a report\n"


class Salvager:
    """For the scheduler's thread alone."""

    def __init__(self, settings: Settings, leases: Leases, store: Store) -> None:
        self._artifacts = open_store(settings)
        self._leases = leases
        self._store = store
        self._due: dict[str, float] = {}

    def note(self, labels: Iterable[str]) -> None:
        """These attempts ended without a report of theirs, or may have."""
        at = time.monotonic() + _WRITTEN_WITHIN_S
        for label in labels:
            self._due.setdefault(label, at)

    def salvage(self) -> None:
        """Keep the logs whose time has come, some of them. Raises redis.RedisError and FarmNotRunning."""
        now = time.monotonic()
        for label in [label for label, at in self._due.items() if at <= now][:_AT_ONCE]:
            if data := self._leases.read_log(label, 0):
                self._keep(label, data)
            del self._due[label]

    def _keep(self, label: str, data: bytes) -> None:
        _, *where, _ = label.split(".")
        try:
            with tempfile.TemporaryDirectory(prefix="farm-log-") as name:
                path = Path(name) / "log"
                path.write_bytes(data + _END)
                artifact = self._artifacts.put(path, name=f"{'.'.join(where)}.log", kind=ArtifactKind.LOG)
        except (FarmError, OSError) as error:
            extra = {"action": "salvage", "attempt": label}
            _log.warning("The log of %s could not be kept: %s", label, error, extra=extra)
            return
        if self._store.keep_log(label, artifact):
            _log.info("Kept what is known of the log of %s", label, extra={"action": "salvage", "attempt": label})
