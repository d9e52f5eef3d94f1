"""Promises in seconds, judged without the time in which this machine kept its processes waiting.

`make siege` judges the same promises from the farm's record over many minutes, and `make bench` measures speed.
"""

import time
from contextlib import suppress
from pathlib import Path

#: A bound on the time by the clock: ten times the promise, stalls included.
_CLOCK_FACTOR = 10.0
_PRESSURE = [Path("/proc/pressure") / name for name in ("cpu", "io", "memory")]
_TICKS_PER_S = 100.0


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._stalled_s = stalled_s()

    @property
    def clock_s(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def farm_s(self) -> float:
        """The time by the clock without the machine's stalls."""
        clock_s = self.clock_s
        return max(clock_s - (stalled_s() - self._stalled_s), 0.0)

    def within(self, limit_s: float) -> bool:
        """Whether a promise of so many seconds was kept."""
        return self.farm_s < limit_s and self.clock_s < limit_s * _CLOCK_FACTOR


def stalled_s() -> float:
    """For how long since its start this machine had processes that waited for a processor, a disk or memory, or was
    itself kept waiting by its hypervisor. Zero where the kernel does not say."""
    stalls = [_pressure_s(path) for path in _PRESSURE]
    return sum(stalls) + _stolen_s()


def _pressure_s(path: Path) -> float:
    """The total of `some`: https://docs.kernel.org/accounting/psi.html."""
    with suppress(OSError, IndexError, ValueError):
        return int(path.read_text().splitlines()[0].rpartition("total=")[2]) / 1e6
    return 0.0


def _stolen_s() -> float:
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/stat").read_text().splitlines()[0].split()[8]) / _TICKS_PER_S
    return 0.0
