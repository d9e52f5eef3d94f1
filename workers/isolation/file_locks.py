"""Finds a command that fills the kernel's memory with locks on parts of files, which no cgroup counts.

/proc/locks has a line for each lock of the host, the newest of each processor first. It takes the kernel long to list
millions, so only the beginning is read, and only after the kernel's memory has grown by as much as a command may take.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from farm.model.target import Limits
from workers.core.run import Ending
from workers.isolation.cgroups import Cgroup, members
from workers.isolation.sockets import kernel_bytes

_EVERY_S = 1.0
_READ_BYTES = 2**20
_FILES = 100_000
#: The beginning of the list has room for three times as many. Programs hold some hundred locks at a time.
_MOST = 5000
#: The kernel writes this in place of a process if the lock belongs to an open file.
_NO_PID = "-1"


class LockWatch:
    """Looks once a second, and at little more than one number while all is well."""

    def __init__(self, group: Cgroup | None, limits: Limits) -> None:
        """Without a group nothing is watched."""
        self._group = group
        self._limit_bytes = kernel_bytes(limits)
        self._before_bytes = _kernel_memory_bytes()
        self._look_at = 0.0

    def verdict(self) -> Ending | None:
        """OVER_LOCKS once the command holds thousands of locks while the kernel's memory grows."""
        if self._group is None or time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + _EVERY_S
        if _kernel_memory_bytes() - self._before_bytes < self._limit_bytes:
            return None
        return Ending.OVER_LOCKS if self._held(members(self._group.joins[0].parent)) > _MOST else None

    def _held(self, pids: Iterable[int]) -> int:
        """The locks of these processes and of their open files, among those that are read."""
        processes = {str(pid) for pid in pids}
        found = list(_locks())
        held = sum(pid in processes for pid, _ in found)
        if held <= _MOST and sum(pid == _NO_PID for pid, _ in found) > _MOST:
            files = set(islice(_open_files(processes), _FILES))
            held += sum(pid == _NO_PID and file in files for pid, file in found)
        return held


def _locks() -> Iterator[tuple[str, str]]:
    """The process and the file of each lock, as the kernel writes them."""
    text = b""
    with suppress(OSError), Path("/proc/locks").open("rb", buffering=0) as lines:
        while len(text) < _READ_BYTES and (part := lines.read(2**16)):
            text += part
    for line in text.decode(errors="replace").splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[1] != "->":
            yield fields[4], fields[5]


def _open_files(pids: Iterable[str]) -> Iterator[str]:
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - up to thousands of them
                with suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116
                    yield f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def _kernel_memory_bytes() -> int:
    """The kernel's memory that it cannot take back, on the whole host; 0 if it does not say."""
    with suppress(OSError, IndexError, ValueError), Path("/proc/meminfo").open() as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("SUnreclaim:")) * 1024
    return 0
