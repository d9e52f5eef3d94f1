"""The header structure of an RPM: its index in memory, its data in the file.

Owns the bounds, which are rpm's own, and the types of data; not the meaning of tags. Of a hostile header of 256 MiB
only the wanted tags are read. Format: RPM's docs/manual/format_v4.md.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from farm.errors import FarmError

_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_HEADER_START = struct.Struct(">4s4xII")
_INDEX_ENTRY = struct.Struct(">IIII")
_TAGS_MAX = 0xFFFF  # rpm's own limit (lib/header.c)
_STRING_MAX_BYTES = 4096
_STRINGS_MAX_BYTES = 64 * 2**20
#: The values of one tag, such as BuildRequires. rpm has no limit but the size of the header.
VALUES_MAX = 100_000
_CHUNK_BYTES = 2**20

_INT32, _INT64, _STRING, _STRING_ARRAY, _I18N = 4, 5, 6, 8, 9
_INTEGERS = {_INT32: struct.Struct(">I"), _INT64: struct.Struct(">Q")}


class BadRpm(FarmError):
    """The file is not a whole package of the wanted kind. The argument ends a sentence that starts with its name."""

    code = "bad-rpm"
    exit_code = 54


@dataclass(frozen=True, kw_only=True)
class Header:
    """One header structure: where each tag's data is, from the byte `data_at` of the file on. It is `start` to `end`
    that digests see. Of a hostile header of 256 MiB only the wanted tags are read."""

    entries: dict[int, tuple[int, int, int]]
    file: BinaryIO
    start: int
    data_at: int
    end: int

    def text(self, tag: int) -> str | None:
        """The tag's (first) string. Raises BadRpm if it is there and is not one."""
        found = self.entries.get(tag)
        if found is None:
            return None
        kind, offset, count = found
        if kind not in (_STRING, _STRING_ARRAY, _I18N) or count < 1:
            raise BadRpm(f"has a damaged header: tag {tag} is not a string")
        data = self._read(offset, _STRING_MAX_BYTES)
        end = data.find(b"\0")
        if end < 0:
            raise self._endless(tag, offset, len(data))
        return data[:end].decode("utf-8", "backslashreplace")

    def number(self, tag: int) -> int | None:
        """The tag's (first) number. Raises BadRpm if it is there and is not one."""
        found = self.entries.get(tag)
        if found is None:
            return None
        kind, offset, count = found
        form = _INTEGERS.get(kind)
        data = self._read(offset, form.size) if form is not None else b""
        if form is None or count < 1 or len(data) < form.size:
            raise BadRpm(f"has a damaged header: tag {tag} is not a number")
        value: int = form.unpack(data)[0]
        return value

    def texts(self, tag: int) -> tuple[str, ...]:
        """The tag's strings in ASCII, each on one line; none without the tag. Raises BadRpm if it is something else."""
        kind, offset, count = self.entries.get(tag, (_STRING_ARRAY, 0, 0))
        if kind not in (_STRING, _STRING_ARRAY):
            raise BadRpm(f"has a damaged header: tag {tag} is not a list of strings")
        _check_count(tag, count)
        return tuple(
            " ".join(one.decode("ascii", "backslashreplace").split()) for one in self._strings(tag, offset, count)
        )

    def raw_texts(self, tag: int) -> Iterator[bytes]:
        """The tag's strings of any kind as they are. Raises BadRpm as `texts` does."""
        kind, offset, count = self.entries.get(tag, (_STRING_ARRAY, 0, 0))
        if kind in (_STRING, _STRING_ARRAY, _I18N):
            yield from self._strings(tag, offset, count, longest_bytes=_CHUNK_BYTES)

    def _strings(self, tag: int, offset: int, count: int, longest_bytes: int = _STRING_MAX_BYTES) -> Iterator[bytes]:
        data, start, size_bytes = b"", 0, 0
        for _ in range(count):
            end = data.find(b"\0", start)
            if end < 0:
                data, start = self._read(offset + size_bytes, _CHUNK_BYTES), 0
                end = data.find(b"\0")
            if end < 0 or end - start >= longest_bytes:
                raise self._endless(tag, offset + size_bytes, len(data) - start)
            size_bytes += end + 1 - start
            if size_bytes > _STRINGS_MAX_BYTES:
                raise BadRpm(f"has more than {_STRINGS_MAX_BYTES // 2**20} MiB in tag {tag}; the farm takes no more")
            yield data[start:end]
            start = end + 1

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The tag's 32-bit numbers, none when it is not there. Raises BadRpm if it is something else."""
        kind, offset, count = self.entries.get(tag, (_INT32, 0, 0))
        _check_count(tag, count)
        data = self._read(offset, 4 * count) if kind == _INT32 else b""
        if kind != _INT32 or len(data) < 4 * count:
            raise BadRpm(f"has a damaged header: tag {tag} is not a list of numbers")
        return struct.unpack(f">{count}I", data)

    def digest(self, algorithm: str) -> str:
        """The digest of the whole structure, in hexadecimal digits."""
        self.file.seek(self.start)
        digest, left = hashlib.new(algorithm, usedforsecurity=False), self.end - self.start
        while left > 0 and (chunk := self.file.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        return digest.hexdigest()

    def _read(self, offset: int, size_bytes: int) -> bytes:
        """The data from `offset` on, at most so much."""
        self.file.seek(self.data_at + offset)
        return self.file.read(max(0, min(size_bytes, self.end - self.data_at - offset)))

    def _endless(self, tag: int, offset: int, found_bytes: int) -> BadRpm:
        if found_bytes >= _STRING_MAX_BYTES:
            return BadRpm(f"has a string of more than {_STRING_MAX_BYTES} bytes in tag {tag}; the farm takes no more")
        return BadRpm(f"has a damaged header: a string of tag {tag} does not end, at byte {offset}")


def _check_count(tag: int, count: int) -> None:
    if count > VALUES_MAX:
        raise BadRpm(f"has {count} values in tag {tag}; the farm takes at most {VALUES_MAX}")


def read_header(file: BinaryIO, size_bytes: int, what: str, max_bytes: int, *, at: int) -> Header:
    """The header structure at this place. `what` names it in messages. Raises BadRpm."""
    file.seek(at)
    start = file.read(_HEADER_START.size)
    if len(start) < _HEADER_START.size:
        raise truncated(size_bytes, at + _HEADER_START.size)
    magic, entry_count, data_bytes = _HEADER_START.unpack(start)
    if magic != _HEADER_MAGIC:
        raise BadRpm(f"is not an RPM package: its {what} does not start as one")
    if entry_count > _TAGS_MAX or data_bytes > max_bytes:
        raise BadRpm(
            f"has a {what} of {entry_count} tags in {data_bytes} bytes; rpm itself takes at most {_TAGS_MAX} tags "
            f"in {max_bytes} bytes"
        )
    data_at = at + _HEADER_START.size + entry_count * _INDEX_ENTRY.size
    if data_at + data_bytes > size_bytes:
        raise truncated(size_bytes, data_at + data_bytes)
    index = file.read(data_at - file.tell())
    if file.tell() < data_at:
        raise truncated(size_bytes, data_at + data_bytes)
    entries: dict[int, tuple[int, int, int]] = {}
    for tag, kind, offset, count in _INDEX_ENTRY.iter_unpack(index):
        if offset > data_bytes or count > data_bytes:
            raise BadRpm(f"has a damaged {what}: tag {tag} points outside of it")
        if tag in entries:
            raise BadRpm(f"has a damaged {what}: tag {tag} is there twice")
        entries[tag] = (kind, offset, count)
    return Header(entries=entries, file=file, start=at, data_at=data_at, end=data_at + data_bytes)


def truncated(size_bytes: int, wanted_bytes: int) -> BadRpm:
    """The error for a file that ends before a header says that it does."""
    return BadRpm(f"is truncated: it has {size_bytes} bytes, its header says {wanted_bytes}")
