"""Receives source packages in parts, and puts a whole one into the artifact store.

Owns the files of the parts, below `FARM_DATA/uploads`, which all servers of a farm share. The number of bytes in such
a file is the offset at which its client goes on, whatever happened before.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farm.artifacts.base import ArtifactStore
from farm.artifacts.names import check_name
from farm.config import Settings
from farm.errors import BadRequest, BadSource, NotFound, StoreTrouble, WrongState, disk_errors
from farm.formats.base import Format
from farm.model.source import Source
from farm.model.upload import Upload
from farm.service.source import SRPM_MAX_BYTES, keep_package, stored_source
from farm.store.uploads import Quota, UploadStore

COUNT_MAX = 10
#: An actor has so many that are not finished, and finishes so many within a day.
UNFINISHED = Quota(COUNT_MAX, 2 * SRPM_MAX_BYTES)
FINISHED = Quota(10_000, 16 * SRPM_MAX_BYTES)
#: A disk with a smaller share of free space takes no more parts.
_FREE_SHARE = 0.05
KEPT = timedelta(days=1)
_SHA256 = re.compile("[0-9a-f]{64}")


class Uploads:
    """The uploads of all actors. Safe to use from several threads, and from servers that share the folder."""

    def __init__(self, settings: Settings, store: UploadStore, artifacts: Callable[[], ArtifactStore]) -> None:
        self._folder = settings.data / "uploads"
        self._store = store
        self._artifacts = artifacts

    def create(self, actor: str, *, filename: str, size_bytes: int, sha256: str, target: str) -> Upload:
        """Begin an upload, or go on with the actor's own of the same content. The caller has checked the target.

        Raises BadRequest, and WrongState when the actor has too many that are not finished.
        """
        if not 0 < size_bytes <= SRPM_MAX_BYTES:
            raise BadRequest(f"size_bytes is {size_bytes}; a source package has 1 to {SRPM_MAX_BYTES} bytes")
        if not _SHA256.fullmatch(sha256):
            raise BadRequest(f"sha256 {sha256[:80]!r} is not a sha256 in lower-case hexadecimal")
        try:
            name = check_name(filename)
        except ValueError as error:
            raise BadRequest(f"filename: {error}; rename the file") from error
        now = datetime.now(UTC)
        asked = Upload(
            id=0,
            actor=actor,
            filename=name,
            size_bytes=size_bytes,
            sha256=sha256,
            target=target,
            expires_at=now + KEPT,
        )
        self._remove(self._store.expire_uploads(now))
        self._sweep()
        made, replaced = self._store.add_upload(asked, unfinished=UNFINISHED, finished=FINISHED)
        self._remove(replaced)
        return self._with_offset(made)

    def look(self, actor: str, upload_id: int) -> Upload:
        """The upload as it is now. Raises NotFound."""
        return self._with_offset(self._store.upload(actor, upload_id, now=datetime.now(UTC)))

    def append(self, actor: str, upload_id: int, *, offset: int, data: bytes) -> Upload:
        """Add the bytes at this offset, where the file ends. Raises NotFound, WrongState for another offset,
        BadRequest for more bytes than were announced, and StoreTrouble.
        """
        upload = self._store.upload(actor, upload_id, now=datetime.now(UTC))
        if upload.is_finished:
            raise WrongState(f"upload {upload_id} is finished already")
        with self._open(upload) as descriptor:
            has = os.fstat(descriptor).st_size
            if offset != has:
                raise WrongState(
                    f"upload {upload_id} has {has} bytes, so the next part begins there and not at {offset}"
                )
            if has + len(data) > upload.size_bytes:
                raise BadRequest(
                    f"upload {upload_id} would have more than the {upload.size_bytes} bytes of its beginning"
                )
            self._check_room(len(data))
            try:
                _write_all(descriptor, data, has)
            except OSError:
                os.ftruncate(descriptor, has)
                raise
        return replace(upload, offset=offset + len(data))

    def finish(self, actor: str, upload_id: int) -> Upload:
        """Check the whole file, and keep it as an artifact. Safe to repeat.

        Raises NotFound, WrongState while bytes are missing, BadSource for another content or no source package of the
        target's format; such an upload begins again at 0. Raises StoreTrouble.
        """
        upload = self._store.upload(actor, upload_id, now=datetime.now(UTC))
        if upload.is_finished:
            return upload
        with self._open(upload) as descriptor:
            has = os.fstat(descriptor).st_size
            if has != upload.size_bytes:
                raise WrongState(f"upload {upload_id} has {has} of {upload.size_bytes} bytes; send the rest first")
            with open(descriptor, "rb", closefd=False) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != upload.sha256:
                os.ftruncate(descriptor, 0)
                raise BadSource(f"upload {upload_id} has the sha256 {found} and not {upload.sha256}; send it again")
            kept = keep_package(self._path(upload), upload.filename, self._artifacts())
        if kept.sha256 != upload.sha256:
            raise StoreTrouble(f"upload {upload_id} changed while it was stored; send it again")
        self._store.finish_upload(upload_id)
        return replace(upload, offset=upload.size_bytes, is_finished=True)

    def check_head(self, upload: Upload, form: Format) -> None:
        """Raises BadSource if the first bytes of the parts are not those of a source package of this format."""
        with disk_errors(StoreTrouble, f"upload {upload.id} was not read"), self._path(upload).open("rb") as file:
            head = file.read(form.head_bytes)
        if problem := form.source_problem(head, upload.size_bytes):
            raise BadSource(f"upload {upload.id} ({upload.filename!r}) {problem}")

    def delete(self, actor: str, upload_id: int) -> None:
        """Forget the upload. Raises NotFound, and WrongState for a finished one, which counts until it expires."""
        upload = self._store.upload(actor, upload_id, now=datetime.now(UTC))
        if upload.is_finished:
            raise WrongState(f"upload {upload_id} is finished, and ends by itself at {upload.expires_at:%H:%M} UTC")
        self._store.delete_upload(upload.id)
        self._remove([upload])

    def source(self, actor: str, sha256: str, form: Format) -> Source:
        """The source of a finished upload of this actor. Raises NotFound, BadSource for another format."""
        upload = self._store.finished_upload(actor, sha256, now=datetime.now(UTC))
        with self._artifacts().open(upload.sha256) as file:
            head = file.read(form.head_bytes)
        if problem := form.source_problem(head, upload.size_bytes):
            raise BadSource(f"the uploaded {upload.filename!r} {problem}")
        return stored_source(upload.sha256, upload.filename)

    def _path(self, upload: Upload) -> Path:
        """A database may give the number of a deleted upload again, so the name also has what tells both apart."""
        words = f"{upload.actor}\0{upload.sha256}\0{upload.expires_at.isoformat()}"
        return self._folder / f"{upload.id}-{hashlib.sha256(words.encode()).hexdigest()[:32]}"

    def _remove(self, gone: Iterable[Upload]) -> None:
        for upload in gone:
            self._path(upload).unlink(missing_ok=True)

    def _check_room(self, size: int) -> None:
        """Raises StoreTrouble when the disk would be nearly full: workers and the database need it too."""
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize - size < _FREE_SHARE * disk.f_blocks * disk.f_frsize:
            raise StoreTrouble("the disk of the uploads is nearly full; have `farm gc` make room, and go on")

    def _with_offset(self, upload: Upload) -> Upload:
        if upload.is_finished:
            return upload
        try:
            return replace(upload, offset=self._path(upload).stat().st_size)
        except FileNotFoundError:
            return upload

    @contextmanager
    def _open(self, upload: Upload) -> Iterator[int]:
        """The file of the parts, for one caller at a time. Raises WrongState while another one has it."""
        with disk_errors(StoreTrouble, f"a part of upload {upload.id} was not stored"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path(upload), flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._check_there(upload)
                yield descriptor
            except BlockingIOError as error:
                raise WrongState(f"another request sends a part of upload {upload.id}; send one at a time") from error
            finally:
                os.close(descriptor)

    def _check_there(self, upload: Upload) -> None:
        """Raises NotFound or WrongState, and deletes the file, if the upload ended before its file was locked."""
        try:
            found = self._store.upload(upload.actor, upload.id, now=datetime.now(UTC))
            if found.is_finished or found.expires_at != upload.expires_at:
                raise WrongState(f"upload {upload.id} ended; ask for it again")
        except (NotFound, WrongState):
            self._remove([upload])
            raise

    def _sweep(self) -> None:
        """Delete files that a server left when it was killed."""
        oldest = time.clock_gettime(time.CLOCK_REALTIME) - 2 * KEPT.total_seconds()
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
