"""Scratch folders: removing whole trees of hostile content, and the watch on how much disk a room uses.

Owns the measuring and the removing. Does not own where scratch lies, nor what a room puts into it.
"""

import os
import shutil
import threading
from itertools import count
from pathlib import Path

from farm.errors import LeaseLost, RootTrouble
from workers.buildroot.cgroups import is_alive, owner
from workers.run import CommandFailed, Ending, capture

FLOOR_BYTES = 512 * 2**20  # a room may not bring the disk's free space below this
_EVERY_S = 1.0
_MEASURE_SHARE = 20  # measuring takes at most one part in this many of the time
_REMOVE_TIMEOUT_S = 600.0
_MEASURE_TIMEOUT_S = 120.0
_SMALL_ENTRIES = 200
_SMALL_LEVELS = 5


def room_name(prefix: str, number: int) -> str:
    """A folder name that tells who made it, so that `sweep` knows when its maker is dead."""
    return f"{prefix}-{owner()}-{number}"


def is_orphan(name: str, prefix: str) -> bool:
    """Whether a folder of that name was made by a worker that is dead."""
    parts = name.removeprefix(f"{prefix}-").split("-")
    return (
        name.startswith(f"{prefix}-") and len(parts) == 3 and all(part.isdigit() for part in parts)
    ) and not is_alive(int(parts[0]), int(parts[1]))


def remove_tree(path: Path) -> None:
    """Remove a tree that a recipe filled: of any depth, with any names, without following links or leaving the file
    system. Raises RootTrouble when something stays.

    What is small goes at once; for the rest `rm` is started, which takes longer to start than most steps' folders to
    remove, but is at home in trees of any depth.
    """
    if _removed_small(path):
        return
    try:
        capture(
            ["rm", "-rf", "--one-file-system", "--", path],
            cwd=Path("/"),
            timeout_s=_REMOVE_TIMEOUT_S,
            limit_bytes=4096,
        )
    except CommandFailed as error:
        raise RootTrouble(f"{path} cannot be removed: {error}; look for mounts below it") from error


def _removed_small(path: Path) -> bool:
    """Whether the tree was few things in few levels, and is gone. Nothing is followed, and no file system left."""
    budget = count(_SMALL_ENTRIES, -1)

    def is_cleared(folder: Path, levels: int, device: int) -> bool:
        with os.scandir(folder) as entries:
            for entry in entries:
                if next(budget) <= 0:
                    return False
                inner = Path(entry.path)
                if not entry.is_dir(follow_symlinks=False):
                    inner.unlink()
                elif (
                    not levels
                    or entry.stat(follow_symlinks=False).st_dev != device
                    or not is_cleared(inner, levels - 1, device)
                ):
                    return False
        folder.rmdir()
        return True

    try:
        return is_cleared(path, _SMALL_LEVELS, path.lstat().st_dev)
    except OSError:
        return False


class DiskWatch:
    """Measures a folder while a command runs, from a thread of its own, and is asked for its verdict by `run`.

    The first look comes after a second, so what is quick costs nothing.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, floor_bytes: int = FLOOR_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._floor_bytes = floor_bytes
        self._verdict: Ending | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)

    def verdict(self) -> Ending | None:
        return self._verdict

    def __enter__(self) -> "DiskWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        """The walk over the folder is dear, so it waits until the disk has lost as much as the folder may still grow,
        or a minute has passed, in which others may have given space back."""
        wait_s, measured_bytes, free_then, looks = _EVERY_S, 0, self._free_bytes(), 0
        while self._verdict is None and not self._done.wait(wait_s):
            free = self._free_bytes()
            looks += 1
            is_low = free < self._floor_bytes
            if free_then - free < self._limit_bytes - measured_bytes and looks % 60 and not is_low:
                continue
            measured_bytes, took_s = self._measure()
            free_then, wait_s = free, max(_EVERY_S, took_s * _MEASURE_SHARE)
            if measured_bytes > self._limit_bytes:
                self._verdict = Ending.OVER_DISK
            elif is_low:
                self._verdict = Ending.DISK_FULL

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _measure(self) -> tuple[int, float]:
        """Bytes on disk, and the seconds it took. `du` walks trees deeper than any path can be."""
        start = os.times().elapsed
        try:
            text = capture(
                ["du", "--summarize", "--block-size=1", "--one-file-system", "--", self._folder],
                cwd=Path("/"),
                timeout_s=_MEASURE_TIMEOUT_S,
                limit_bytes=4096,
                ok_codes=(0, 1),  # 1: something went away meanwhile
                stop=self._done,  # what is watched is over, and nobody is to wait for a walk over millions of files
            )
            return int(text.split(b"\t", 1)[0]), os.times().elapsed - start
        except (CommandFailed, LeaseLost, ValueError):
            return 0, os.times().elapsed - start
