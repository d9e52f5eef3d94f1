"""Finds the reason of a failed build in its log: one line, and the lines around it.

Owns the search and its bounds: a log is hostile, so the result is printable text of bounded length, and the time is
linear in a bounded part of the log. Does not own the messages of tools (reason_patterns.py), nor the outcome of a
build, which the engine decides.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from farm.model.text import clip, printable
from workers.formats.base import Reason
from workers.formats.rpm.reason_patterns import ANYWHERE, OF_PHASE, SURROUNDINGS, Pattern

TAIL_BYTES = 4 * 2**20
HEAD_BYTES = 256 * 2**10
LINE_CHARS = 300
EXCERPT_LINES = 40

_LINES_BEFORE = 25
_LINE_BYTES = 1000  # the part of a log line that is decoded and matched
_CANDIDATES = 100  # the lines with a pattern's needle that are tried before the pattern counts as absent
_FOLLOWING = 200  # the lines after a match that may hold its items
_SKIPPED_BYTES = b"\n[farm] the reason finder left out the lines between\n"

_CUT = re.compile(rb"\n\[farm\] (the log reached its limit of \d+ bytes)[^\n]*\n?\Z")
_BAD_EXIT = re.compile(rb"^(?:BUILDSTDERR: )?error: Bad exit status from \S{1,200} \((%?[a-z_]{1,40})\)", re.MULTILINE)
_BAD_EXIT_NEEDLE = b"error: Bad exit status from "
_PREFIX = re.compile(r"(?:BUILDSTDERR: |(?:DEBUG|INFO|ERROR) [\w.]+:\d+: +)")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*[mK]")
_SCRIPT_END = re.compile(r"exit\b|:$|RPM_EC=|jobs -p")


def find_reason(log: Path, *, limit_bytes: int = TAIL_BYTES) -> Reason | None:
    """The most specific reason in the log's last `limit_bytes` and its first HEAD_BYTES; None for an empty log.

    Its line has at most LINE_CHARS characters, its excerpt at most EXCERPT_LINES such lines. Its phase is `%prep`,
    `%build`, … for a failed script, else `%files`, `dependencies`, `spec`, `limits`, `timeout`, `log`, or empty.

    Raises OSError when the log cannot be read.
    """
    text = _read(log, limit_bytes)
    if cut := _CUT.search(text):
        # The failure came after the cut: any reason before it would be a guess.
        why = f"{cut.group(1).decode()}, and the rest, with the failure, is not kept"
        return _reason(text, cut.start() + 1, why, "log")
    if bad_exit := _bad_exit(text):
        return _in_phase(text, bad_exit)
    for phase, patterns in ANYWHERE:
        if found := _search(text, patterns, 0, len(text)):
            return _reason(text, *found, phase)
    return _last_words(text)


def _line_shown(raw: bytes) -> str:
    """One log line for people: bytes that are not UTF-8, control and direction codes are escaped.

    Colours are removed, and of a line that was overwritten, the last text is kept.
    """
    line = raw[:_LINE_BYTES].rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="backslashreplace")
    return clip(printable(_COLOUR.sub("", line).expandtabs(4)), LINE_CHARS)


def _read(log: Path, limit_bytes: int) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size <= limit_bytes + HEAD_BYTES:
            return file.read(size)
        head = file.read(HEAD_BYTES)
        file.seek(size - limit_bytes)
        return head + _SKIPPED_BYTES + file.read(limit_bytes)


def _bad_exit(text: bytes) -> re.Match[bytes] | None:
    """rpmbuild's own message about the script that failed, after which no other script runs: a recipe may print such a
    line too, as rpm's own tests do."""
    end = len(text)
    for _ in range(_CANDIDATES):
        at = text.rfind(_BAD_EXIT_NEEDLE, 0, end)
        if at < 0 or text.find(b"\nExecuting(%", at) >= 0:
            return None
        if found := _BAD_EXIT.match(text, _line_start(text, at)):
            return found
        end = at
    return None


def _in_phase(text: bytes, bad_exit: re.Match[bytes]) -> Reason:
    """The reason in the output of the failed script: between its start and rpmbuild's message about its end."""
    phase = bad_exit.group(1).decode()
    end = bad_exit.start()
    start = max(text.rfind(b"Executing(%s):" % bad_exit.group(1), 0, end), 0)
    if found := _search(text, (*SURROUNDINGS, *OF_PHASE.get(phase, OF_PHASE["%build"])), start, end):
        return _reason(text, *found, phase)
    at, line = _last_command(text, start, end)
    return _reason(text, at, f"{phase} failed: {line}" if line else f"{phase} failed", phase)


def _search(text: bytes, patterns: tuple[Pattern, ...], start: int, end: int) -> tuple[int, str] | None:
    """The place and the reason of the first pattern that matches."""
    for pattern in patterns:
        for at in _candidates(text, pattern, start, end):
            line = _PREFIX.sub("", _line_shown(_line(text, at)), count=1)
            match = pattern.line.match(line)
            if match is None or line.startswith("+ "):
                continue
            items = _items(text, at, pattern)
            if not items and pattern.say == "{items}":
                continue
            return at, pattern.say.format_map({**match.groupdict(""), "line": line, "items": items}).strip(" ,")
    return None


def _candidates(text: bytes, pattern: Pattern, start: int, end: int) -> Iterator[int]:
    """Starts of lines with the needle, at most _CANDIDATES of them, from the end for a pattern with `last`."""
    for _ in range(_CANDIDATES):
        at = text.rfind(pattern.needle, start, end) if pattern.last else text.find(pattern.needle, start, end)
        if at < 0:
            return
        line_at = _line_start(text, at)
        yield line_at
        if pattern.last:
            end = line_at
        else:
            start = _line_end(text, at) + 1


def _items(text: bytes, at: int, pattern: Pattern) -> str:
    """The items of the lines after a match, joined: the first `items_max`, and the number of others."""
    if pattern.item is None:
        return ""
    items: list[str] = []
    more = 0
    for _, raw in zip(range(_FOLLOWING), _lines_from(text, _line_end(text, at) + 1), strict=False):
        line = _PREFIX.sub("", _line_shown(raw), count=1)
        if found := pattern.item.match(line):
            if len(items) < pattern.items_max:
                items.append(found.group("item"))
            else:
                more += 1
            if pattern.items_max == 1:
                break
        elif pattern.skip is None or not pattern.skip.match(line):
            break
    return ", ".join(items) + (f" and {more} more" if more and pattern.skip is None else "")


def _last_command(text: bytes, start: int, end: int) -> tuple[int, str]:
    """For a script without a known message: its last command as the shell traced it, and its last output."""
    command, output, at = "", "", end
    for _ in range(_LINES_BEFORE):
        line_end = at - 1
        if line_end <= start:
            break
        at = max(text.rfind(b"\n", start, line_end) + 1, start)
        line = _line_shown(text[at : min(line_end, at + _LINE_BYTES)])
        if line.startswith("+ "):
            command = line.lstrip("+ ")
            if not _SCRIPT_END.match(command):
                break
            command = ""
        elif line.strip() and not output and not line.startswith("Executing("):
            output = line.strip()
    return at, " from ".join(part for part in (output, f"`{command}`" if command else "") if part)


def _last_words(text: bytes) -> Reason | None:
    """For a log without a known message: its last line that is not the farm's own."""
    at = len(text)
    for _ in range(_FOLLOWING):
        if at <= 0:
            return None
        at = _line_start(text, at - 1)
        line = _line_shown(_line(text, at)).strip()
        if line and not line.startswith("[farm] "):
            return _reason(text, at, f"the log ends with: {line}", "")
    return None


def _reason(text: bytes, at: int, line: str, phase: str) -> Reason:
    """The reason with its excerpt: lines before the one at `at`, that line, and lines after it."""
    first = at
    for _ in range(_LINES_BEFORE):
        if first <= 0:
            break
        first = _line_start(text, first - 1)
    lines = [_line_shown(raw) for _, raw in zip(range(EXCERPT_LINES), _lines_from(text, first), strict=False)]
    return Reason(line=clip(" ".join(line.split()), LINE_CHARS), excerpt="\n".join(lines), phase=phase)


def _lines_from(text: bytes, at: int) -> Iterator[bytes]:
    while at < len(text):
        yield _line(text, at)
        at = _line_end(text, at) + 1


def _line(text: bytes, at: int) -> bytes:
    return text[at : min(_line_end(text, at), at + _LINE_BYTES)]


def _line_start(text: bytes, at: int) -> int:
    return text.rfind(b"\n", 0, at) + 1


def _line_end(text: bytes, at: int) -> int:
    found = text.find(b"\n", at)
    return len(text) if found < 0 else found
