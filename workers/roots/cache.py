"""A cache of folders that are made once and used often, by many processes at once: templates and layers.

Owns: the locks, the atomic appearance, the order of use, and the removal of the least recently used folder.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

from farm.errors import RootTrouble, given
from workers.core.locks import LockKind, Pause, lock, open_lock, try_lock, until
from workers.isolation.scratch import attempted, remove_tree, scratch_name, sweep_orphans

_NEW = "new"
_numbers = count(1)


class DirectoryCache:
    """A cache of folders by key. `keep` is the number of unused folders that are kept."""

    def __init__(self, root: Path, *, keep: int) -> None:
        self._root = root
        self._keep = keep

    @contextmanager
    def use(
        self, key: str, make: Callable[[Path], None], *, stop: threading.Event, deadline: float = math.inf
    ) -> Iterator[Path]:
        """The folder of that key, made by `make(empty folder)` if it is missing, and kept from removal meanwhile.

        While one process makes the folder, others wait for it. Raises LeaseLost when `stop` is set, RootTrouble at the
        deadline of time.monotonic()'s clock, and the errors of `make`.
        """
        pause = until(stop, "stopped while waiting for another to make the same root", deadline=deadline)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._root / key
        with self._locked(key, LockKind.SHARED, pause) as descriptor:
            while not path.is_dir():
                _lock(descriptor, LockKind.EXCLUSIVE, pause)
                if not path.is_dir():
                    self._make(path, make)
                _lock(descriptor, LockKind.SHARED, pause)
            with suppress(OSError):
                os.utime(path)
            yield path

    def sweep(self, alive: Path) -> int:
        """Remove the half-made folders of dead workers, and unused folders beyond `keep`. Returns their number. `alive`
        as with `is_orphan`."""
        if not self._root.is_dir():
            return 0
        return sweep_orphans(self._root.iterdir(), _NEW, alive) + self._remove_oldest()

    def shed(self, is_enough: Callable[[], bool]) -> int:
        """Remove unused folders, oldest first, until the answer is yes. Returns their number."""
        if not self._root.is_dir():
            return 0
        removed = 0
        for folder in reversed(self._newest_first()):
            if is_enough():
                break
            removed += attempted(str(folder), partial(self._remove, folder))
        return removed

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        new = self._root / scratch_name(_NEW, next(_numbers))
        new.mkdir(mode=0o700)
        try:
            make(new)
            new.rename(path)
        finally:
            if new.exists():
                remove_tree(new)
        self._remove_oldest()

    def _remove_oldest(self) -> int:
        """Remove unused folders beyond `keep`, oldest first. A folder's lock is beside it, so one in use stays."""
        # A process that makes a new folder must not fail for a fault of an old one.
        old = self._newest_first()[self._keep :]
        return sum(attempted(str(folder), partial(self._remove, folder)) for folder in old)

    def _newest_first(self) -> list[Path]:
        folders = [entry for entry in self._root.iterdir() if entry.is_dir() and not entry.name.startswith(f"{_NEW}-")]
        return sorted(folders, key=_used_at, reverse=True)

    def _remove(self, folder: Path) -> int:
        """Remove the folder unless it is in use. Returns the number of removed folders."""
        path = self._root / f"{folder.name}.lock"
        descriptor = open_lock(path)
        try:
            # If the lock is another file now, a process has just removed the folder, and a third may be making it.
            if not try_lock(descriptor, LockKind.EXCLUSIVE) or not _is_same(descriptor, path):
                return 0
            gone = self._root / scratch_name(_NEW, next(_numbers))
            try:
                folder.rename(gone)
            except FileNotFoundError:  # another process has removed it
                return 0
            finally:
                path.unlink(missing_ok=True)
            remove_tree(gone)
        finally:
            os.close(descriptor)
        return 1

    @contextmanager
    def _locked(self, key: str, kind: LockKind, pause: Pause) -> Iterator[int]:
        """Hold the lock of the key. A sweep may remove the lock file with its folder; then the new file is locked."""
        path = self._root / f"{key}.lock"
        while True:
            descriptor = open_lock(path)
            try:
                _lock(descriptor, kind, pause)
                if _is_same(descriptor, path):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)


def _lock(descriptor: int, kind: LockKind, pause: Pause) -> None:
    try:
        lock(descriptor, kind, pause, trouble=RootTrouble)
    except TimeoutError:
        raise given(RootTrouble("the step's time was over while another one made the same root")) from None


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
