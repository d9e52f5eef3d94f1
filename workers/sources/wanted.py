"""The words of a download: the file that is wanted, and the URL as people may see it.

Apart from download.py, because that module's HTTP client takes a third of the time in which `farm try` starts.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from farm.model.source import without_credentials
from workers.core.text import shown
from workers.sources.checksum import Checksum


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to download. `urls` are tried in order, the next one if a server has no such file. Without a checksum the
    file is not checked, and not cached. `farm_urls` are those of the farm's own servers, as a target names them."""

    name: str
    urls: tuple[str, ...]
    farm_urls: tuple[str, ...] = ()
    checksum: Checksum | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A file that could not be downloaded, without a fault of the farm: one line of reason."""

    reason: str


def is_fetchable(url: str) -> bool:
    """Whether the URL is http or https, the only schemes by which sources are fetched."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def hide(url: str) -> str:
    """The URL for people: without credentials and without the query, which often holds some."""
    try:
        parts = urlsplit(without_credentials(url))
    except ValueError:
        return "(a URL that does not parse)"
    return shown(urlunsplit((parts.scheme, parts.netloc, parts.path, "…" if parts.query else "", "")))
