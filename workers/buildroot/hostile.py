"""Reading what a sandbox left behind: regular files only, no links, so much and no more."""

import os
import stat
from pathlib import Path

from farm.errors import RootTrouble


def read_left(path: Path, *, limit_bytes: int) -> bytes | None:
    """The file's content; None when there is no regular file of at most that size. The folder must be the farm's own:
    one that nobody inside the sandbox can replace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    return data if len(data) <= limit_bytes else None


def read_list(path: Path, *, limit_bytes: int) -> bytes:
    """A list that the farm wrote itself. Raises RootTrouble when it is not there."""
    data = read_left(path, limit_bytes=limit_bytes)
    if data is None:
        raise RootTrouble(
            f"{path} is missing or larger than {limit_bytes} bytes; remove its folder, and it is made again"
        )
    return data
