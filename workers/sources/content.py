"""A file's bytes, wherever they are stored: in a tar, in a mirror, or in a file of the work folder."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workers.core.context import open_watched


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """A file's bytes as a part of a larger file: `size_bytes` from `offset` on in `file`."""

    file: Path
    offset: int
    size_bytes: int

    def open(self, stop: threading.Event) -> IO[bytes]:
        """The open file at its first byte. Only the next `size_bytes` are this file's. To read raises LeaseLost once
        `stop` is set."""
        stream = open_watched(self.file, stop)
        stream.seek(self.offset)
        return stream

    def read(self) -> bytes:
        with self.open(threading.Event()) as stream:
            return stream.read(self.size_bytes)
