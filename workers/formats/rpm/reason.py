"""Finds the reason of a failed build in its log: one line, and the lines around it.

Owns the search and its bounds: a log is hostile, so the result is printable text of bounded length, and the time is
linear in a bounded part of the log. Does not own the messages of tools (reason_patterns.py), nor the outcome of a
build, which the engine decides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.model.text import clip, printable
from workers.formats.base import Reason
from workers.formats.rpm.reason_likely import likelihood
from workers.formats.rpm.reason_patterns import ANYWHERE, OF_PHASE, SURROUNDINGS, Pattern

TAIL_BYTES = 4 * 2**20
HEAD_BYTES = 256 * 2**10
LINE_CHARS = 300
EXCERPT_LINES = 40

_LINES_BEFORE = 25
_LINE_BYTES = 1000  # the part of a log line that is decoded and matched
_CANDIDATES = 100  # the lines with a pattern's needle that are tried before the pattern counts as absent
_FOLLOWING = 200  # the lines after a match that may hold its items
_LAST_LINES = 2000  # the lines of output among which the trace of the last command is looked for
_LIKELY_LINES = 4000
_ABOVE = 5
_BEFORE_BYTES = 64 * 2**10
_SKIPPED_BYTES = b"\n[farm] the reason finder left out the lines between\n"

_CUT = re.compile(rb"\n\[farm\] (the log reached its limit of \d+ bytes)[^\n]*\n?\Z")
_BAD_EXIT = re.compile(rb"error: Bad exit status from \S{1,200} \((%?[a-z_]{1,40})\)")
_BAD_EXIT_NEEDLE = b"error: Bad exit status from "
_PREFIX = re.compile(r"(?:BUILDSTDERR: |(?:DEBUG|INFO|ERROR) [\w.]+:\d+: +)")
_COLOUR = re.compile(rb"\x1b\[[0-9;:]{0,40}[mK]")
_TITLE_OR_MOVE = r"\x1b(?:\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|\[[0-9;?]{0,40}[A-Za-z])"
_CONTROL_AT_START = re.compile(rf"(?:[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|{_TITLE_OR_MOVE}){{1,400}}")
_SCRIPT_END = re.compile(r"exit\b|:$|RPM_EC=|jobs -p|(?:cat|tail) |set [+-]")
_TRACE = re.compile(r"(?P<depth>\++) (?P<command>\S.*)")
#: A trace after output that had no newline at its end.
_GLUED = re.compile(r"(?<!\+)(?P<depth>\+) (?P<command>[a-z_./\[][\w./-]{1,100} .*)")
_TRACE_WITHIN = re.compile(r"\++ \S")
_PRINTS = re.compile(r"(?:echo|printf)\b")
_TESTS = re.compile(r"(?:test|\[\[?|grep -q|cmp -s) ")
_ASSIGNS = re.compile(r"\w+=")
_STARTED = re.compile(rb"Executing\((%[a-z_]{1,40})\): ")
_STARTED_NEEDLE = b"Executing(%"
#: Messages of rpmbuild after which no script runs any more, so that the last script has ended.
_SCRIPT_OVER = (b"\nerror: ", b"\nProcessing files: ", b"\nRPM build errors:", b"\nWrote: ", b"commandTimeoutExpired")


@dataclass(frozen=True, kw_only=True)
class _Last:
    """The last command of a script, the place of its trace, and its last line of output. `prints` if it is `echo`."""

    at: int
    output: str
    command: str
    prints: bool = False


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
    if cut_short := _cut_short(text):
        return cut_short
    for phase, patterns in ANYWHERE:
        if found := _search(text, patterns, 0, len(text)):
            return _reason(text, *found, phase)
    return _last_words(text)


def _line_shown(raw: bytes) -> str:
    """One log line for people: bytes that are not UTF-8, control and direction codes are escaped.

    Colours are removed, and of a line that was overwritten, the last text is kept.
    """
    return clip(printable(_decoded(raw).expandtabs(4)), LINE_CHARS)


def _decoded(raw: bytes) -> str:
    """The text of a line without the control characters at its start, such as NUL bytes or a window's title."""
    line = raw[:_LINE_BYTES].decode(errors="backslashreplace")
    found = _CONTROL_AT_START.match(line)
    return line[found.end() :] if found else line


def _read(log: Path, limit_bytes: int) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size <= limit_bytes + HEAD_BYTES:
            return _as_shown(file.read(size))
        head = file.read(HEAD_BYTES)
        file.seek(size - limit_bytes)
        return _as_shown(head + _SKIPPED_BYTES + file.read(limit_bytes))


def _as_shown(text: bytes) -> bytes:
    """The text as a terminal leaves it: without colours, and of an overwritten line, as of a progress bar, the end."""
    if b"\x1b" in text:
        text = _COLOUR.sub(b"", text)
    if b"\r" not in text:
        return text
    return b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in text.split(b"\n"))


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
    patterns = (*SURROUNDINGS, *OF_PHASE.get(phase, OF_PHASE["%build"]))
    last = _last_command(text, start, end)
    # The command that failed is the last one. Messages of earlier commands, whose failure the script survived, count
    # only if the last one wrote no message that is known, and is no test, which fails without one.
    found = _search(text, patterns, last.at, end)
    if found is None and not (_TESTS.match(last.command) and not last.output):
        found = _search(text, patterns, start, end)
    if found:
        return _reason(text, *found, phase)
    if likely := _likely(text, last.at, end):
        at, line = likely
        return _reason(text, at, _joined(phase, line, "" if last.prints else last.command), phase)
    return _reason(text, last.at, _joined(phase, last.output, last.command), phase)


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
    last = _last_command(text, at, len(text))
    words = f", after `{last.command}`" if last.command else ""
    return _reason(text, last.at, f"rpmbuild was killed during {phase}{words}", phase)


def _search(text: bytes, patterns: tuple[Pattern, ...], start: int, end: int) -> tuple[int, str] | None:
    """The place and the reason of the first pattern that matches."""
    for pattern in patterns:
        for at in _candidates(text, pattern, start, end):
            line = _PREFIX.sub("", _line_shown(_line(text, at)), count=1)
            match = pattern.line.match(line)
            if match is None or _is_trace(line, pattern):
                continue
            items = _items(text, at, pattern)
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
    return _TRACE_WITHIN.search(line.partition(needle)[0]) is not None or _TRACE.match(line) is not None


def _before(text: bytes, pattern: Pattern, at: int) -> dict[str, str]:
    """The named groups of the pattern's lines before the match; for each the last line with its needle."""
    named: dict[str, str] = {name: "" for _, line in pattern.before for name in line.groupindex}
    for needle, expression in pattern.before:
        found = text.rfind(needle, max(0, at - _BEFORE_BYTES), at)
        if found >= 0 and (match := expression.match(_line_shown(_line(text, _line_start(text, found))))):
            named |= match.groupdict("")
    return named


def above(text: bytes, start: int, at: int) -> str:
    """The message just above a match, with a space and in parentheses: a program that rpm ran wrote it. Or empty."""
    for _ in range(_ABOVE):
        if at <= start:
            break
        at = _line_start(text, at - 1)
        line = _line_shown(_line(text, at)).strip()
        if line.startswith(("[farm] ", "error: ", "Executing(", "+ ")):
            break
        if line and not line.startswith("warning: "):
            return f" ({line})"
    return ""


def _likely(text: bytes, start: int, end: int) -> tuple[int, str] | None:
    """The line that looks most like an error, for tools whose messages are not known; the first of equals."""
    best = (0, 0, "")
    at = start
    for _ in range(_LIKELY_LINES):
        if at >= end:
            break
        line = _line_shown(_line(text, at)).strip()
        if (score := likelihood(line)) > best[0] and not _TRACE_WITHIN.match(line):
            best = (score, at, line)
        at = _line_end(text, at) + 1
    _, at, line = best
    if not line:
        return None
    following = _line_shown(_line(text, min(_line_end(text, at) + 1, end - 1))).strip()
    return at, f"{line} {following}" if line.endswith(":") else line


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


def _last_command(text: bytes, start: int, end: int) -> _Last:
    """The last command of a script as the shell traced it, and its last output."""
    output, fallback, at = "", "", end
    for _ in range(_LAST_LINES):
        line_end = at - 1
        if line_end < start:
            break
        at = max(text.rfind(b"\n", start, line_end) + 1, start)
        line = _line_shown(text[at : min(line_end, at + _LINE_BYTES)]).strip()
        trace = _TRACE.match(line) or _GLUED.search(line)
        if trace is None:
            if not output and not line.startswith(("Executing(", "RPM build ", "[farm] ")):
                output = line
            continue
        command = _unquoted(trace["command"])
        if _SCRIPT_END.match(command):
            output = output or line[: trace.start()].strip()
            continue
        if _ASSIGNS.match(command) or (len(trace["depth"]) > 1 and not fallback):
            # An assignment fails with the command whose output it assigns, which the shell traced before it.
            fallback = fallback or command
            continue
        return _Last(at=at, output=output, command=command, prints=_PRINTS.match(command) is not None and bool(output))
    return _Last(at=start if not output else at, output=output, command=fallback)


def _unquoted(command: str) -> str:
    """bash quotes the brackets of a test in its traces."""
    return command.replace("'['", "[").replace("']'", "]")


def _last_words(text: bytes) -> Reason | None:
    """For a log without a known message: its last line that is not the farm's own."""
    at = len(text)
    for _ in range(_FOLLOWING):
        if at <= 0:
            return None
        at = _line_start(text, at - 1)
        line = _line_shown(_line(text, at)).strip()
        if line and not line.startswith(("[farm] ", "RPM build errors:", "Bad exit status from ")):
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
