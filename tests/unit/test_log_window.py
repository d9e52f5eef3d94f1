"""Parts of logs: whole lines around a place, with their numbers, and the places of a text."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.service import log_window
from farm.service.log_window import (
    LINE_MAX,
    LiveLog,
    LogWindow,
    search,
    telling_offset,
    window_after,
    window_around,
    window_before,
)


class Ended(LiveLog):
    """A log that gets no more."""

    is_over = True


LONG = b"".join(b"line %d of the log\n" % number for number in range(1, 5001))
_LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"x")), max_size=40)
_TEXTS = st.one_of(_LINES.map(b"\n".join), st.binary(max_size=3 * LINE_MAX), st.text(max_size=3000).map(str.encode))


def _text(window: LogWindow) -> list[bytes]:
    return [line for _, line in window.lines]


def _forwards(log: LiveLog, limit: int) -> Iterator[LogWindow]:
    window = window_after(log, 0, limit)
    yield window
    while window.end < log.size:
        window = window_after(log, window.end, limit)
        yield window


def _backwards(log: LiveLog, limit: int) -> Iterator[LogWindow]:
    window = window_before(log, log.size, limit)
    yield window
    while window.start > 0:
        window = window_before(log, window.start, limit)
        yield window


@settings(max_examples=60, deadline=None)
@given(text=_TEXTS, limit=st.integers(min_value=40, max_value=9000))
def test_windows_one_after_the_other_are_the_whole_log(text: bytes, limit: int) -> None:
    log = Ended("1.build.x86_64.1", text)
    found = [one for window in _forwards(log, limit) for one in window.lines]
    assert b"".join(line for _, line in found) == text.replace(b"\r\n", b"").replace(b"\n", b"") or b"\r\n" in text
    for offset, line in found:
        assert text[offset : offset + len(line)] == line
    back = list(_backwards(log, limit))[::-1]
    assert back[0].start == 0
    assert back[-1].end == len(text)
    assert all(before.end == after.start for before, after in itertools.pairwise(back))
    assert back[-1].is_over


def test_lines_have_their_numbers_from_both_ends() -> None:
    log = Ended("1.build.x86_64.1", LONG)
    for windows in (_forwards(log, 3000), _backwards(log, 3000)):
        for window in windows:
            assert _text(window)[0] == b"line %d of the log" % window.number
    window = window_around(log, LONG.index(b"line 2500 "), 3000)
    assert window.number < 2500 < window.number + len(window.lines)
    assert (window.start, window.is_over) == (window.lines[0][0], False)


def test_a_place_after_the_end_has_the_end() -> None:
    log = Ended("1.build.x86_64.1", LONG)
    assert window_around(log, 10**15, 3000).is_over
    assert _text(window_before(log, 10**15, 3000))[-1] == b"line 5000 of the log"
    assert window_after(log, 10**15, 3000).lines == ()


def test_a_line_that_still_grows_is_read_again() -> None:
    first = window_after(LiveLog("1.build.x86_64.1", b"one\ntw"), 0, 3000)
    assert (_text(first), first.end, first.is_over) == ([b"one", b"tw"], 4, False)
    then = window_after(LiveLog("1.build.x86_64.1", b"two\nthree\n", base=4), first.end, 3000)
    assert (_text(then), then.end, then.size) == ([b"two", b"three"], 14, 14)


def test_a_long_line_is_cut_between_characters() -> None:
    text = "é€".encode() * 5000
    window = window_after(Ended("1.build.x86_64.1", text), 0, 2**20)
    assert b"".join(_text(window)) == text
    assert all(len(line) <= LINE_MAX and line.decode() for line in _text(window))


def test_a_text_is_found_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_window, "_SEARCHED_MAX", 20_000)
    monkeypatch.setattr(log_window, "_READ", 1000)
    log = Ended("1.build.x86_64.1", LONG)
    found, offset, asked = [], 0, 0
    while offset is not None:
        hits = search(log, "LINE 4", offset)
        assert hits.next is None or hits.next > offset
        found += [line for _, line in hits.lines]
        offset, asked = hits.next, asked + 1  # type: ignore[assignment]
    wanted = [line for line in LONG.splitlines() if line.startswith(b"line 4")]
    assert (found, asked > 5) == (wanted, True)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "a.c:1: error: no \u2018x\u2019 in here at all",
            b"a.c:1:  error: no \xe2\x80\x98x\xe2\x80\x99 in here\tat all",
        ),
        ("make: *** [all] Error 2", b"make: *** [all] Error 2"),
        ("the log ends with: make: *** [all] Error 2", b"make: *** [all] Error 2"),
        ("caf\\xe9 is not \\x1b[31mvalid here", b"caf\xe9 is not \x1b[31mvalid here"),
        ("nothing like that", None),
        ("", None),
        ("x", None),
        (".*", None),
    ],
)
def test_a_reason_leads_to_its_line(reason: str, line: bytes | None) -> None:
    shown = (line or b"none") + b"\n"
    text = LONG + shown + LONG + b"[farm] failed: " + shown
    at = telling_offset(Ended("1.build.x86_64.1", text), reason)
    assert at == (None if line is None else len(LONG))


def test_a_reason_that_the_farm_alone_says_leads_to_that() -> None:
    text = LONG + b"[farm] stalled: it wrote nothing for 3600 s\n"
    assert telling_offset(Ended("1.build.x86_64.1", text), "it wrote nothing for 3600 s") == len(LONG)
