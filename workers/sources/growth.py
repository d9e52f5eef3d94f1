"""Counts what git and its helpers write into the mirrors of one step: bytes and files, of all commands together. And
removes the files of killed commands.

A limit for each file does not bound a server that sends many files, and a mirror may have more than one step may
write: its files are those of many builds. Does not own the meaning of an end (git_blame.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.model.target import Limits
from workers.core.context import Ended, over_disk
from workers.core.run import capture
from workers.isolation.disk import DiskWatch, disk_usage

_FIND_TIMEOUT_S = 120
_FIND_BYTES = 2**20
_LOOSE, _PACKS = 6700, 50  # gc.auto and gc.autoPackLimit
_LEFT_OVER = ("*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*", "lfs/incomplete/*", "lfs/tmp/*")


class Growth:
    """The rest of the disk limits of one step, for mirrors one after the other."""

    def __init__(self) -> None:
        self._bytes = 0
        self._files = 0

    @contextmanager
    def watched(self, mirror: Path, limits: Limits, shown: str) -> Iterator[DiskWatch]:
        """The watch over one command that writes to the mirror of the repository `shown`. The growth of the mirror
        counts for the commands after it too. Raises Ended if all growth is over the limit of the disk."""
        before_bytes, before_files = disk_usage(mirror)
        with DiskWatch(
            mirror,
            limit_bytes=before_bytes + max(0, limits.disk_bytes - self._bytes),
            limit_files=before_files + max(0, limits.files - self._files),
        ) as watch:
            yield watch
        after_bytes, after_files = disk_usage(mirror)
        self._bytes += max(0, after_bytes - before_bytes)
        self._files += max(0, after_files - before_files)
        if self._bytes > limits.disk_bytes:  # quicker than the watch
            raise over_fetched(shown, limits.disk_bytes)


def over_fetched(shown: str, limit_bytes: int) -> Ended:
    """The error of a step that fetched too much; `shown` is the last of its repositories."""
    return over_disk(
        f"{shown}, with what was fetched before it, is larger than the step's disk limit of {limit_bytes} bytes"
    )


def is_untidy(mirror: Path) -> bool:
    """False where `git gc --auto` would do nothing, by git's own estimate. Git itself needs 20 ms to say so."""
    loose = sum(1 for _ in (mirror / "objects/17").glob("*")) * 256
    packs = sum(1 for _ in (mirror / "objects/pack").glob("*.pack"))
    return loose > _LOOSE or packs > _PACKS


def forget_left_over(mirror: Path) -> None:
    """Remove the files of a killed git: its locks would refuse every later fetch, and its partial files take space.

    No other process writes here while the mirror is locked, and no ref is called `*.lock`.
    """
    for pattern in _LEFT_OVER:
        for left in mirror.glob(pattern):
            left.unlink(missing_ok=True)
    # A ref's name may have more parts than the depth that Python's walks can reach.
    if (mirror / "refs").is_dir():
        words = ("find", mirror / "refs", "-name", "*.lock", "-delete")
        capture(words, cwd=mirror, timeout_s=_FIND_TIMEOUT_S, limit_bytes=_FIND_BYTES, ok_codes=(0, 1))
