"""Collects the files that a recipe left, and stores the step's log.

Everything among the results is hostile: names, types and links. The contents are for the package format to check.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm import wire
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.context import Ended, StepContext, over_disk
from workers.core.text import shown

_MAX_FOLDERS = 64
_MAX_FOLDERS_DEEP = 8  # rpmbuild makes one, for the arch
_STAMPS_AFTER_MS = 1000


@dataclass(frozen=True, kw_only=True)
class Found:
    """A result that is a regular file of the recipe's own, with no other name anywhere."""

    path: Path
    name: str


def collect(results: Path, suffix: str, *, limits: Limits) -> tuple[Found, ...]:
    """The files whose names end so, by name, whatever folder they are in.

    Raises Ended (failed) for anything that a build must not leave there: links, devices, other files, names that no
    package has, and the same name twice; Ended (over the limit) for more files than `limits.results`, or more bytes in
    all than `limits.disk_bytes` as they are read, holes included. No link is followed and no file is opened.
    """
    found: dict[str, Found] = {}
    size_bytes = 0
    for number, entry in enumerate(_walk(results)):
        if number >= limits.results + _MAX_FOLDERS:
            raise _too_many(limits)
        if entry.is_dir(follow_symlinks=False):
            continue
        problem = _problem(entry, suffix) or ("another folder has a file of that name" if entry.name in found else None)
        if problem:
            raise Ended(
                Outcome.FAILED, f"the build left {shown(os.fsencode(entry.name))!r} among its results: {problem}"
            )
        size_bytes += entry.stat(follow_symlinks=False).st_size
        if size_bytes > limits.disk_bytes:
            raise over_disk(f"the build's results are larger than its disk limit of {limits.disk_bytes} bytes")
        found[entry.name] = Found(path=Path(entry.path), name=entry.name)
    if len(found) > limits.results:
        raise _too_many(limits)
    return tuple(found[name] for name in sorted(found))


def _too_many(limits: Limits) -> Ended:
    return Ended(
        Outcome.OVER_LIMIT,
        f"the build made more than {limits.results} packages, more than the farm takes of one build; `results` in "
        "[limits] of the target, or --limit results=N, raises that",
    )


def store_log(context: StepContext, name: str) -> tuple[Artifact, ...]:
    """Close the log and store it; with it, when it took more than a second, the time of its lines.

    The times are a JSON list of [milliseconds since the start, byte offset], ascending.
    """
    context.log.close()
    log = context.store.put(context.log.path, name=name, kind=ArtifactKind.LOG, stop=context.stop)
    stamps = context.log.stamps
    if not stamps or stamps[-1][0] < _STAMPS_AFTER_MS:
        return (log,)
    times = context.log.path.with_name("times")
    times.write_bytes(wire.to_json(stamps))
    return log, context.store.put(
        times, name=f"{name}.times.json", kind=ArtifactKind.RECORD, move=True, stop=context.stop
    )


def _walk(folder: Path, deep: int = 0) -> Iterator[os.DirEntry[str]]:
    """Entries of every kind, each folder before its content."""
    if deep > _MAX_FOLDERS_DEEP:
        raise Ended(Outcome.FAILED, f"the build left folders among its results that are {deep} deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), deep + 1)


def _problem(entry: os.DirEntry[str], suffix: str) -> str | None:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no regular file')}"
    if status.st_nlink != 1:
        return "it is a hard link to another file"
    if status.st_size > _HOLES_BYTES and status.st_blocks * _BLOCK_BYTES * _HOLES_FACTOR < status.st_size:
        return f"it has {status.st_size} bytes, nearly all of them holes"
    if not entry.name.endswith(suffix) or shown(entry.name, limit=255) != entry.name or not entry.name.isascii():
        return f"only files named *{suffix} belong there"
    return None


# Some file systems compress. Reading holes takes time that no limit of a disk bounds.
_HOLES_BYTES, _HOLES_FACTOR, _BLOCK_BYTES = 64 * 2**20, 64, 512
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}
