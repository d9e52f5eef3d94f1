"""Hostile text for people: printable, on one line, of bounded length. Knows nothing of terminals and pages."""


def printable(raw: str | bytes, *, keep: str = "") -> str:
    r"""The text with every character escaped that a terminal or a page could act on; on one line.

    Such are control and direction characters, unusual spaces, and bytes that are not UTF-8. Characters in `keep` stay.

    >>> printable(b"a\x1b[31m \xff\n")
    'a\\x1b[31m \\xff\\n'
    """
    text = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def clip(text: str, limit: int) -> str:
    """At most `limit` characters; a text that was cut ends with "…"."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
