"""Showing hostile names and lines to people: printable, on one line, of bounded length. Nothing else."""

from farm.model.text import clip, printable

_LIMIT_CHARS = 160


def shown(raw: str | bytes, limit: int = _LIMIT_CHARS) -> str:
    """The text with everything escaped that a terminal or a page could act on, cut to `limit` characters."""
    # A step's reason may be a whole log: no more of it is escaped than can be shown.
    start = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    return clip(printable(start[: limit + 1]), limit)
