"""Names of processes that hold when a process id is used again: in scratch folders and in the names of groups."""

import functools
import os
from pathlib import Path


def owner() -> str:
    """The name of this process in scratch folders and groups: pid and start time, so that a reused pid does not
    match."""
    return f"{os.getpid()}-{start_of(os.getpid())}"


def is_alive(pid: int, start: int) -> bool:
    return start_of(pid) == start


def start_of(pid: int) -> int:
    """The process's start in clock ticks since boot; 0 if there is no such process, or if it is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0 if state in (b"Z", b"X") else int(fields[18])
    except (OSError, IndexError, ValueError):
        return 0


@functools.lru_cache(maxsize=1)
def pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
