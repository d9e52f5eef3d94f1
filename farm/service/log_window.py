"""A part of an attempt's log for a viewer: whole lines around a byte, with their numbers, and the places of a text.

Each question reads a bounded part of the log, however long the log is. This module does not decode what it reads.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from farm.artifacts.base import ArtifactStore
from farm.model.artifact import Artifact
from farm.model.text import printable

#: A longer line is shown in pieces, each as a line of its own.
LINE_MAX = 4096
_BLOCK = 2**16
_READ = 2**20
_SEARCHED_MAX = 32 * 2**20
_HITS_MAX = 100
_INDEXES_MAX = 64
_OF_THE_FARM = b"[farm] "
_CONTINUATION = range(0x80, 0xC0)


class LogText(Protocol):
    """A log as far as it is known now. `is_over` when no byte comes after these."""

    attempt: str
    size: int
    is_over: bool

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from there on."""

    def lines_before(self, offset: int) -> int:
        """The number of line ends before the byte at `offset`."""


@dataclass(frozen=True, kw_only=True)
class LogWindow:
    """Lines of a log, each with the offset of its first byte. `number` is that of the first line, from 1. `start` and
    `end` are the offsets at which the lines before and after it are read. `is_over` when the log ends with these lines
    and gets no more.
    """

    attempt: str
    lines: tuple[tuple[int, bytes], ...]
    start: int
    end: int
    size: int
    number: int
    is_over: bool


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The lines with a text that was searched, by offset; `next` is where the search goes on, None at the end."""

    lines: tuple[tuple[int, bytes], ...]
    next: int | None


class LineIndex:
    """How many line ends are before each block of a stored log. Keeps the indexes of the logs that were read last."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._kept: OrderedDict[str, Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def before(self, sha256: str, offset: int) -> int:
        """The number of line ends before the byte at `offset`."""
        counts = self._counts(sha256)
        block = min(offset // _BLOCK, len(counts) - 1)
        with self._store.open(sha256, block * _BLOCK) as file:
            return counts[block] + file.read(offset - block * _BLOCK).count(b"\n")

    def _counts(self, sha256: str) -> Sequence[int]:
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
        with self._store.open(sha256) as file:
            counted = [data.count(b"\n") for data in iter(lambda: file.read(_BLOCK), b"")]
        counts = tuple(accumulate(counted, initial=0))
        with self._lock:
            self._kept[sha256] = counts
            while len(self._kept) > _INDEXES_MAX:
                self._kept.popitem(last=False)
        return counts


class StoredLog:
    """The whole log of an attempt that is over."""

    is_over = True

    def __init__(self, attempt: str, artifact: Artifact, store: ArtifactStore, index: LineIndex) -> None:
        self.attempt = attempt
        self.size = artifact.size_bytes
        self._sha256 = artifact.sha256
        self._store = store
        self._index = index

    def read(self, offset: int, limit: int) -> bytes:
        with self._store.open(self._sha256, offset) as file:
            return file.read(limit)

    def lines_before(self, offset: int) -> int:
        return self._index.before(self._sha256, offset)


class LiveLog:
    """The log of a running attempt, from the byte `base` on; the lines before that are not counted."""

    is_over = False

    def __init__(self, attempt: str, data: bytes, base: int = 0) -> None:
        self.attempt = attempt
        self.size = base + len(data)
        self._data = data
        self._base = base

    def read(self, offset: int, limit: int) -> bytes:
        start = max(0, offset - self._base)
        return self._data[start : start + limit]

    def lines_before(self, offset: int) -> int:
        return self._data.count(b"\n", 0, max(0, offset - self._base))


def window_after(log: LogText, offset: int, limit: int) -> LogWindow:
    """Lines from the byte at `offset` on, which begins one."""
    data = log.read(offset, limit)
    if offset + len(data) < log.size:
        data = data[: _whole(data)]
    return _window(log, offset, data)


def window_before(log: LogText, offset: int, limit: int) -> LogWindow:
    """The lines that end before the byte at `offset`."""
    offset = min(offset, log.size)
    start = max(0, offset - limit)
    data = log.read(start, offset - start)
    skipped = 0 if start == 0 else data.find(b"\n", 0, LINE_MAX) + 1
    return _window(log, start + skipped, data[skipped:])


def window_around(log: LogText, offset: int, limit: int) -> LogWindow:
    """Lines before and after the one with the byte at `offset`."""
    offset = min(offset, log.size)
    start = max(0, offset - limit // 4)
    head = log.read(start, LINE_MAX)
    skipped = 0 if start == 0 else head.find(b"\n", 0, max(0, offset - start)) + 1
    return window_after(log, start + skipped, limit)


def search(log: LogText, text: str, offset: int) -> Hits:
    """Lines with this text, without regard to the case of ASCII letters, from the byte at `offset` on."""
    needle = text.encode(errors="replace").lower()
    found: list[tuple[int, bytes]] = []
    end = min(log.size, offset + _SEARCHED_MAX)
    at = offset
    while at < end:
        data = log.read(at, min(_READ, end - at))
        is_last = at + len(data) >= end or not data
        whole = len(data) if is_last else _whole(data)
        for start, line in _lines_with(data[:whole], needle):
            found.append((at + start, line))
            if len(found) == _HITS_MAX:
                return Hits(lines=tuple(found), next=at + start + len(line) + 1)
        at += whole
        if is_last:
            break
    return Hits(lines=tuple(found), next=at if at < log.size else None)


def telling_offset(log: LogText, reason: str) -> int | None:
    """The byte at which the last line begins that has the words of this reason; None if no line near the end has. A
    line in which the farm repeats the reason counts only if there is no other."""
    pattern = _pattern_of(reason)
    if pattern is None:
        return None
    end, said = log.size, None
    least = max(0, end - _SEARCHED_MAX)
    while end > least:
        start = max(least, end - _READ)
        data = log.read(start, min(_READ + LINE_MAX, log.size - start))
        lines = [data.rfind(b"\n", 0, found.start()) + 1 for found in pattern.finditer(data)]
        own = [line for line in lines if not data.startswith(_OF_THE_FARM, line)]
        if own:
            return start + own[-1]
        if lines and said is None:
            said = start + lines[-1]
        end = start
    return said


def _pattern_of(reason: str) -> "re.Pattern[bytes] | None":
    """The longest run of words that stands in the log as it stands in the reason, which escapes and shortens."""
    runs: list[list[str]] = [[]]
    for word in reason.removeprefix("the log ends with: ").split():
        if word.isascii() and "\\" not in word:
            runs[-1].append(word)
        else:
            runs.append([])
    best = max(runs, key=lambda run: sum(map(len, run)))
    if sum(map(len, best)) < 4:
        return None
    return re.compile(rb"[ \t]+".join(re.escape(word.encode()) for word in best))


def _whole(data: bytes) -> int:
    """The length of the whole lines in it; of nearly all of it if it has no line end."""
    if end := data.rfind(b"\n") + 1:
        return end
    return _cut(data, len(data))


def _cut(data: bytes, at: int) -> int:
    """The same place or up to three bytes before it, so that no character is cut."""
    for back in range(4):
        if at - back > 0 and (at - back >= len(data) or data[at - back] not in _CONTINUATION):
            return at - back
    return at


def _window(log: LogText, start: int, data: bytes) -> LogWindow:
    lines = tuple(_split(start, data))
    end = start + len(data)
    is_partial = bool(lines) and not data.endswith(b"\n") and not log.is_over and end == log.size
    return LogWindow(
        attempt=log.attempt,
        lines=lines,
        start=start,
        end=lines[-1][0] if is_partial else end,
        size=log.size,
        number=log.lines_before(start) + 1,
        is_over=log.is_over and end >= log.size,
    )


def _split(start: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines without their ends; a long one in pieces."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at, at + LINE_MAX)
        if end >= 0:
            yield start + at, data[at:end].removesuffix(b"\r")
            at = end + 1
        else:
            until = _cut(data, min(len(data), at + LINE_MAX))
            yield start + at, data[at:until]
            at = until


def _lines_with(data: bytes, needle: bytes) -> Iterator[tuple[int, bytes]]:
    lowered = data.lower()
    at = lowered.find(needle)
    while at >= 0:
        start = max(data.rfind(b"\n", 0, at) + 1, at - LINE_MAX // 2)
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield start, data[start : min(end, start + LINE_MAX)]
        at = lowered.find(needle, max(end, at + 1))


def shown_hit(line: bytes, limit: int) -> str:
    """The line for a list of hits."""
    return printable(line[: 4 * limit], keep="\t")[:limit]
