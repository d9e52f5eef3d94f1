"""The events of a siege, in order: the adversary's actions, the watcher's observations, the stream's requests."""

import threading
import time
from dataclasses import dataclass

_BEFORE_S, _AFTER_S = 30.0, 5.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`at_s` since the siege began. `builds` are those that it is about; empty when it is about all."""

    at_s: float
    who: str
    text: str
    builds: frozenset[int] = frozenset()

    @property
    def shown(self) -> str:
        return f"{self.at_s:8.2f} s  {self.who:<9} {self.text}"


class Timeline:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_at

    def add(self, who: str, text: str, builds: frozenset[int] = frozenset()) -> None:
        with self._lock:
            self._entries.append(Entry(at_s=self.now_s, who=who, text=text, builds=builds))

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries)

    def about(self, build: int | None) -> list[str]:
        """Lines for people: the events of this build, and the adversary's actions meanwhile."""
        entries = self.entries()
        own_s = [entry.at_s for entry in entries if build in entry.builds] or [0.0, self.now_s]
        first_s, last_s = own_s[0] - _BEFORE_S, own_s[-1] + _AFTER_S
        return [
            entry.shown
            for entry in entries
            if build is None
            or build in entry.builds
            or (not entry.builds and entry.who != "stream" and first_s <= entry.at_s <= last_s)
        ]
