"""Two things that end with the process that has them: the lock of a repository, and a folder for unfinished files.
And how a file gets into such a folder.

Both are flocks, which the kernel drops when their process dies, so leftovers are told from work in progress
without guessing by age or by process id. They exclude threads as well, since each use opens its own descriptor.
"""

import fcntl
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from farm.errors import BadSource, LeaseLost, RepositoryTrouble

_PIECE_BYTES = 2**20
_POLL_S = 0.002  # a publication takes a few times this long
_AT_ONCE = 8  # files whose way to the disk is waited for; a file system brings such files there together


@contextmanager
def locked(
    path: Path,
    *,
    timeout_s: float,
    unless: Callable[[], bool] = lambda: False,
    stop: threading.Event | None = None,
) -> Iterator[bool]:
    """Hold the lock file at `path`; yields False, without the lock, once `unless` says that it is not needed.

    Raises RepositoryTrouble after `timeout_s`, LeaseLost once `stop` is set.
    """
    deadline = time.monotonic() + timeout_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _try_lock(descriptor):
            if unless():
                yield False
                return
            check_stop(stop)
            if time.monotonic() > deadline:
                raise RepositoryTrouble(f"{path} is held by another process for {timeout_s:g} s; see who with lslocks")
            time.sleep(_POLL_S)
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end, or by the next `sweep` if this process is killed."""
    while True:
        folder = parent / secrets.token_hex(8)
        folder.mkdir()
        # A sweep that comes in between locks it, or has removed it already; then another one is made.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _try_lock(descriptor) and folder.exists():
                break
            os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(parent: Path, before: Callable[[Path], None]) -> None:
    """Remove the folders of processes that are gone, each after `before` has seen it."""
    for folder in parent.iterdir():
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _try_lock(descriptor):
                    before(folder)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def bring(source: Path, path: Path, stop: threading.Event | None = None) -> None:
    """A read-only copy of a file, on the disk; a hard link if no process can write to the original.

    Raises RepositoryTrouble when the file is not there, BadSource when it is not a regular one, LeaseLost once `stop`
    is set.
    """
    if not source.exists():
        raise RepositoryTrouble(f"{source} is not there; bring it again")
    found = source.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise BadSource(f"{str(source)!a} is not a regular file")
    if found.st_mode & 0o222 == 0 and found.st_uid in (0, os.geteuid()):
        with suppress(OSError):  # another file system, or the maximum of links: copy the file
            os.link(source, path, follow_symlinks=False)
    if not path.exists():
        with source.open("rb") as file, path.open("xb") as copy:
            for piece in pieces(file, stop):
                copy.write(piece)
        path.chmod(0o444)
    synchronise(path)


def bring_all(files: Sequence[tuple[Path, Path]], stop: threading.Event | None = None) -> None:
    """`bring` each file to its new path, several at once: a build may have thousands of packages, and a small file
    takes some microseconds, and then milliseconds until it is on the disk. Raises as `bring` does."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bring") as pool:
        for _ in pool.map(lambda pair: _bring_one(pair, stop), files):
            pass


def _bring_one(pair: tuple[Path, Path], stop: threading.Event | None) -> None:
    check_stop(stop)
    bring(*pair, stop)


def synchronise(path: Path) -> None:
    """Bring the file to the disk first: it must survive a power cut together with the ledger or link that names it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pieces(file: BinaryIO, stop: threading.Event | None) -> Iterator[bytes]:
    """The content of a file that may be as large as a hostile host likes. Raises LeaseLost once `stop` is set."""
    while piece := file.read(_PIECE_BYTES):
        check_stop(stop)
        yield piece


def check_stop(stop: threading.Event | None) -> None:
    """Raises LeaseLost once it is set."""
    if stop is not None and stop.is_set():
        raise LeaseLost("the attempt was stopped while it published")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
