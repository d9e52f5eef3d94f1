"""Keeps a host's caches below a size: removes the least recently used entries first.

Owns the order and the locks; workers own the content, and fetch a missing entry again. Safe while builds run: an entry
stays while a worker holds its lock, and for a day after its last use.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from plumbum import local

from farm.errors import Trouble, disk_errors
from farm.gc.artifacts import Say

#: A step that reads a mirror or a download holds no lock; no fetch takes this long.
_IN_USE = timedelta(days=1)
_GONE = "gone-"
_FAILED = "failed steps"
_KEPT = "kept-*"  # the folders of FARM_KEEP_FAILED
_SNAPSHOT = "snapshot-"  # a copy of a package cache, from which an installation reads
_MIRROR_NAME_CHARS = 64


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A git mirror, a downloaded file, or the packages of a target and arch. Its writers hold `lock`."""

    cache: str
    path: Path
    lock: Path | None
    size_bytes: int
    used_at: datetime


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """One cache: its size before, and the entries that were removed, or would be."""

    cache: str
    had_bytes: int
    entries: int
    size_bytes: int


def prune(
    cache: Path, *, limit_bytes: int, dry_run: bool, say: Say, work: Path | None = None, now: datetime | None = None
) -> tuple[Pruned, ...]:
    """Remove entries of the caches in the folder `cache` until all caches together have at most `limit_bytes`.

    The folders of failed steps that were kept in the folder `work` count as a cache. Safe to repeat, and to end at any
    time. Raises Trouble when the folder cannot be changed.
    """
    with disk_errors(Trouble, f"the caches in {cache} were not pruned"):
        if not dry_run:
            for left in (*(cache / "git").glob(f"{_GONE}*"), *(cache / "dnf").glob(f"{_GONE}*")):
                _remove_tree(left)
        if work is not None and not dry_run:
            for left in work.glob(f"{_GONE}*"):
                _remove_tree(left)
        entries = sorted([*_entries(cache), *_kept(work)], key=lambda entry: entry.used_at)
        total_bytes = sum(entry.size_bytes for entry in entries)
        say(f"caches: {len(entries)} entries with {total_bytes >> 20} MiB; {limit_bytes >> 20} MiB are allowed")
        idle_since = (now or datetime.now(UTC)) - _IN_USE
        gone: list[Entry] = []
        for entry in entries:
            if total_bytes <= limit_bytes or entry.used_at > idle_since:
                break
            if dry_run or _remove(entry, idle_since):
                gone.append(entry)
                total_bytes -= entry.size_bytes
    names = [*_KINDS, *([_FAILED] if work is not None else [])]
    return tuple(_pruned(name, entries, gone) for name in names)


def _pruned(name: str, entries: list[Entry], gone: list[Entry]) -> Pruned:
    own = [entry for entry in gone if entry.cache == name]
    return Pruned(
        cache=name,
        had_bytes=sum(entry.size_bytes for entry in entries if entry.cache == name),
        entries=len(own),
        size_bytes=sum(entry.size_bytes for entry in own),
    )


def _entries(cache: Path) -> Iterator[Entry]:
    for name, find in _KINDS.items():
        for path, lock in find(cache / name):
            with suppress(FileNotFoundError):  # removed meanwhile
                yield Entry(cache=name, path=path, lock=lock, size_bytes=_size_bytes(path), used_at=_used_at(path))


def _kept(work: Path | None) -> Iterator[Entry]:
    for path in work.glob(_KEPT) if work is not None else ():
        with suppress(FileNotFoundError):
            yield Entry(cache=_FAILED, path=path, lock=None, size_bytes=_size_bytes(path), used_at=_used_at(path))


def _mirrors(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    for path in folder.glob("[0-9a-f]" * _MIRROR_NAME_CHARS):
        yield path, path.with_name(f"{path.name}.lock")


def _downloads(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    for path in folder.glob("*/*"):
        if path.is_file():
            yield path, None


def _packages(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    for path in folder.glob("*"):
        if path.is_dir() and not path.name.startswith((_GONE, _SNAPSHOT)):
            yield path, path.with_name(f"{path.name}.lock")


_KINDS = {"git": _mirrors, "downloads": _downloads, "dnf": _packages}


def _remove(entry: Entry, idle_since: datetime) -> bool:
    """Remove an entry; False when it is in use, or was used after `idle_since`."""
    with _locked(entry.lock) as is_ours:
        try:
            if not is_ours or _used_at(entry.path) > idle_since:
                return False
            gone = entry.path.with_name(f"{_GONE}{secrets.token_hex(8)}")
            entry.path.rename(gone)
        except FileNotFoundError:
            return False
        if _used_at(gone) > idle_since and not entry.path.exists():
            gone.rename(entry.path)
            return False
    if gone.is_dir():
        _remove_tree(gone)
    else:
        gone.unlink()
    return True


@contextmanager
def _locked(path: Path | None) -> Iterator[bool]:
    """Whether the lock was free. Its file stays: a worker may wait for the lock."""
    if path is None:
        yield True
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _remove_tree(folder: Path) -> None:
    """Remove a folder of any depth: the name of a git ref may have more parts than Python's own walk can descend."""
    try:
        shutil.rmtree(folder)
    except RecursionError:
        local["rm"]("-rf", "--one-file-system", "--", folder)


def _used_at(path: Path) -> datetime:
    """The time of an entry's last use; workers touch the entries that they use."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _size_bytes(path: Path) -> int:
    """The size on disk; a file that is removed meanwhile counts as nothing."""
    if path.is_file():
        return path.stat().st_blocks * 512
    total = 0
    with suppress(RecursionError):  # deeper folders are small
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(FileNotFoundError):
                    total += Path(folder, name).lstat().st_blocks * 512
    return total
