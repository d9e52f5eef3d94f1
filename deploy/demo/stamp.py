"""Avoids repeated work: keeps a digest of all inputs beside the result, and switches results by rename."""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
META = HERE / "meta"
STAMP = ".demo-stamp"


def digest(files: Iterable[Path], *words: str) -> str:
    """A digest of file contents and words, in the given order."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for word in words:
        total.update(f"{word}\0".encode())
    return total.hexdigest()


def is_current(directory: Path, key: str) -> bool:
    """Whether the directory was made completely for that key."""
    stamp = directory / STAMP
    return stamp.is_file() and stamp.read_text() == key


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; another one waits, and then usually finds the work done."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(directory: Path, key: str) -> Iterator[Path]:
    """Yield an empty directory beside `directory`, which replaces it if the block succeeds, and is removed if not."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    fresh.chmod(0o755)
    try:
        yield fresh
        (fresh / STAMP).write_text(key)
        old = fresh.with_name(f"{fresh.name}-old")
        if directory.exists():
            directory.rename(old)
        fresh.replace(directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
