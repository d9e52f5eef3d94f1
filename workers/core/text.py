"""Shows hostile names and lines to people: printable, on one line, of bounded length."""

from farm.model.text import clip, printable

_LIMIT_CHARS = 160


def shown(raw: str | bytes, limit: int = _LIMIT_CHARS) -> str:
    """The text cut to `limit` characters, with everything escaped that a terminal or a web page could interpret."""
    # A step's reason may be a whole log, so only the part that can be shown is escaped.
    start = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    return clip(printable(start[: limit + 1]), limit)
