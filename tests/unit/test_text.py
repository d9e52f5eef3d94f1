"""Hostile text is made printable by one rule."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.model import text
from farm.model.text import clip, printable
from workers.core.text import shown


@given(st.text() | st.binary())
def test_printable_text_prints_and_is_on_one_line(raw: str | bytes) -> None:
    assert printable(raw).isprintable()


@given(st.text())
def test_text_that_prints_and_characters_to_keep_stay(raw: str) -> None:
    assert printable(raw) == raw or not raw.isprintable()
    assert printable(raw, keep=raw) == raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\x1b[31m\n\t\0", r"a\x1b[31m\n\t\x00"),
        ("\u202e\u200b\u2028\ue000\U000e0001\ud800", r"\u202e\u200b\u2028\ue000\U000e0001\ud800"),
        ("no\u00a0break", r"no\xa0break"),
        ("müll \\x1b 日本", "müll \\x1b 日本"),
        (b"m\xc3\xbcll\xff\x9b\x1b", r"müll\xff\x9b\x1b"),
    ],
)
def test_characters_that_do_not_print_are_escaped(raw: str | bytes, expected: str) -> None:
    assert printable(raw) == expected


@given(st.text(), st.integers(min_value=1, max_value=20))
def test_a_text_is_cut_to_its_limit_with_a_mark(raw: str, limit: int) -> None:
    cut = clip(raw, limit)
    assert len(cut) <= limit
    assert cut == raw if len(raw) <= limit else cut == raw[: limit - 1] + "…"


@given(st.text() | st.binary(), st.integers(min_value=1, max_value=20))
def test_workers_show_both(raw: str | bytes, limit: int) -> None:
    assert shown(raw, limit) == clip(printable(raw), limit)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(text) == doctest.TestResults(failed=0, attempted=1)
