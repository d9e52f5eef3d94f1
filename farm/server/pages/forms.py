"""Forms as a browser sends them: names with texts. Litestar checks their type, and this module their values."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from litestar.params import URLEncodedBody

from farm.errors import BadRequest

Fields = URLEncodedBody[dict[str, Any]]
_TEXT_MAX = 10_000


class Form:
    """The texts of a form, without the blanks around them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def many(self, name: str) -> tuple[str, ...]:
        """Each text of this name that is not empty. Raises BadRequest."""
        value = self._fields.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        texts = [one.strip() for one in values if isinstance(one, str)]
        if any(len(one) > _TEXT_MAX for one in texts):
            raise BadRequest(f"{name} has more than {_TEXT_MAX} characters; send less")
        return tuple(one for one in texts if one)

    def text(self, name: str) -> str:
        """The last one; empty if there is none."""
        return (self.many(name) or ("",))[-1]

    def maybe(self, name: str) -> str | None:
        return self.text(name) or None

    def words(self, name: str) -> tuple[str, ...]:
        """The text split at blanks."""
        return tuple(self.text(name).split())

    def number(self, name: str, default: int | None = None) -> int | None:
        """Raises BadRequest for a text that is no whole number."""
        text = self.text(name)
        if not text:
            return default
        if not text.lstrip("-").isdecimal() or len(text) > 18:
            raise BadRequest(f"{name} {text[:80]!r} is no whole number; correct it")
        return int(text)


def local_path(text: str, default: str = "/") -> str:
    """The same path if it leads to this server, else the default."""
    is_local = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_local and not urlsplit(text).netloc else default
