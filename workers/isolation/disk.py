"""Watches the disk usage of a command's folder, in bytes and in files, and the free space of the disk."""

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from farm.errors import FarmError
from workers.core.run import Ending, capture

_log = logging.getLogger(__name__)

FLOOR_BYTES = 512 * 2**20  # a command may not bring the disk's free space below this
FLOOR_FILES = 1000  # the same for the number of files that can still be made
_FLOOR_PART = 8  # on a small disk the floor is this part of all its files, since files are made quickly
_FLOOR_FILES_MOST = 20_000
_EVERY_S = 0.1
_WALK_SHARE = 20  # walks take at most one part in this number of the time
_WALK_EVERY_S = 60.0
_WALK_REST_S = 300.0  # the longest pause between walks; a long walk may then take a larger part of the time
_WALK_TIMEOUT_S = 600.0
_WALK_AGAIN_S = 10.0  # the pause after a walk that failed
_LAST_WALK_S = 20.0
_GIVE_BACK_S = 10.0  # how long a command goes on while the one that used most of the disk is ended and removed


@dataclass
class _Gauge:
    """One resource of a disk: bytes or files."""

    limit: int
    floor: int
    over: Ending
    most: Ending
    measured: int = 0
    free: int = 0
    at_start: int | None = None
    then: int = 0  # free at the time of the last measurement
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
        """True if the disk has lost as much as the folder may still grow."""
        return self.then - self.free >= self.limit - self.measured

    @property
    def has_most(self) -> bool:
        """True if the folder used most of the space that was free at the start, and the disk was not low then. Only one
        of two commands that began together can have used more than half of the lost space."""
        return self.has_got_low and self.measured * 2 > (self.at_start or 0)

    @property
    def has_got_low(self) -> bool:
        return self.is_low and (self.at_start or 0) >= self.floor


class DiskWatch:
    """Measures a folder in its own threads while a command runs; `run` asks for the verdict.

    The free space of the disk is read ten times a second, by one system call. The walk over the folder is expensive,
    and runs beside that, once the disk has lost as much as the folder may still grow.

    If several commands fill a disk, the watch ends the command that used most of it. The others go on for a while,
    until the space of that command is free again.
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
        """The verdict on a command that failed by itself, perhaps for want of disk, before the watch could end it: not
        None if the command used most of a disk that is low."""
        try:
            self._look()
        except (OSError, RuntimeError):
            return None
        return self._verdict if self._verdict in (Ending.MOST_OF_DISK, Ending.MOST_OF_FILES) else None

    @property
    def was_low(self) -> bool:
        """True if the disk was low at any time: a command may have failed for this without being its cause. A disk that
        is full at the start may have space at the end, but rpmbuild may have run only half a script by then."""
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
            except (OSError, RuntimeError) as error:  # RuntimeError: a thread could not be started
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
        # Some file systems do not count files, and report 0 of 0.
        self._files.floor = self._floor_of(disk.f_files) if disk.f_files else 0
        self._looks += 1
        self._got_low = self._got_low or self._bytes.is_low or self._files.is_low
        if self._looks == 1:
            return
        low = [gauge for gauge in (self._bytes, self._files) if gauge.is_low]
        if low or self._is_due():
            walker = self._walking()
            if low:  # The cause decides between trouble and failure, but the disk does not wait for long.
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
        """True if the disk has lost as much as the folder may still grow, or after a minute, in which other processes
        may have freed space."""
        now = time.monotonic()
        if now < self._rests_until:
            return False
        is_lost = self._bytes.is_due or (self._files.floor > 0 and self._files.is_due)
        return is_lost or now - self._walked_at >= _WALK_EVERY_S

    def _walking(self) -> threading.Thread:
        """The running walk, or a new one."""
        if self._walker is None or not self._walker.is_alive():
            free = (self._bytes.free, self._files.free)
            walker = threading.Thread(target=self._walk, args=free, name="disk-walk", daemon=True)
            walker.start()
            self._walker = walker
        return self._walker

    def _walk(self, free_bytes: int, free_files: int) -> None:
        """Measure the folder twice; the second walk finds everything in memory. A failed walk leaves the last
        measurement as it is."""
        start = self._walked_at = time.monotonic()
        try:
            self._bytes.measured, self._files.measured = disk_usage(self._folder, self._done)
        except (FarmError, OSError, ValueError, RuntimeError) as error:
            self._rests_until = time.monotonic() + _WALK_AGAIN_S
            if not self._done.is_set():
                _log.warning("Could not measure %s: %s", self._folder, error, extra={"action": "disk-watch"})
        else:
            self._bytes.then, self._files.then = free_bytes, free_files
            rest_s = min((time.monotonic() - start) * _WALK_SHARE, _WALK_REST_S)
            self._rests_until = time.monotonic() + rest_s


def disk_usage(folder: Path, stop: threading.Event | None = None) -> tuple[int, int]:
    """The bytes and the files of a folder on its disk. `du` walks trees deeper than any path can be. Raises FarmError
    if the folder cannot be read, and once `stop` is set."""
    return _measure(folder, "--block-size=1", stop), _measure(folder, "--inodes", stop)


def _measure(folder: Path, unit: str, stop: threading.Event | None) -> int:
    text = capture(
        ["du", "--summarize", unit, "--one-file-system", "--", folder],
        cwd=Path("/"),
        timeout_s=_WALK_TIMEOUT_S,
        limit_bytes=4096,
        ok_codes=(0, 1),  # 1: a file was removed meanwhile
        stop=stop,  # the command has ended, and must not wait for a walk over millions of files
    )
    return int(text.split(b"\t", 1)[0])
