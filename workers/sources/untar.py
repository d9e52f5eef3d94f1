"""Reads a tar that may be hostile, in bounded memory.

Python's tarfile keeps every member that it has seen, and reads the whole of an extended header at once.
"""

import tarfile
from collections.abc import Iterator
from io import BufferedReader
from typing import IO, cast

from farm.model.outcome import Outcome
from workers.core.context import Ended

_READ_MAX_BYTES = 2**20
_MEMBERS_MAX = 200_000


class _Frugal:
    """A stream for tarfile with a bound for one read: tarfile reads more at once only for a header of such a size."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream

    def read(self, size_bytes: int = -1) -> bytes:
        if not 0 <= size_bytes <= _READ_MAX_BYTES:
            raise Ended(
                Outcome.OVER_LIMIT, f"a header in the archive has {size_bytes} bytes; no file's name needs so many"
            )
        return self._stream.read(size_bytes)

    def seek(self, at: int) -> int:
        return self._stream.seek(at)

    def tell(self) -> int:
        return self._stream.tell()


def open_tar(stream: BufferedReader) -> tarfile.TarFile:
    """Open an uncompressed tar; bytes of names that are not UTF-8 become surrogates. Raises tarfile.TarError."""
    frugal = cast("IO[bytes]", _Frugal(stream))
    return tarfile.open(fileobj=frugal, mode="r:", encoding="utf-8", errors="surrogateescape")


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, one after the other, each forgotten afterwards. Raises Ended if there are too many."""
    count = 0
    while (member := tar.next()) is not None:
        count += 1
        if count > _MEMBERS_MAX:
            raise Ended(Outcome.OVER_LIMIT, f"the archive has more than {_MEMBERS_MAX} members; no package has so many")
        yield member
        tar.members.clear()  # type: ignore[attr-defined] # typeshed does not have it
