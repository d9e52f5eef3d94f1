"""Reads files that a sandbox left behind: follows no links, and reads regular files up to a limit."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from farm.errors import RootTrouble


def read_left(path: Path, *, limit_bytes: int) -> bytes | None:
    """The file's content; None when there is no regular file of at most that size. The folder must be the farm's own:
    a process inside the sandbox must not be able to replace it."""
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


def replaced_folder(layer: Path, folders: Iterable[str]) -> str | None:
    """The first of these folders, or of their parents, that is not a folder in the layer; None if there is none. A
    removed folder is harmless: it is made again where it is needed."""
    for folder in folders:
        path = layer
        for part in Path(folder).parts[1:]:
            path /= part
            try:
                found = path.lstat()
            except FileNotFoundError:
                break
            if is_removal(found):
                break
            if not stat.S_ISDIR(found.st_mode):
                return f"/{path.relative_to(layer)}"
    return None


def is_removal(found: os.stat_result) -> bool:
    """Whether a file of a layer is a whiteout, overlayfs's mark for a removed file."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
