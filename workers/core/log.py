"""An attempt's log: the output of tools in a file as it comes, capped, with a marker line where it was cut.

A separate index gives lines their time: pairs of milliseconds since the start and byte offset. The log itself thus
stays exactly as the tools wrote it. A longer step has a coarser index, so that its memory is bounded.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

CUT = b"\n[farm] the log reached its limit of %d bytes; the rest is not kept\n"
_STAMP_EVERY_S = 0.05  # at first; doubled each time that there are MAX_STAMPS
MAX_STAMPS = 20_000


class StepLog:
    """Safe to write to from several threads."""

    def __init__(self, path: Path, *, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.is_cut = False
        self.size_bytes = 0
        self._clock = clock
        self.last_write_at = clock()
        self.stamps: list[tuple[int, int]] = []
        self._start = self.last_write_at
        self._stamped_at = self.last_write_at - _STAMP_EVERY_S
        self._stamp_every_s = _STAMP_EVERY_S
        self._lock = threading.Lock()
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append the output of a tool. At the limit one marker line is written, and the rest is dropped."""
        with self._lock:
            self.last_write_at = now = self._clock()
            if self.is_cut or not data:
                return
            if now - self._stamped_at >= self._stamp_every_s:
                self._stamp(now)
            room = self.limit_bytes - self.size_bytes
            if len(data) > room:
                self.is_cut = True
                data = data[:room] + CUT % self.limit_bytes
            self._file.write(data)
            self.size_bytes += len(data)

    def _stamp(self, now: float) -> None:
        self._stamped_at = now
        if len(self.stamps) >= MAX_STAMPS:
            del self.stamps[1::2]
            self._stamp_every_s *= 2
        self.stamps.append((int((now - self._start) * 1000), self.size_bytes))

    def note(self, text: str) -> None:
        """Append a line of the farm itself."""
        self.write(f"[farm] {text}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
