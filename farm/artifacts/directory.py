"""The artifact store in a directory: `<root>/<2 hex>/<2 hex>/<sha256>`, read-only files that appear whole.

Owns the files below its root: how they are stored, found and removed, but not how long they are kept.

Durability: `put` returns after one fsync of the file, made after it has its name, so that the same journal commit
carries both (ext4, XFS and Btrfs all commit the name of a file that is being synchronised). A power cut before that can
leave a short file under a digest. Each look-up compares the size, so the store never returns such a file, and the next
`put` replaces it.

Trust: with `move`, a file of the recipe becomes a file of the store. It is taken only if it is a regular file
with one name, and becomes the farm's, mode 0444, before it is read, so that no process can open it for writing
afterwards. A process that already holds it open for writing could still change it: move only files of a build root
whose processes have all ended. Files are given out as hard links only where the farm runs as root, since else a build
that runs as the same user could change their mode.
"""

import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from farm.artifacts.base import StoredFile
from farm.artifacts.names import check_name
from farm.errors import BadSource, LeaseLost, NotFound, StoreTrouble, disk_errors
from farm.model.artifact import Artifact, ArtifactKind

_READ_ONLY = 0o444
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LEFTOVER_AGE_S = 24 * 3600  # a temporary file this old belongs to a process that was killed
_CHUNK_BYTES = 2**20
_QUICK_BYTES = 32 * 2**20  # a file of this size is on the disk within about a tenth of a second
_TICK_S = 0.05
# NONBLOCK, so that opening a FIFO does not wait for its other end.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryStore:
    """Safe to use from many threads and processes at once, on one machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._is_swept = False

    def put(
        self,
        path: Path,
        *,
        name: str,
        kind: ArtifactKind,
        identity: str | None = None,
        move: bool = False,
        stop: threading.Event | None = None,
    ) -> Artifact:
        """See the protocol. With `move`, `path` is gone afterwards, also if the content was there already."""
        name = check_name(name)
        with disk_errors(StoreTrouble, f"{path} was not stored as {name!r}"), _opened(path) as descriptor:
            self._sweep_once()
            found = os.fstat(descriptor)
            # The owner of a file with a second name can reach and chmod it through that name, so the store copies it.
            taken = move and found.st_nlink == 1 and _make_ours(descriptor, found)
            sha256 = _digest(descriptor, stop)
            if not self._renew(sha256, found.st_size):
                self._insert(path, descriptor, sha256, link=taken, stop=stop)
            if move:
                path.unlink()
            size_bytes = self._path(sha256).stat().st_size
        return Artifact(name=name, kind=kind, sha256=sha256, size_bytes=size_bytes, identity=identity)

    def get(self, artifact: Artifact, into: Path, *, stop: threading.Event | None = None) -> Path:
        """See the protocol. An existing file at `into` is replaced; a copy that fails leaves no file there."""
        source = self._existing(artifact.sha256)
        with disk_errors(StoreTrouble, f"{artifact.name!r} was not copied to {into}"):
            if not self._has(artifact.sha256, artifact.size_bytes):
                raise NotFound(
                    f"artifact {artifact.sha256} ({artifact.name!r}) does not have the {artifact.size_bytes} bytes "
                    f"it should have; retry the step that made it"
                )
            into.unlink(missing_ok=True)
            if os.geteuid() == 0:
                # The file is on another file system, or has the maximum of links: the store copies it.
                with suppress(OSError):
                    into.hardlink_to(source)
                    return into
            with source.open("rb", buffering=0) as file:
                _write(file.fileno(), into, stop)
        return into

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """See the protocol."""
        if offset < 0:
            raise ValueError(f"offset {offset} is negative; an artifact is read from its byte 0 on")
        path = self._existing(sha256)
        with disk_errors(StoreTrouble, f"artifact {sha256} was not opened"):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:  # removed in this moment
                raise self._missing(sha256) from error
            file.seek(offset)
            return file

    @contextmanager
    def local(self, sha256: str, *, stop: threading.Event | None = None) -> Iterator[Path]:
        """See the protocol. The path leads to the store's own file."""
        _check(stop)
        yield self._existing(sha256)

    def _existing(self, sha256: str) -> Path:
        path = self._path(sha256)
        if not path.is_file():
            raise self._missing(sha256)
        return path

    def _missing(self, sha256: str) -> NotFound:
        return NotFound(f"no artifact {sha256} in {self._root}")

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise NotFound(f"{sha256[:80]!r} is not a sha256 in lower-case hexadecimal, so no artifact has it")
        return self._root / sha256[:2] / sha256[2:4] / sha256

    def _has(self, sha256: str, size_bytes: int) -> bool:
        try:
            return self._path(sha256).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def _renew(self, sha256: str, size_bytes: int) -> bool:
        """Whether the file is there. Sets the time when it was stored to now, so that it is not removed as old."""
        if not self._has(sha256, size_bytes):
            return False
        try:
            os.utime(self._path(sha256))
        except FileNotFoundError:  # removed in this moment
            return False
        except PermissionError:  # the file of another user, in a store that this one may write to
            pass
        return True

    def listed(self) -> Iterator[StoredFile]:
        """See the protocol."""
        with disk_errors(StoreTrouble, f"the files in {self._root} were not listed"):
            for path in self._root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
                if not _SHA256.fullmatch(path.name):
                    continue
                with suppress(FileNotFoundError):
                    found = path.stat()
                    # The change time: a linked file keeps the modification time that its recipe gave it.
                    stored_at = datetime.fromtimestamp(found.st_ctime, UTC)
                    yield StoredFile(sha256=path.name, size_bytes=found.st_size, stored_at=stored_at)

    def remove(
        self, files: Sequence[StoredFile], *, unless: Callable[[Collection[str]], Collection[str]]
    ) -> Sequence[StoredFile]:
        """See the protocol."""
        with disk_errors(StoreTrouble, f"old files in {self._root} were not removed"):
            self._sweep_once()
            away = _Away(self._temporary)
            try:
                for file in files:
                    with suppress(FileNotFoundError):
                        away.take(file, self._path(file.sha256))
                kept = unless([file.sha256 for file in files])
                return away.drop(kept)
            finally:
                away.give_back()

    def _insert(self, path: Path, descriptor: int, sha256: str, *, link: bool, stop: threading.Event | None) -> None:
        final = self._path(sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary / secrets.token_hex(16)
        try:
            if not (link and _link_same(path, descriptor, temporary)):
                _copy(descriptor, temporary, sha256, stop)
            temporary.rename(final)
        finally:
            temporary.unlink(missing_ok=True)
        with _opened(final) as stored:
            _synchronise(stored, stop)

    def _sweep_once(self) -> None:
        """Make the folder for temporary files, and delete the files of killed processes in it."""
        if self._is_swept:
            return
        self._temporary.mkdir(parents=True, exist_ok=True)
        oldest = datetime.now(UTC).timestamp() - _LEFTOVER_AGE_S
        for leftover in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                # The change time: a linked file keeps the modification time that its recipe gave it.
                if leftover.lstat().st_ctime < oldest:
                    leftover.unlink()
        self._is_swept = True


class _Away:
    """Files moved to temporary names, before they are deleted or put back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: list[tuple[StoredFile, Path, Path, int]] = []

    def take(self, file: StoredFile, path: Path) -> None:
        name = self._folder / secrets.token_hex(16)
        modified_ns = path.stat().st_mtime_ns
        path.rename(name)
        self._taken.append((file, path, name, modified_ns))

    def drop(self, kept: Collection[str]) -> list[StoredFile]:
        """Delete all files but those in `kept`, and those that were stored again before they were taken."""
        dropped = []
        for one in tuple(self._taken):
            file, _, name, modified_ns = one
            if file.sha256 not in kept and name.stat().st_mtime_ns == modified_ns:
                name.unlink()
                self._taken.remove(one)
                dropped.append(file)
        return dropped

    def give_back(self) -> None:
        for _, path, name, _ in self._taken:
            with suppress(FileExistsError):  # stored again meanwhile
                os.link(name, path)
            name.unlink(missing_ok=True)
        self._taken.clear()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of a regular file. Raises BadSource for anything else."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # looked at before opening: opening a device can act on it
            raise BadSource(f"{str(path)!a} is not a regular file, so it is not stored")
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError as error:
        raise BadSource(f"{str(path)!a} does not exist, so it is not stored") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadSource(f"{str(path)!a} is not a regular file, so it is not stored")
        yield descriptor
    finally:
        os.close(descriptor)


def _make_ours(descriptor: int, found: os.stat_result) -> bool:
    """Take ownership of the file, and remove all rights to write; False if that is not allowed."""
    try:
        if found.st_uid != os.geteuid():
            os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, _READ_ONLY)
    except PermissionError:
        return False
    return True


def _digest(descriptor: int, stop: threading.Event | None) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(descriptor, stop):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(descriptor: int, stop: threading.Event | None) -> Iterator[memoryview]:
    """The whole file, in one buffer that the next chunk overwrites. Raises LeaseLost once `stop` is set."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        while count := file.readinto(buffer):
            _check(stop)
            yield buffer[:count]


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise LeaseLost("stopped while an artifact was copied")


def _synchronise(descriptor: int, stop: threading.Event | None) -> None:
    """Bring the file to the disk. This takes seconds for a large file, and the call cannot be interrupted. A caller
    that is stopped meanwhile leaves it to a thread; the file is complete already, so this does no harm.
    """
    if stop is None or os.fstat(descriptor).st_size < _QUICK_BYTES:
        os.fsync(descriptor)
        return
    done: Future[None] = Future()
    own = os.dup(descriptor)

    def synchronise() -> None:
        try:
            os.fsync(own)
        except OSError as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        finally:
            os.close(own)

    threading.Thread(target=synchronise, name="synchronise", daemon=True).start()
    while not wait([done], timeout=_TICK_S).done:
        _check(stop)
    done.result()


def _link_same(path: Path, descriptor: int, temporary: Path) -> bool:
    """Give the open file a second name; False if it is on another file system or no longer what `path` names."""
    try:
        os.link(path, temporary, follow_symlinks=False)
    except OSError:
        return False
    if os.path.samestat(temporary.lstat(), os.fstat(descriptor)):
        return True
    temporary.unlink()
    return False


def _write(descriptor: int, into: Path, stop: threading.Event | None) -> None:
    """A new read-only file with the same content, or none."""
    try:
        with into.open("xb") as copy:
            for chunk in _chunks(descriptor, stop):
                copy.write(chunk)
        into.chmod(_READ_ONLY)
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def _copy(descriptor: int, temporary: Path, sha256: str, stop: threading.Event | None) -> None:
    _write(descriptor, temporary, stop)
    with _opened(temporary) as copied:
        if _digest(copied, stop) != sha256:
            raise BadSource("the file changed while it was being stored; store it when nothing writes to it any more")
