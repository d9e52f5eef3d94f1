"""Words for people: hostile text, durations, sizes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.cli.options import parse_build, parse_thing
from farm.cli.text import STYLES, clean, clean_lines
from farm.errors import BadRequest
from farm.model.amounts import ago, duration, since, size
from farm.model.outcome import Outcome, Status
from farm.service.log import Times


@given(st.text())
def test_clean_text_is_one_line_that_prints(text: str) -> None:
    assert clean(text).isprintable()


@given(st.text())
def test_clean_lines_keep_nothing_that_a_terminal_obeys(text: str) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in clean_lines(text))


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == clean_lines(text) == text


def test_characters_that_do_not_print_are_escaped() -> None:
    assert clean("a\x1b[31m\n\u202e\x9b\ud800") == "a\\x1b[31m\\n\\u202e\\x9b\\ud800"
    assert clean(None) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (-1.0, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (60, "1 min 00 s"),
        (185, "3 min 05 s"), (3599, "59 min 59 s"), (3600, "1 h 00 min"), (7620, "2 h 07 min"), (356_400, "4 d 03 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_ages_have_one_unit() -> None:
    now = datetime.now(UTC)
    for delta, words in ((timedelta(seconds=5), "5 s"), (timedelta(minutes=3), "3 min"), (timedelta(days=4), "4 d")):
        assert ago(now - delta) == words
    assert (ago(None), since(None, now), since(now, now + timedelta(seconds=2))) == ("", None, 2.0)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (812, "812 B"), (4300, "4.2 KiB"), (117 * 2**20, "117 MiB"), (2**30, "1.0 GiB"), (2**42, "4.0 TiB")],
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_every_status_and_outcome_has_a_colour() -> None:
    assert set(STYLES) == {*Status, *Outcome}


@pytest.mark.parametrize(
    ("text", "thing"),
    [("12", (False, 12)), ("build:12", (False, 12)), ("batch:3", (True, 3)), ("b3", (True, 3)), (" 7 ", (False, 7))],
)
def test_builds_and_batches_are_told_apart(text: str, thing: tuple[bool, int]) -> None:
    assert parse_thing(text) == thing


@pytest.mark.parametrize("text", ["", "hello", "-1", "b", "1.2", "9" * 19, "\u0661", "1 2", "c3"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_thing(text)
    with pytest.raises(BadRequest):
        parse_build(text)


def test_times_of_a_log_are_those_of_the_last_stamp_before_a_byte() -> None:
    times = Times(b"[[0, 0], [1500, 10], [2000, 10], [9000, 50]]")
    assert [times.seconds_at(offset) for offset in (0, 9, 10, 49, 50, 10**9)] == [0.0, 0.0, 2.0, 2.0, 9.0, 9.0]
    assert Times(b"[[5, 3]]").seconds_at(0) is None
    for bad in (b"", b"{}", b'[["a", 1]]', b"[[1]]", b"[1]"):
        with pytest.raises(ValueError):
            Times(bad)
