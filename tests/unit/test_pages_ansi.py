"""Lines of logs as segments of text: escapes become classes, and nothing else of a line becomes more than text."""

import doctest

import pytest

from farm.server.pages import ansi, charts
from farm.server.pages.ansi import segments


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"", []),
        (b"plain\ttext <b>", [("", "plain\ttext <b>")]),
        (b"\x1b[32mgreen\x1b[39m off", [("f2", "green"), ("", " off")]),
        (b"\x1b[1m\x1b[94mx\x1b[22my", [("b f12", "x"), ("f12", "y")]),
        (b"\x1b[mx\x1b[0;1;31my\x1b[Kz", [("", "x"), ("b f1", "y"), ("b f1", "z")]),
        (b"\x1b[38;5;9mx\x1b[38;5;200my\x1b[38;2;1;2;3mz", [("f9", "x"), ("", "y"), ("", "z")]),
        (b"\x1b[48;5;1;4mx\x1b[24my", [("u", "x"), ("", "y")]),
        (b"\x1b[38;5mx\x1b[38my\x1b[9999999999999999999mz", [("", "x"), ("", "y"), ("", "z")]),
        (b"\x1b[\xc2\xb2mx\x1b[31", [("", "\\x1b[²mx\\x1b[31")]),
        (b"\x1b]0;title\x07\x1b(0", [("", "\\x1b]0;title\\x07\\x1b(0")]),
        (b"a\rb\x08\x00\xff", [("", "a\\rb\\x08\\x00\\xff")]),
        ("\u202egpj\u2066\u200b".encode(), [("", "\\u202egpj\\u2066\\u200b")]),
    ],
    ids=range(12),
)
def test_a_line_becomes_segments(line: bytes, found: list[tuple[str, str]]) -> None:
    assert segments(line) == found


@pytest.mark.parametrize("module", [ansi, charts])
def test_the_examples_are_true(module: object) -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=1)  # type: ignore[arg-type]
