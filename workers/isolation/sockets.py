"""Watches the kernel's memory for the sockets of a command, which no cgroup counts.

The messages that wait in netlink sockets, connections that no process has accepted, and filters of sockets are the
kernel's own memory. A recipe can fill the memory of a host with them while its group has used a few MiB.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from farm.model.target import Limits
from workers.core.run import Ending
from workers.isolation.cgroups import Cgroup, members

_PART = 8
_EVERY_S = 0.5
#: The kernel's memory for one socket without its messages. A filter of the longest kind takes half of it.
_SOCKET_BYTES = 64 * 2**10
_LEAST_BYTES = 64 * 2**20
_RMEM = 4  # the column of /proc/net/netlink with the bytes that wait


def kernel_bytes(limits: Limits) -> int:
    """The most of the kernel's memory that sockets may take beside the memory limit, and locks of files likewise."""
    return max(limits.memory_bytes // _PART, _LEAST_BYTES)


class SocketWatch:
    """Looks at all network namespaces of a group but the worker's own, twice a second."""

    def __init__(self, group: Cgroup | None, limits: Limits) -> None:
        """Without a group nothing is watched."""
        self._group = group
        self._limit_bytes = kernel_bytes(limits)
        self._look_at = 0.0
        self._own = _namespace("self")

    def verdict(self) -> Ending | None:
        """OVER_SOCKETS once the sockets have more than their part of the memory."""
        if self._group is None or time.monotonic() < self._look_at:
            return None
        used = sum(self._used_bytes(pid) for pid in self._one_of_each(self._group))
        self._look_at = time.monotonic() + _EVERY_S
        return Ending.OVER_SOCKETS if used > self._limit_bytes else None

    def _one_of_each(self, group: Cgroup) -> Iterator[str]:
        """A process of each namespace."""
        seen = {self._own, None}
        for pid in members(group.joins[0].parent):
            if (namespace := _namespace(str(pid))) not in seen:
                seen.add(namespace)
                yield str(pid)

    def _used_bytes(self, pid: str) -> int:
        """An estimate; 0 for a process that has ended."""
        net = Path("/proc", pid, "net")
        with suppress(OSError, ValueError, IndexError):
            sockets = int((net / "sockstat").read_text().split(maxsplit=3)[2])
            used = sockets * _SOCKET_BYTES
            # The file has a line for each socket, so it is read only while they are few.
            return used if used > self._limit_bytes else used + _waiting_bytes(net / "netlink")
        return 0


def _waiting_bytes(netlink: Path) -> int:
    with netlink.open("rb") as lines:
        next(lines, None)
        return sum(int(line.split(maxsplit=_RMEM + 1)[_RMEM]) for line in lines)


def _namespace(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116 - for each process of a build, twice a second
    except OSError:
        return None
