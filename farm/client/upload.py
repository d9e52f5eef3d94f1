"""Sends a source package to a farm's server in parts, and goes on after a lost connection."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from farm.client.http import HttpClient
from farm.errors import BadSource, FarmNotRunning, StoreTrouble, TooManyRequests, WrongState
from farm.model.upload import Upload
from farm.service.bodies import UploadOrder

#: Called with the file's name, the bytes that the server has, and all.
Progress = Callable[[str, int, int], None]
_LEAST, _MOST = 2**16, 8 * 2**20
#: A part takes about so long, since a server waits half a minute for a request.
_PART_S = 4.0
_PATIENCE_S = 30.0
_PAUSE_S = 0.5


def upload(http: HttpClient, path: Path, *, target: str, progress: Progress) -> Upload:
    """Send the file, from where an earlier try ended on. Raises BadSource for a file that cannot be read, and what the
    server answers.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            order = UploadOrder(filename=path.name, size_bytes=size, sha256=sha256, target=target)
            begun = http.post(Upload, "uploads", body=order)
            sender = _Sender(http, begun.id, begun.offset)
            while sender.offset < size:
                progress(path.name, sender.offset, size)
                file.seek(sender.offset)
                sender.send(file.read(sender.part_bytes))
    except OSError as error:
        raise BadSource(f"{str(path)!r} cannot be read: {error.strerror}") from error
    progress(path.name, size, size)
    return http.post(Upload, "uploads", begun.id, "finish")


class _Sender:
    """Sends parts of an upload. The server says at which offset it goes on."""

    def __init__(self, http: HttpClient, upload_id: int, offset: int) -> None:
        self._http = http
        self._id = upload_id
        self._gives_up_at: float | None = None
        self.offset = offset
        self.part_bytes = 2**20

    def send(self, data: bytes) -> None:
        """Send the bytes at `offset`. Raises FarmNotRunning when the server has not answered for half a minute."""
        began_at = time.monotonic()
        try:
            self.offset = self._http.patch(Upload, "uploads", self._id, data=data, offset=self.offset).offset
            self._gives_up_at = None
        except (FarmNotRunning, StoreTrouble, TooManyRequests, WrongState):
            self._gives_up_at = self._gives_up_at or began_at + _PATIENCE_S
            if time.monotonic() > self._gives_up_at:
                raise
            self.part_bytes = max(_LEAST, self.part_bytes // 4)
            time.sleep(_PAUSE_S)
            self._ask()
            return
        took_s = time.monotonic() - began_at
        wanted = int(len(data) * _PART_S / max(took_s, 0.001))
        self.part_bytes = min(max(wanted, _LEAST, self.part_bytes // 2), _MOST, 2 * self.part_bytes)

    def _ask(self) -> None:
        try:
            self.offset = self._http.get(Upload, "uploads", self._id).offset
        except (FarmNotRunning, TooManyRequests):
            return  # the next part finds out
