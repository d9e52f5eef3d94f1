"""Git LFS: recognizes pointers, and fetches their objects into the mirror by object id.

git-lfs selects objects by patterns of paths, in which commas, spaces and `@` have a meaning. The farm therefore makes a
commit of its own whose files are the wanted pointers under the names of their ids, and asks for all objects of that.
"""

import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.errors import HostUnfit, NetworkTrouble
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext, open_watched
from workers.core.run import CommandFailed
from workers.core.text import shown
from workers.sources.content import Content
from workers.sources.git import Mirror
from workers.sources.git_config import PERSON

_POINTER_MAX_BYTES = 1024
_POINTER_START = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER = re.compile(rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,15})\n")
#: Go connects to loopback addresses directly, whatever proxy is set; in its network namespace nothing listens there.
_LFS_HERE = re.compile(rb"dial tcp (?:127\.[0-9.]+|\[::1\]):")
_LFS_MISSING = re.compile(rb"missing object|[Oo]bject does not exist|Not Found")
_SHOWN_NAMES = 5
_ID_BYTES = 100


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """The digest and size of an object."""

    oid: str
    size_bytes: int


def pointer(content: Content) -> Pointer | None:
    """The pointer in a file's content; None for any other file."""
    if not len(_POINTER_START) < content.size_bytes < _POINTER_MAX_BYTES:
        return None
    with content.open(threading.Event()) as stream:
        if stream.read(len(_POINTER_START)) != _POINTER_START:
            return None
        found = _POINTER.search(stream.read(content.size_bytes - len(_POINTER_START)))
    return Pointer(oid=found["oid"].decode(), size_bytes=int(found["size"])) if found else None


def fetch(
    mirror: Mirror, pointers: Mapping[str, Pointer], blobs: Mapping[str, str], context: StepContext
) -> dict[str, Content]:
    """The objects of the pointers, by the pointers' paths. `blobs` are the ids in git of the pointers themselves.

    Raises Ended for objects that the server does not have, and trouble as `Mirror.commit`.
    """
    names = ", ".join(shown(path) for path in list(pointers)[:_SHOWN_NAMES])
    context.log.note(f"fetching from Git LFS: {names}")
    if any(not _has(mirror, one) for one in pointers.values()):
        _require(mirror, names)
        try:
            _ask(mirror, {blobs[path]: one.oid for path, one in pointers.items()}, names, context)
        finally:
            _drop_wrong(mirror, pointers.values())
    found = {}
    for path, one in pointers.items():
        file = _file(mirror, one)
        if not _has(mirror, one) or _sha256(file, context) != one.oid:
            raise Ended(Outcome.FAILED, f"Git LFS of {mirror.url.shown} does not have {shown(path)} ({one.oid})")
        found[path] = Content(file=file, offset=0, size_bytes=one.size_bytes)
    return found


def _file(mirror: Mirror, one: Pointer) -> Path:
    return mirror.path / "lfs/objects" / one.oid[:2] / one.oid[2:4] / one.oid


def _has(mirror: Mirror, one: Pointer) -> bool:
    file = _file(mirror, one)
    return file.is_file() and file.stat().st_size == one.size_bytes


def _drop_wrong(mirror: Mirror, wanted: Iterable[Pointer]) -> None:
    """Remove objects of another size than their pointers say, which git-lfs keeps. No step ever reads them."""
    for one in wanted:
        if not _has(mirror, one):
            _file(mirror, one).unlink(missing_ok=True)


def _require(mirror: Mirror, names: str) -> None:
    if not mirror.url.reads_as_farm:
        raise Ended(Outcome.FAILED, f"{names}: kept in Git LFS, which is not read from another user's repository")
    if not mirror.url.is_local and not mirror.gateway.is_sealed:
        raise HostUnfit("this worker may not make a network namespace, without which Git LFS is not confined")
    try:
        mirror.output("lfs", "version")
    except (Ended, NetworkTrouble) as error:
        raise Ended(
            Outcome.FAILED,
            f"{names}: kept in Git LFS, and this worker has no git-lfs; commit the file or use a lookaside",
        ) from error


def _ask(mirror: Mirror, wanted: Mapping[str, str], names: str, context: StepContext) -> None:
    # The tree's own .lfsconfig may name another server, or a folder of this machine; these settings override it.
    # The farm itself tries again; eight pauses of git-lfs would only block the slot.
    words = ["-c", f"remote.origin.url={mirror.url.plain}", "-c", "lfs.transfer.maxretries=1"]
    words += ["-c", "lfs.fetchinclude=", "-c", "lfs.fetchexclude="]
    if mirror.url.lfs:
        words += ["-c", f"lfs.url={mirror.url.lfs}"]
    try:
        with mirror.lock():
            mirror.bring(*words, "lfs", "fetch", "origin", _commit_of(mirror, wanted, context))
    except CommandFailed as error:
        if _LFS_HERE.search(error.output):
            raise Ended(Outcome.FAILED, f"{names}: its Git LFS server would be the worker's own host") from error
        if mirror.gateway.refused or not _LFS_MISSING.search(error.output):
            raise mirror.judged(error) from error


def _commit_of(mirror: Mirror, wanted: Mapping[str, str], context: StepContext) -> str:
    """The id of a commit whose files are the pointers, each called by its object's id."""
    listing = context.workdir / "lfs-pointers"
    lines = sorted({oid: f"100644 blob {blob}\t{oid}\n" for blob, oid in wanted.items()}.values())
    listing.write_text("".join(lines))
    tree = mirror.output("mktree", limit_bytes=_ID_BYTES, given=listing).decode().strip()
    made = mirror.output(*PERSON, "commit-tree", "-m", "pointers", tree, limit_bytes=_ID_BYTES)
    return made.decode().strip()


def _sha256(file: Path, context: StepContext) -> str:
    with open_watched(file, context.stop) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
