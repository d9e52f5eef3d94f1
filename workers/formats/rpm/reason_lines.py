"""A log as text: reads a bounded part of it, as a terminal would leave it, and finds its lines.

Owns what a line is: bytes between newlines, of which a bounded part is decoded, with all escapes that people must not
meet. Does not know any tool's messages.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from farm.model.text import clip, printable

HEAD_BYTES = 256 * 2**10
LINE_CHARS = 300

_LINE_BYTES = 1000  # the part of a log line that is decoded and matched
_SKIPPED_BYTES = b"\n[farm] the reason finder left out the lines between\n"
_COLOUR = re.compile(rb"\x1b\[[0-9;:]{0,40}[mK]")
_TITLE_OR_MOVE = r"\x1b(?:\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|\[[0-9;?]{0,40}[A-Za-z])"
_CONTROL_AT_START = re.compile(rf"(?:[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|{_TITLE_OR_MOVE}){{1,400}}")


def read(log: Path, limit_bytes: int) -> bytes:
    """The first HEAD_BYTES of a log and the last `limit_bytes`, as a terminal leaves them. Raises OSError."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size <= limit_bytes + HEAD_BYTES:
            return _as_shown(file.read(size))
        head = file.read(HEAD_BYTES)
        file.seek(size - limit_bytes)
        return _as_shown(head + _SKIPPED_BYTES + file.read(limit_bytes))


def shown_at(text: bytes, at: int, end: int | None = None) -> str:
    """The line that starts at `at`, up to `end` at most, for people."""
    return line_shown(line_at(text, at, end))


def line_shown(raw: bytes) -> str:
    """One log line for people: bytes that are not UTF-8, control and direction codes are escaped.

    Colours are removed, and of a line that was overwritten, the last text is kept.
    """
    return clip(printable(_decoded(raw).expandtabs(4)), LINE_CHARS)


def lines_from(text: bytes, at: int, end: int | None = None) -> Iterator[bytes]:
    """The lines from `at` on, those that start before `end`."""
    for start in starts_from(text, at, end):
        yield line_at(text, start, end)


def starts_from(text: bytes, at: int, end: int | None = None) -> Iterator[int]:
    """The starts of the lines from `at` on."""
    end = len(text) if end is None else end
    while at < end:
        yield at
        at = line_end(text, at) + 1


def line_at(text: bytes, at: int, end: int | None = None) -> bytes:
    stop = min(line_end(text, at), at + _LINE_BYTES)
    return text[at : stop if end is None else min(stop, end)]


def line_start(text: bytes, at: int) -> int:
    return text.rfind(b"\n", 0, at) + 1


def line_end(text: bytes, at: int) -> int:
    found = text.find(b"\n", at)
    return len(text) if found < 0 else found


def _decoded(raw: bytes) -> str:
    """The text of a line without the control characters at its start, such as NUL bytes or a window's title."""
    line = raw[:_LINE_BYTES].decode(errors="backslashreplace")
    found = _CONTROL_AT_START.match(line)
    return line[found.end() :] if found else line


def _as_shown(text: bytes) -> bytes:
    """The text as a terminal leaves it: without colours, and of an overwritten line, as of a progress bar, the end."""
    if b"\x1b" in text:
        text = _COLOUR.sub(b"", text)
    if b"\r" not in text:
        return text
    return b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in text.split(b"\n"))
