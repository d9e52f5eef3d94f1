"""Finds the reason of a failed build in its log: one line, and the lines around it.

Owns the order of the search and its bounds: a log is hostile, so the result is printable text of bounded length, and
the time is linear in a bounded part of the log. Does not own the messages of tools (reason_patterns.py, reason_rpm.py),
how unknown messages are recognized (reason_block.py), nor the outcome of a build, which the engine decides.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from farm.model.text import clip
from workers.formats.base import Reason
from workers.formats.rpm import reason_block
from workers.formats.rpm.reason_command import TRACE, TRACE_WITHIN, Last, last_command
from workers.formats.rpm.reason_likely import STRONG
from workers.formats.rpm.reason_lines import (
    LINE_CHARS,
    line_end,
    line_shown,
    line_start,
    lines_from,
    read,
    shown_at,
)
from workers.formats.rpm.reason_patterns import FILES, OF_PHASE, SURROUNDINGS, Pattern
from workers.formats.rpm.reason_rpm import ANYWHERE

TAIL_BYTES = 4 * 2**20
EXCERPT_LINES = 40

_LINES_BEFORE = 25
_CANDIDATES = 100  # the lines with a pattern's needle that are tried before the pattern counts as absent
_FOLLOWING = 200  # the lines after a match that may hold its items
_ABOVE = 5
_BEFORE_BYTES = 64 * 2**10

_CUT = re.compile(rb"\n\[farm\] (the log reached its limit of \d+ bytes)[^\n]*\n?\Z")
_BAD_EXIT = re.compile(rb"error: Bad exit status from \S{1,200} \((%?[a-z_]{1,40})\)")
_BAD_EXIT_NEEDLE = b"error: Bad exit status from "
_PREFIX = re.compile(r"(?:BUILDSTDERR: |(?:DEBUG|INFO|ERROR) [\w.]+:\d+: +)")
_STARTED = re.compile(rb"Executing\((%[a-z_]{1,40})\): ")
_STARTED_NEEDLE = b"Executing(%"
#: Messages of rpmbuild after which no script runs any more, so that the last script has ended.
_SCRIPT_OVER = (b"\nerror: ", b"\nProcessing files: ", b"\nRPM build errors:", b"\nWrote: ", b"commandTimeoutExpired")


def find_reason(log: Path, *, limit_bytes: int = TAIL_BYTES) -> Reason | None:
    """The most specific reason in the log's last `limit_bytes` and its first HEAD_BYTES; None for an empty log.

    Its line has at most LINE_CHARS characters, its excerpt at most EXCERPT_LINES such lines. Its phase is `%prep`,
    `%build`, … for a failed script, else `%files`, `dependencies`, `spec`, `limits`, `timeout`, `log`, or empty.

    Raises OSError when the log cannot be read.
    """
    text = read(log, limit_bytes)
    if cut := _CUT.search(text):
        # The failure came after the cut: any reason before it would be a guess.
        why = f"{cut.group(1).decode()}, and the rest, with the failure, is not kept"
        return _reason(text, cut.start() + 1, why, "log")
    if bad_exit := _bad_exit(text):
        return _in_phase(text, bad_exit)
    if cut_short := _cut_short(text):
        return cut_short
    for phase, patterns in ANYWHERE:
        if found := _search(text, patterns, 0, len(text)):
            return _reason(text, *found, phase)
    return _last_words(text)


def _bad_exit(text: bytes) -> re.Match[bytes] | None:
    """rpmbuild's own message about the script that failed, after which no other script runs: a recipe may print such a
    line too, as rpm's own tests do."""
    end = len(text)
    for _ in range(_CANDIDATES):
        at = text.rfind(_BAD_EXIT_NEEDLE, 0, end)
        if at < 0 or text.find(b"\nExecuting(%", at) >= 0:
            return None
        if found := _BAD_EXIT.match(text, at):  # output without a newline may stand before it
            return found
        end = at
    return None


def _in_phase(text: bytes, bad_exit: re.Match[bytes]) -> Reason:
    """The reason in the output of the failed script: between its start and rpmbuild's message about its end."""
    phase = bad_exit.group(1).decode()
    end = bad_exit.start()
    start = max(text.rfind(b"Executing(%s):" % bad_exit.group(1), 0, end), 0)
    last = last_command(text, start, end)
    at, line = _in_script(text, phase, start, end, last)
    return _reason(text, at, line, phase)


def _in_script(text: bytes, phase: str, start: int, end: int, last: Last) -> tuple[int, str]:
    """The command that failed is the last one. Messages of earlier commands, whose failure the script survived, count
    only if the last one wrote no message that is known, and is no test, which fails without one."""
    patterns = (*SURROUNDINGS, *OF_PHASE.get(phase, OF_PHASE["%build"]))
    if found := _search(text, patterns, last.at, end):
        return found
    told_by = "" if last.prints else last.command
    part = reason_block.summary(text, last.at, end)
    if part and (found := _summed_up(text, part, last.at, end)):
        return found
    if not part and (likely := reason_block.likely(text, last.at, end, least=STRONG)):
        return likely[0], _joined(phase, likely[1], told_by)
    if not part and (found := _search(text, FILES, last.at, end)):
        return found
    if not last.is_silent_test and (found := _search(text, (*patterns, *FILES), start, last.at)):
        return found
    if part:
        words = reason_block.last_line(text, part)
        return part.at, f"{words} ({part.line})" if words else part.line
    if likely := reason_block.titled(text, last.at, end) or reason_block.likely(text, last.at, end):
        return likely[0], _joined(phase, likely[1], told_by)
    return last.at, _joined(phase, last.output, last.command)


def _summed_up(text: bytes, part: reason_block.Summary, start: int, end: int) -> tuple[int, str] | None:
    """The cause of a summary: in its block, else a clear message of the same command, else a vague one in its block."""
    for first, stop, least in ((part.start, part.end, STRONG), (start, end, STRONG), (part.start, part.end, 1)):
        if least == 1 and (found := _search(text, FILES, first, stop)):
            return found
        if likely := reason_block.likely(text, first, stop, least=least):
            return likely[0], f"{likely[1]} ({part.line})"
    return None


def _joined(phase: str, output: str, command: str) -> str:
    words = " from ".join(part for part in (output, f"`{command}`" if command else "") if part)
    return f"{phase} failed: {words}" if words else f"{phase} failed"


def _cut_short(text: bytes) -> Reason | None:
    """The reason if a script ran and rpmbuild did not live to write about its end, as after `kill -9 -1`."""
    at = text.rfind(_STARTED_NEEDLE)
    started = _STARTED.match(text, at) if at >= 0 else None
    if started is None or any(text.find(words, at) >= 0 for words in _SCRIPT_OVER):
        return None
    phase = started.group(1).decode()
    if found := _search(text, SURROUNDINGS, at, len(text)):
        return _reason(text, *found, phase)
    last = last_command(text, at, len(text))
    words = f", after `{last.command}`" if last.command else ""
    return _reason(text, last.at, f"rpmbuild was killed during {phase}{words}", phase)


def _search(text: bytes, patterns: tuple[Pattern, ...], start: int, end: int) -> tuple[int, str] | None:
    """The place and the reason of the first pattern that matches."""
    for pattern in patterns:
        for at in _candidates(text, pattern, start, end):
            line = _PREFIX.sub("", shown_at(text, at), count=1)
            match = pattern.line.match(line)
            if match is None or _is_trace(line, pattern):
                continue
            before = line.partition(pattern.needle.decode())[0] if pattern.is_indented else ""
            items = _items(text, at, pattern, before)
            if not items and (pattern.needs_items or pattern.say == "{items}"):
                continue
            named = {"line": line, "items": items, **_before(text, pattern, at)}
            if pattern.has_cause_above:
                named["above"] = above(text, start, at)
            words = pattern.say.format_map(match.groupdict("") | named).strip(" ,")
            return at, words if items or pattern.item is None else words.rstrip(" ,:")
    return None


def _is_trace(line: str, pattern: Pattern) -> bool:
    """Whether the shell wrote the needle as a part of a command, perhaps glued to output without a newline."""
    needle = pattern.needle.decode()
    return TRACE_WITHIN.search(line.partition(needle)[0]) is not None or TRACE.match(line) is not None


def _before(text: bytes, pattern: Pattern, at: int) -> dict[str, str]:
    """The named groups of the pattern's lines before the match; for each the last line with its needle."""
    named: dict[str, str] = {name: "" for _, line in pattern.before for name in line.groupindex}
    for needle, expression in pattern.before:
        found = text.rfind(needle, max(0, at - _BEFORE_BYTES), at)
        if found >= 0 and (match := expression.match(shown_at(text, line_start(text, found)))):
            named |= match.groupdict("")
    return named


def above(text: bytes, start: int, at: int) -> str:
    """The message just above a match, with a space and in parentheses: a program that rpm ran wrote it. Or empty."""
    for _ in range(_ABOVE):
        if at <= start:
            break
        at = line_start(text, at - 1)
        line = shown_at(text, at).strip()
        if line.startswith(("[farm] ", "error: ", "Executing(", "+ ")):
            break
        if line and not line.startswith("warning: "):
            return f" ({line})"
    return ""


def _candidates(text: bytes, pattern: Pattern, start: int, end: int) -> Iterator[int]:
    """Starts of lines with the needle, at most _CANDIDATES of them, from the end for a pattern with `last`."""
    for _ in range(_CANDIDATES):
        at = text.rfind(pattern.needle, start, end) if pattern.last else text.find(pattern.needle, start, end)
        if at < 0:
            return
        line_at = line_start(text, at)
        yield line_at
        if pattern.last:
            end = line_at
        else:
            start = line_end(text, at) + 1


def _items(text: bytes, at: int, pattern: Pattern, before: str) -> str:
    """The items of the lines after a match, joined: the first `items_max`, and the number of others."""
    if pattern.item is None:
        return ""
    items: list[str] = []
    more = 0
    for raw in islice(lines_from(text, line_end(text, at) + 1), _FOLLOWING):
        line = _PREFIX.sub("", line_shown(raw), count=1).removeprefix(before)
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


def _last_words(text: bytes) -> Reason | None:
    """For a log without a known message: its last line that is not the farm's own."""
    at = len(text)
    for _ in range(_FOLLOWING):
        if at <= 0:
            return None
        at = line_start(text, at - 1)
        line = shown_at(text, at).strip()
        if line and not line.startswith(("[farm] ", "RPM build errors:", "Bad exit status from ")):
            return _reason(text, at, f"the log ends with: {line}", "")
    return None


def _reason(text: bytes, at: int, line: str, phase: str) -> Reason:
    """The reason with its excerpt: lines before the one at `at`, that line, and lines after it."""
    first = at
    for _ in range(_LINES_BEFORE):
        if first <= 0:
            break
        first = line_start(text, first - 1)
    lines = [line_shown(raw) for raw in islice(lines_from(text, first), EXCERPT_LINES)]
    return Reason(line=clip(" ".join(line.split()), LINE_CHARS), excerpt="\n".join(lines), phase=phase)
