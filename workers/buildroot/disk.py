"""The watch on how much disk a room uses, and on how much the disk has left."""

import logging
import os
import threading
import time
from pathlib import Path

from farm.errors import FarmError
from workers.run import Ending, capture

_log = logging.getLogger(__name__)

FLOOR_BYTES = 512 * 2**20  # a room may not bring the disk's free space below this
FLOOR_FILES = 1000  # nor the number of files that can still be made
_EVERY_S = 1.0
_WALK_SHARE = 20  # walks take at most one part in this many of the time
_WALK_EVERY_S = 60.0
_WALK_REST_S = 300.0  # at most, and a long walk may then take a larger part
_WALK_TIMEOUT_S = 600.0
_WALK_AGAIN_S = 10.0  # after one that failed
_LAST_WALK_S = 20.0


class DiskWatch:
    """Measures a folder while a command runs, from threads of its own, and is asked for its verdict by `run`.

    What the disk has left is looked at every second; the walk over the folder is dear, and runs beside that. The first
    look comes after a second, so what is quick costs nothing.
    """

    def __init__(
        self, folder: Path, *, limit_bytes: int, floor_bytes: int = FLOOR_BYTES, floor_files: int = FLOOR_FILES
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._floor_bytes = floor_bytes
        self._floor_files = floor_files
        self._verdict: Ending | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)
        self._walker: threading.Thread | None = None
        self._measured_bytes = 0
        self._free_then: int | None = None  # when what is measured was so
        self._walked_at = time.monotonic()
        self._rests_until = 0.0

    def verdict(self) -> Ending | None:
        return self._verdict

    def __enter__(self) -> "DiskWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._walker:
            self._walker.join()

    def _watch(self) -> None:
        has_failed = False
        while self._verdict is None:
            try:
                self._look()
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread could be started
                if not has_failed:
                    _log.warning("Could not look at %s: %s", self._folder, error, extra={"action": "disk-watch"})
                has_failed = True
            if self._done.wait(_EVERY_S):
                return

    def _look(self) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if self._free_then is None:  # nothing runs yet
            self._free_then = free
            return
        # Some file systems do not count files, and say 0 of 0.
        is_low = free < self._floor_bytes or bool(disk.f_files and disk.f_favail < self._floor_files)
        if is_low or self._is_due(free, self._free_then):
            walker = self._walking(free)
            if is_low:  # Whose doing it is decides between trouble and failure, but the disk does not wait for long.
                walker.join(_LAST_WALK_S)
        if self._measured_bytes > self._limit_bytes:
            self._verdict = Ending.OVER_DISK
        elif is_low:
            self._verdict = Ending.DISK_FULL

    def _is_due(self, free: int, free_then: int) -> bool:
        """When the disk has lost as much as the folder may still grow, or a minute has passed, in which others may have
        given space back."""
        now = time.monotonic()
        if now < self._rests_until:
            return False
        return free_then - free >= self._limit_bytes - self._measured_bytes or now - self._walked_at >= _WALK_EVERY_S

    def _walking(self, free: int) -> threading.Thread:
        """The walk that is under way, or a new one."""
        if self._walker is None or not self._walker.is_alive():
            walker = threading.Thread(target=self._walk, args=(free,), name="disk-walk", daemon=True)
            walker.start()
            self._walker = walker
        return self._walker

    def _walk(self, free: int) -> None:
        """A walk that fails leaves what the last one measured."""
        start = self._walked_at = time.monotonic()
        try:
            self._measured_bytes = self._measure()
        except (FarmError, OSError, ValueError, RuntimeError) as error:
            self._rests_until = time.monotonic() + _WALK_AGAIN_S
            if not self._done.is_set():
                _log.warning("Could not measure %s: %s", self._folder, error, extra={"action": "disk-watch"})
        else:
            self._free_then = free
            rest_s = min((time.monotonic() - start) * _WALK_SHARE, _WALK_REST_S)
            self._rests_until = time.monotonic() + rest_s

    def _measure(self) -> int:
        """Bytes on disk. `du` walks trees deeper than any path can be."""
        text = capture(
            ["du", "--summarize", "--block-size=1", "--one-file-system", "--", self._folder],
            cwd=Path("/"),
            timeout_s=_WALK_TIMEOUT_S,
            limit_bytes=4096,
            ok_codes=(0, 1),  # 1: something went away meanwhile
            stop=self._done,  # what is watched is over, and nobody is to wait for a walk over millions of files
        )
        return int(text.split(b"\t", 1)[0])
