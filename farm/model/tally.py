"""How often things of a kind happened, for logs that a flood must not fill."""

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
        """Count one more of the kind: how many there were if that is worth a line, which is the first, the tenth, the
        hundredth and so on; else 0."""
        with self._lock:
            if len(self._counts) >= _KINDS and kind not in self._counts:
                return 0
            self._counts[kind] += 1
            count = self._counts[kind]
        return count if str(count).strip("0") == "1" else 0
