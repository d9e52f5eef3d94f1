"""The watch on how much disk a room uses, in bytes and in files, and on how much the disk has left."""

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from farm.errors import FarmError
from workers.core.run import Ending, capture

_log = logging.getLogger(__name__)

FLOOR_BYTES = 512 * 2**20  # a room may not bring the disk's free space below this
FLOOR_FILES = 1000  # nor the number of files that can still be made
_FLOOR_PART = 8  # of all files that a small disk can have, this part is the floor; what makes files is quick
_FLOOR_FILES_MOST = 20_000
_EVERY_S = 0.1
_WALK_SHARE = 20  # walks take at most one part in this many of the time
_WALK_EVERY_S = 60.0
_WALK_REST_S = 300.0  # at most, and a long walk may then take a larger part
_WALK_TIMEOUT_S = 600.0
_WALK_AGAIN_S = 10.0  # after one that failed
_LAST_WALK_S = 20.0
_GIVE_BACK_S = 10.0  # so long a room waits for another one, which used the most, to be ended and removed


@dataclass
class _Gauge:
    """One thing that a disk has so much of: bytes or files."""

    limit: int
    floor: int
    over: Ending
    most: Ending
    measured: int = 0
    free: int = 0
    at_start: int | None = None
    then: int = 0  # free when what is measured was so
    is_falling: bool = False  # so quickly that it is low within a few looks

    def look(self, free: int) -> None:
        self.is_falling = (self.free - free) * 4 > free - self.floor
        self.free = free
        if self.at_start is None:  # nothing runs yet
            self.at_start = self.then = free

    @property
    def is_low(self) -> bool:
        return self.free < self.floor

    @property
    def is_due(self) -> bool:
        """Whether the disk has lost as much as the folder may still grow."""
        return self.then - self.free >= self.limit - self.measured

    @property
    def has_most(self) -> bool:
        """Whether the folder used most of what the disk had before, which was not low then. That is more than half of
        what was lost meanwhile, too, so no two rooms that began together have it."""
        return self.has_got_low and self.measured * 2 > (self.at_start or 0)

    @property
    def has_got_low(self) -> bool:
        return self.is_low and (self.at_start or 0) >= self.floor


class DiskWatch:
    """Measures a folder while a command runs, from threads of its own, and is asked for its verdict by `run`.

    What the disk has left is looked at ten times a second, by one system call; the walk over the folder is dear, and
    runs beside that, when the disk has lost what the folder may still use.

    Of several rooms on a disk that gets low, the one that used most of it is ended for that. The others go on for a
    while, in which that one gives back what it used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int,
        limit_files: int = 2**40,
        floor_bytes: int = FLOOR_BYTES,
        floor_files: int = FLOOR_FILES,
    ) -> None:
        self._folder = folder
        self._floor_files = floor_files
        self._bytes = _Gauge(limit=limit_bytes, floor=floor_bytes, over=Ending.OVER_DISK, most=Ending.MOST_OF_DISK)
        self._files = _Gauge(limit=limit_files, floor=0, over=Ending.OVER_FILES, most=Ending.MOST_OF_FILES)
        self._verdict: Ending | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)
        self._walker: threading.Thread | None = None
        self._walked_at = time.monotonic()
        self._rests_until = 0.0
        self._low_since: float | None = None
        self._got_low = False
        self._lock = threading.Lock()
        self._looks = 0

    def verdict(self) -> Ending | None:
        return self._verdict

    def last_word(self) -> Ending | None:
        """For a command that failed by itself, perhaps for want of disk, and quicker than the watch: whether it used
        most of a disk that is low."""
        try:
            self._look()
        except (OSError, RuntimeError):
            return None
        return self._verdict if self._verdict in (Ending.MOST_OF_DISK, Ending.MOST_OF_FILES) else None

    @property
    def was_low(self) -> bool:
        """Whether the disk was low at any time, which may be why a command failed, and not by its own doing. A disk
        that is full when a command starts may have room by its end: rpmbuild may then have run half a script."""
        return self._got_low

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
            is_falling = self._bytes.is_falling or self._files.is_falling
            if self._done.wait(_EVERY_S / 10 if is_falling else _EVERY_S):
                return

    def _look(self) -> None:
        with self._lock:
            self._look_alone()

    def _look_alone(self) -> None:
        if self._verdict is not None:
            return
        disk = os.statvfs(self._folder)
        self._bytes.look(disk.f_bavail * disk.f_frsize)
        self._files.look(disk.f_favail)
        # Some file systems do not count files, and say 0 of 0.
        self._files.floor = self._floor_of(disk.f_files) if disk.f_files else 0
        self._looks += 1
        self._got_low = self._got_low or self._bytes.is_low or self._files.is_low
        if self._looks == 1:
            return
        low = [gauge for gauge in (self._bytes, self._files) if gauge.is_low]
        if low or self._is_due():
            walker = self._walking()
            if low:  # Whose doing it is decides between trouble and failure, but the disk does not wait for long.
                walker.join(_LAST_WALK_S)
        self._verdict = self._found(low)

    def _found(self, low: list[_Gauge]) -> Ending | None:
        for gauge in (self._bytes, self._files):
            if gauge.measured > gauge.limit:
                return gauge.over
        if not low:
            return None
        self._low_since = self._low_since or time.monotonic()
        for gauge in low:
            if gauge.has_most:
                return gauge.most
        is_over = time.monotonic() - self._low_since > _GIVE_BACK_S
        return Ending.DISK_FULL if is_over else None

    def _floor_of(self, files: int) -> int:
        return max(self._floor_files, min(files // _FLOOR_PART, _FLOOR_FILES_MOST))

    def _is_due(self) -> bool:
        """When the disk has lost as much as the folder may still grow, or a minute has passed, in which others may have
        given space back."""
        now = time.monotonic()
        if now < self._rests_until:
            return False
        is_lost = self._bytes.is_due or (self._files.floor > 0 and self._files.is_due)
        return is_lost or now - self._walked_at >= _WALK_EVERY_S

    def _walking(self) -> threading.Thread:
        """The walk that is under way, or a new one."""
        if self._walker is None or not self._walker.is_alive():
            free = (self._bytes.free, self._files.free)
            walker = threading.Thread(target=self._walk, args=free, name="disk-walk", daemon=True)
            walker.start()
            self._walker = walker
        return self._walker

    def _walk(self, free_bytes: int, free_files: int) -> None:
        """A walk that fails leaves what the last one measured. The second one finds all in memory."""
        start = self._walked_at = time.monotonic()
        try:
            self._bytes.measured = self._measure("--block-size=1")
            self._files.measured = self._measure("--inodes")
        except (FarmError, OSError, ValueError, RuntimeError) as error:
            self._rests_until = time.monotonic() + _WALK_AGAIN_S
            if not self._done.is_set():
                _log.warning("Could not measure %s: %s", self._folder, error, extra={"action": "disk-watch"})
        else:
            self._bytes.then, self._files.then = free_bytes, free_files
            rest_s = min((time.monotonic() - start) * _WALK_SHARE, _WALK_REST_S)
            self._rests_until = time.monotonic() + rest_s

    def _measure(self, unit: str) -> int:
        """On disk. `du` walks trees deeper than any path can be."""
        text = capture(
            ["du", "--summarize", unit, "--one-file-system", "--", self._folder],
            cwd=Path("/"),
            timeout_s=_WALK_TIMEOUT_S,
            limit_bytes=4096,
            ok_codes=(0, 1),  # 1: something went away meanwhile
            stop=self._done,  # what is watched is over, and nobody is to wait for a walk over millions of files
        )
        return int(text.split(b"\t", 1)[0])
