"""A hostile log costs linear time, and its reason stays bounded and printable."""

import random
import time
from pathlib import Path

import pytest

from workers.formats.rpm.reason import EXCERPT_LINES, LINE_CHARS, find_reason
from workers.formats.rpm.reason_patterns import FILES, OF_PHASE, SURROUNDINGS
from workers.formats.rpm.reason_rpm import ANYWHERE

LOG_BYTES = 2 * 2**20
READ_BYTES = 2**20
LARGE_LOG_BYTES = 8 * 2**20
#: Processor time. Measured for the large log: 0.3 s at most; time that grows with the square would be minutes.
LIMIT_S = 4.0

_PATTERNS = [*SURROUNDINGS, *FILES]
for _table in (*OF_PHASE.values(), *(table for _, table in ANYWHERE)):
    _PATTERNS.extend(_table)
_NEEDLES = sorted({pattern.needle for pattern in _PATTERNS})
_BAD_EXIT = b"\nerror: Bad exit status from /var/tmp/rpm-tmp.x (%check)\n"

HOSTILE = {
    "empty lines": b"\n",
    "one endless line": b"a",
    "blanks": b" ",
    "every needle, line by line": b"\n".join(_NEEDLES) + b"\n",
    "every needle in one line": b" ".join(_NEEDLES) + b" ",
    "a needle and nothing": b"error: \n",
    "nearly a compiler error": b"a" * 990 + b": error: \n",
    "colons": b":1" * 480 + b": error: \n",
    "escape codes": b"\x1b[1;",
    "bidi overrides": "\u202e".encode(),
    "bytes that are no UTF-8": b"\xff",
    "tracebacks without end": b"Traceback (most recent call last)\n" + b" x\n" * 300,
    "exit statuses": _BAD_EXIT,
    "nearly exit statuses": b"error: Bad exit status from " + b"x" * 250 + b" (%\n",
    "cut markers": b"\n[farm] the log reached its limit of 1 bytes x",
    "carriage returns": b"a\r",
    "scripts": b"\nExecuting(%check): ",
    "traces": b"+ \n",
    "random bytes": random.Random(0).randbytes(2**20),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("end", [b"", _BAD_EXIT], ids=["open", "failed"])
def test_a_hostile_log_costs_linear_time_and_yields_bounded_text(tmp_path: Path, name: str, end: bytes) -> None:
    unit = HOSTILE[name]
    log = tmp_path / "log"
    log.write_bytes(unit * (LOG_BYTES // len(unit)) + end)
    start = time.process_time()
    found = find_reason(log, limit_bytes=READ_BYTES)
    assert time.process_time() - start < LIMIT_S
    if found is not None:
        lines = found.excerpt.split("\n")
        assert len(lines) <= EXCERPT_LINES
        assert all(len(line) <= LINE_CHARS and line.isprintable() for line in (found.line, *lines))


@pytest.mark.parametrize("unit", [b"e", b"o", b" ", b": error: \n"])
def test_a_log_of_8_mib_takes_seconds_at_most(tmp_path: Path, unit: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(unit * (LARGE_LOG_BYTES // len(unit)))
    start = time.process_time()
    find_reason(log)
    assert time.process_time() - start < LIMIT_S


def test_every_pattern_has_a_needle_that_lines_can_hold() -> None:
    """A needle with a newline could never be in a line, an empty one would be in all."""
    assert all(needle and b"\n" not in needle for needle in _NEEDLES)
