"""A line of a log as segments of plain text with classes of the stylesheet, in place of its ANSI escapes.

No byte of a line becomes markup: a segment's text is printable, and its classes are a few fixed words.
"""

import re
from collections.abc import Iterable

from farm.model.text import printable

_SEQUENCE = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])")
_SGR = "m"
_STYLES = {1: "b", 2: "d", 3: "i", 4: "u", 7: "r"}
_ENDS = {22: ("b", "d"), 23: ("i",), 24: ("u",), 27: ("r",)}

Segment = tuple[str, str]


def segments(line: bytes) -> list[Segment]:
    """(classes, text) in order.

    >>> segments(b"a \\x1b[1;31mred\\x1b[0m <b>")
    [('', 'a '), ('b f1', 'red'), ('', ' <b>')]
    """
    text = line.decode(errors="backslashreplace")
    if "\x1b" not in text:
        return [("", printable(text, keep="\t"))] if text else []
    found: list[Segment] = []
    styles: set[str] = set()
    at = 0
    for escape in _SEQUENCE.finditer(text):
        _add(found, styles, text[at : escape.start()])
        at = escape.end()
        if escape[2] == _SGR:
            _apply(styles, escape[1])
    _add(found, styles, text[at:])
    return found


def _add(found: list[Segment], styles: Iterable[str], text: str) -> None:
    if text:
        found.append((" ".join(sorted(styles)), printable(text, keep="\t")))


def _apply(styles: set[str], parameters: str) -> None:
    numbers = [int(word) if word.isdecimal() and len(word) < 4 else 0 for word in parameters.split(";")]
    place = 0
    while place < len(numbers):
        number = numbers[place]
        if number in (38, 48):
            place += _extended(styles, numbers[place:])
            continue
        _one(styles, number)
        place += 1


def _one(styles: set[str], number: int) -> None:
    if number == 0:
        styles.clear()
    elif number in _STYLES:
        styles.add(_STYLES[number])
    elif number in _ENDS:
        styles.difference_update(_ENDS[number])
    elif number in range(30, 38) or number == 39:
        _colour(styles, number - 30 if number < 38 else None)
    elif number in range(90, 98):
        _colour(styles, number - 90 + 8)


def _extended(styles: set[str], numbers: list[int]) -> int:
    """A colour of 256, or of red, green and blue; of these, only the first 16 are shown. Returns how many numbers it
    has."""
    form = numbers[1] if len(numbers) > 1 else 0
    if form == 5 and len(numbers) > 2 and numbers[0] == 38:
        _colour(styles, numbers[2] if numbers[2] < 16 else None)
    return {5: 3, 2: 5}.get(form, 1)


def _colour(styles: set[str], number: int | None) -> None:
    styles.difference_update([style for style in styles if style.startswith("f")])
    if number is not None:
        styles.add(f"f{number}")
