"""Counts events by kind, so that a flood of them does not fill a log."""

import threading
from collections import Counter
from collections.abc import Hashable

_KINDS = 1000


class Tally:
    """Counts by kind, at most a thousand kinds. Safe to use from several threads."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def due(self, kind: Hashable) -> int:
        """Count one more of the kind; return the count if it deserves a log line (1, 10, 100 and so on), else 0."""
        with self._lock:
            if len(self._counts) >= _KINDS and kind not in self._counts:
                return 0
            self._counts[kind] += 1
            count = self._counts[kind]
        return count if str(count).strip("0") == "1" else 0
