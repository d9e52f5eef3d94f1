"""Showing hostile names and lines to people: printable, on one line, of bounded length. Nothing else."""

import unicodedata

_LIMIT_CHARS = 160
#: Control, format (bidirectional overrides among them), surrogate, private and unassigned characters; line separators.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def shown(raw: str | bytes, limit: int = _LIMIT_CHARS) -> str:
    """The text with everything escaped that a terminal or a page could act on, cut to `limit` characters."""
    text = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    escaped = "".join(
        _escaped(char) if unicodedata.category(char) in _UNPRINTABLE else char for char in text[: limit + 1]
    )
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 1]}…"


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
