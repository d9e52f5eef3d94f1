"""What happened, in order: what the adversary did, what the watcher saw, what the stream asked for."""

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`at_s` since the siege began. `builds` are those that it is about; empty when it is about all."""

    at_s: float
    who: str
    text: str
    builds: frozenset[int] = frozenset()


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
        """Lines for people: what the adversary did, and what happened to this build."""
        chosen = [
            entry
            for entry in self.entries()
            if build is None or build in entry.builds or (not entry.builds and entry.who != "stream")
        ]
        return [f"{entry.at_s:8.2f} s  {entry.who:<9} {entry.text}" for entry in chosen]
