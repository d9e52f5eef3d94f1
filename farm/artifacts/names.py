"""The names that a file of a recipe may have outside its build root. It does not check contents."""

import unicodedata

from farm.model.text import clip, printable

_SHOWN_CHARS = 80
_NAME_MAX_BYTES = 255  # the limit of Linux file systems


def check_name(name: str | bytes) -> str:
    """The name as text, if it is a plain printable base name.

    Raises ValueError, with the name escaped in the message, for one that is empty or over 255 bytes of UTF-8, is
    not UTF-8, starts with a dot, or holds a slash, a control or escape character, or an invisible one (zero width
    and bidirectional marks make one name look like another).
    """
    try:
        text = name.decode() if isinstance(name, bytes) else name
        size_bytes = len(text.encode())
    except UnicodeError as error:
        raise ValueError(f"file name {_shown(name)} is not UTF-8") from error
    if not text:
        raise ValueError("the file name is empty")
    if size_bytes > _NAME_MAX_BYTES:
        raise ValueError(f"file name {_shown(text)} has {size_bytes} bytes; at most {_NAME_MAX_BYTES} are allowed")
    if text.startswith("."):
        raise ValueError(f"file name {_shown(text)} starts with a dot")
    if "/" in text:
        raise ValueError(f"file name {_shown(text)} has a slash in it")
    bad = next((char for char in text if not char.isprintable()), None)
    if bad is not None:
        raise ValueError(f"file name {_shown(text)} holds {unicodedata.name(bad, ascii(bad))}, which does not print")
    return text


def _shown(name: str | bytes) -> str:
    """Safe in any log or terminal."""
    return f"'{clip(printable(name), _SHOWN_CHARS)}'"
