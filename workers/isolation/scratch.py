"""Scratch folders: names that tell their maker, and the removal of whole trees of hostile content.

Owns the names and the removal. Does not own the place of scratch folders, nor their content.
"""

import functools
import hashlib
import logging
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from farm.config import Settings
from farm.errors import RootTrouble
from workers.core.locks import LockKind, lock, try_lock
from workers.core.run import CommandFailed, capture
from workers.isolation.pids import is_alive, owner

_log = logging.getLogger(__name__)

#: The prefix of the work folder of a running step.
STEP_PREFIX = "step"
_REMOVE_TIMEOUT_S = 600.0
_SMALL_ENTRIES = 200
_SMALL_LEVELS = 5

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MAKER = re.compile(r"(?P<machine>[0-9a-f]{10})-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9]+")
_SHARED_POLL_S = 0.01
_SHARED_WITHIN_S = 5.0  # a sweep holds the lock for an instant, to see whether it is free


# --- the maker of a folder ---------------------------------------------------------------------------------------


def scratch_name(prefix: str, number: int) -> str:
    """A folder name that tells its maker, so that `sweep` knows when the maker is dead: prefix, machine, pid, start of
    the process, number."""
    return f"{prefix}-{_here()}-{owner()}-{number}"


def alive_folder(settings: Settings) -> Path:
    """Has a file for each machine that ever ran a step here, which is locked as long as the machine runs a step."""
    return settings.data / "alive"


@contextmanager
def at_work(alive: Path) -> Iterator[None]:
    """Keeps other machines from sweeping the folders of this one. The kernel ends this with the process.

    Raises RootTrouble if the file system has no locks.
    """
    alive.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(alive / _here(), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _share(descriptor, alive)
        yield
    finally:
        os.close(descriptor)


def is_orphan(name: str, prefix: str, alive: Path) -> bool:
    """Whether a dead worker made the folder of that name.

    A pid says nothing about a process of another machine: a folder of that machine is an orphan if no step runs there,
    and is left alone if that cannot be known.
    """
    maker = _MAKER.fullmatch(name.removeprefix(f"{prefix}-"))
    if maker is None or not name.startswith(f"{prefix}-"):
        return False
    if maker["machine"] != _here():
        return _is_deserted(alive / maker["machine"])
    return not is_alive(int(maker["pid"]), int(maker["start"]))


def sweep_orphans(folders: Iterable[Path], prefix: str, alive: Path) -> int:
    """Remove the folders of dead workers. Returns their number. A folder that cannot be removed does not stop the
    sweep."""

    def removed(folder: Path) -> int:
        remove_tree(folder)
        return 1

    return sum(
        attempted(str(folder), functools.partial(removed, folder))
        for folder in folders
        if is_orphan(folder.name, prefix, alive)
    )


def attempted(what: str, part: Callable[[], int]) -> int:
    """The result of `part`, which is part of a sweep; 0, with a line in the worker's log, if it fails."""
    try:
        return part()
    except Exception as error:
        _log.warning("Could not sweep %s: %s", what, error, extra={"action": "sweep"})
        return 0


@functools.lru_cache(maxsize=1)
def _here() -> str:
    """The machine, in ten characters. A machine is one pid namespace during one boot, in which a pid means the same
    process. Containers of a host share its boot, and hosts may share a name."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    known = f"{platform.node()} {_BOOT.read_text().strip()} {namespace}"
    return hashlib.sha256(known.encode()).hexdigest()[:10]


def _share(descriptor: int, alive: Path) -> None:
    give_up_at = time.monotonic() + _SHARED_WITHIN_S

    def pause() -> None:
        if time.monotonic() > give_up_at:
            raise RootTrouble(f"a lock in {alive} cannot be had: another process has it for {_SHARED_WITHIN_S:g} s")
        time.sleep(_SHARED_POLL_S)

    lock(descriptor, LockKind.SHARED, pause, trouble=RootTrouble)


def _is_deserted(machine: Path) -> bool:
    """True if the machine's lock is free. A worker takes the lock before it makes folders, so one test is enough."""
    try:
        descriptor = os.open(machine, os.O_RDWR | os.O_CLOEXEC)  # NFS gives exclusive locks only for writable files
    except OSError:
        return False
    try:
        return try_lock(descriptor, LockKind.EXCLUSIVE)
    except OSError:
        return False
    finally:
        os.close(descriptor)


# --- removing ----------------------------------------------------------------------------------------------------


def remove_tree(path: Path) -> None:
    """Remove a tree that a recipe filled: of any depth, with any names, without following links or leaving the file
    system. Raises RootTrouble if something is left.

    A small tree is removed in this process; for others `rm` is started. To start it takes longer than to remove most
    steps' folders, but it removes trees of any depth.
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
    """True if the tree had few entries in few levels, and is removed. Follows no links, and stays in the file
    system."""
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
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            path.unlink()
            return True
        return is_cleared(path, _SMALL_LEVELS, found.st_dev)
    except OSError:
        return False
