"""The message of a tool that has no pattern, as a block: the line that names the cause, and the lines that complete it.

make and ninja sum up a failure in a line of their own; the block of the command that failed is beside that line.
"""

import re
from dataclasses import dataclass
from itertools import islice

from workers.formats.rpm.reason_command import TRACE_WITHIN
from workers.formats.rpm.reason_likely import is_summary, likelihood
from workers.formats.rpm.reason_lines import line_end, line_start, shown_at, starts_from

_LINES = 4000
_BLOCK_LINES = 200
_CAUSES = 3
_MAKE = re.compile(rb"^g?make(?:\[\d+\])?: \*\*\* \[", re.MULTILINE)
_NINJA = re.compile(rb"^FAILED: ", re.MULTILINE)
_MAKES_OWN = re.compile(r"g?make(?:\[\d+\])?: ")
_NINJAS_OWN = re.compile(r"\[\d+/\d+\]|ninja: |INFO: ")
_CAUSED_BY = re.compile(r"Caused by:(?P<cause>.*)")
#: A title whose message is in the next line.
_HEADING = re.compile(
    r"aborted!$|^BUILD FAILED$|^There (?:was|were) \d+ \w+:|^==+ .*(?:error|fail).* ==+$", re.IGNORECASE
)
_WARNINGS_COUNT = re.compile(
    rb"finished with problems|warnings?,? (?:(?:is|are|being) )?treated as errors?", re.IGNORECASE
)
_WARNING = re.compile(r"\bwarning: ", re.IGNORECASE)
#: A message that goes on in the next line.
_OPEN = re.compile(r":$|\berror: file \S+ line \d+ element \S+$|\.\.\. \([\w:]+\)$")
_RULER = re.compile(r"[-=─―~^|*\s]*$")
_WRAPPED = re.compile(r"\s{4,}[a-z]\w* ")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """make's or ninja's line about a command that failed, at `at`, and the output of that command in between."""

    at: int
    line: str
    start: int
    end: int


def summary(text: bytes, start: int, end: int) -> Summary | None:
    """The first summary in a part of the log."""
    made, ninja = (expression.search(text, start, end) for expression in (_MAKE, _NINJA))
    if made:
        first = _above(text, start, made.start())
        return Summary(at=made.start(), line=shown_at(text, made.start(), end), start=first, end=made.start())
    if ninja is None:
        return None
    command = line_end(text, ninja.start()) + 1
    first = min(line_end(text, command) + 1, end)
    stop = end
    for at in islice(starts_from(text, first, end), _BLOCK_LINES):
        if _NINJAS_OWN.match(shown_at(text, at, end)):
            stop = at
            break
    return Summary(at=ninja.start(), line=shown_at(text, ninja.start(), end).strip(), start=first, end=stop)


def last_line(text: bytes, part: Summary) -> str:
    """The last line of the output that a summary is about, without rulers and other summaries. Or empty."""
    at = part.end
    for _ in range(_BLOCK_LINES):
        if at <= part.start:
            break
        at = line_start(text, at - 1)
        line = shown_at(text, at, part.end).strip()
        if not _RULER.match(line) and not is_summary(line) and not TRACE_WITHIN.match(line):
            return line
    return ""


def likely(text: bytes, start: int, end: int, *, least: int = 1) -> tuple[int, str] | None:
    """The place and words of the line that looks most like an error; the first of equals, of likelihood `least`."""
    best = (least - 1, 0, "")
    for at in islice(starts_from(text, start, end), _LINES):
        line = shown_at(text, at, end).strip()
        if (score := likelihood(line)) > best[0] and not TRACE_WITHIN.match(line):
            best = (score, at, line)
    score, at, line = best
    return (at, _completed(text, at, end, line)) if score >= least else None


def titled(text: bytes, start: int, end: int) -> tuple[int, str] | None:
    """The message below a title such as `rake aborted!`, or the first warning where warnings are errors."""
    for at in islice(starts_from(text, start, end), _LINES):
        line = shown_at(text, at, end).strip()
        if _HEADING.search(line):
            words = _next(text, at, end)
            return (at, words) if words else None
    if not _WARNINGS_COUNT.search(text, start, end):
        return None
    for at in islice(starts_from(text, start, end), _LINES):
        line = shown_at(text, at, end).strip()
        if _WARNING.search(line):
            return at, line
    return None


def _above(text: bytes, start: int, at: int) -> int:
    """The start of the output above make's summary: up to another line of make's, or a trace."""
    for _ in range(_BLOCK_LINES):
        if at <= start:
            break
        above = max(line_start(text, at - 1), start)
        line = shown_at(text, above, at)
        if (_MAKES_OWN.match(line) and is_summary(line)) or TRACE_WITHIN.match(line):
            break
        at = above
    return at


def _completed(text: bytes, at: int, end: int, line: str) -> str:
    """The line with what completes it: the line after a colon, the rest of a wrapped sentence, and the causes below."""
    if _OPEN.search(line):
        line = f"{line} {_next(text, at, end)}"
    else:
        following = shown_at(text, min(line_end(text, at) + 1, end), end)
        if _WRAPPED.match(following) and line[-1] not in ".;,)":
            line = f"{line} {following.strip()}"
        elif following.startswith("    ") and following.endswith(":"):
            line = f"{line}: {_next(text, min(line_end(text, at) + 1, end), end)}"
    causes = _causes(text, at, end)
    return ": ".join((line, *causes[:_CAUSES]))


def _causes(text: bytes, at: int, end: int) -> list[str]:
    found: list[str] = []
    for start in islice(starts_from(text, line_end(text, at) + 1, end), _BLOCK_LINES):
        match = _CAUSED_BY.match(shown_at(text, start, end).strip())
        cause = (match["cause"].strip() or _next(text, start, end)) if match else ""
        found += [cause] if cause and not is_summary(cause) else []
    return found


def _next(text: bytes, at: int, end: int) -> str:
    """The next line with words."""
    for start in islice(starts_from(text, line_end(text, at) + 1, end), 5):
        line = shown_at(text, start, end).strip()
        if not _RULER.match(line):
            return line
    return ""
