"""Locks between processes and threads: flock on a file, which the kernel drops when its process dies.

Owns the wait for a lock. The caller names the file, and gives a `pause` that ends the wait.
"""

import fcntl
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from farm.errors import LeaseLost, Trouble, disk_errors

_POLL_S = 0.05

#: Called between two tries for a lock. A pause sleeps, or raises to end the wait.
Pause = Callable[[], None]


class LockKind(Enum):
    """Many may share a lock; an exclusive one has a single holder."""

    SHARED = fcntl.LOCK_SH
    EXCLUSIVE = fcntl.LOCK_EX


def until(stop: threading.Event, why: str, *, deadline: float = math.inf) -> Pause:
    """A pause that raises LeaseLost with `why` once `stop` is set, and TimeoutError from `deadline` on, which is a time
    of time.monotonic()'s clock."""

    def pause() -> None:
        if stop.wait(_POLL_S):
            raise LeaseLost(why)
        if time.monotonic() >= deadline:
            raise TimeoutError

    return pause


def try_lock(descriptor: int, kind: LockKind) -> bool:
    """Take the lock if it is free. Raises OSError where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind.value | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int, kind: LockKind, pause: Pause, *, trouble: type[Trouble] = Trouble) -> None:
    """Wait for the lock, or change its kind; a change is not atomic, another process may have the lock in between.

    Raises `trouble` where the file system has no locks, and the errors of `pause`.
    """
    with disk_errors(trouble, "a lock cannot be had"):
        is_had = try_lock(descriptor, kind)
    while not is_had:
        pause()
        with disk_errors(trouble, "a lock cannot be had"):
            is_had = try_lock(descriptor, kind)


@contextmanager
def locked(path: Path, kind: LockKind, pause: Pause, *, trouble: type[Trouble] = Trouble) -> Iterator[int]:
    """Hold the lock of the file, which is made if it is missing. Yields its descriptor. Raises as `lock` does."""
    descriptor = open_lock(path)
    try:
        lock(descriptor, kind, pause, trouble=trouble)
        yield descriptor
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor for `lock`, which the caller closes. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
