"""Bounds the metadata of a repository: each build root that installs from it has to load all of it.

One build's metadata has a bound of its own, which its format sets, and builds without end would add up. Owns
the bound and the words of the refusal; the index's top file gives the sum.
"""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.config import Settings
from farm.errors import RepositoryTrouble, given
from farm.formats.index import Index
from farm.repositories.base import RepositoryBackend, RepositoryKind, RepositoryName
from farm.repositories.checks import form_of

_TOP_BYTES = 2**20
_MIB = 2**20


def check_room(backend: RepositoryBackend, names: Iterable[RepositoryName], settings: Settings) -> None:
    """Raises RepositoryTrouble for a repository whose metadata has `repository_metadata_bytes` or more, uncompressed. A
    repository that does not tell its size is left to the back end."""
    for name in names:
        if name.kind is RepositoryKind.LOGS:
            continue
        size_bytes = metadata_bytes(backend.url(name), form_of(name).index, settings)
        if size_bytes is not None and size_bytes >= settings.repository_metadata_bytes:
            words = (
                f"repository {name.path} has {size_bytes / _MIB:.0f} MiB of metadata, and takes packages up to "
                f"{settings.repository_metadata_bytes / _MIB:.0f} MiB; roll it back, or raise "
                "FARM_REPOSITORY_METADATA_BYTES of the publish workers"
            )
            raise given(RepositoryTrouble(words))  # no host is to blame for it


def metadata_bytes(url: str, index: Index, settings: Settings) -> int | None:
    """The uncompressed size of all metadata of the repository at this URL; None where its index cannot be read."""
    top = _top(f"{url.rstrip('/')}/{index.top}", settings)
    return index.size_bytes(top) if top is not None else None


def _top(place: str, settings: Settings) -> bytes | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return _read(Path(unquote(parts.path)))
    return _get(place, settings) if parts.scheme in ("http", "https") else None


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_TOP_BYTES)
    except OSError:
        return None


def _get(url: str, settings: Settings) -> bytes | None:
    import requests  # comes with pulp-glue

    verify = str(settings.pulp_ca) if settings.pulp_ca is not None else True
    try:
        with requests.get(url, timeout=settings.pulp_request_s, verify=verify, stream=True) as answer:
            return answer.raw.read(_TOP_BYTES, decode_content=True) if answer.ok else None
    except (requests.RequestException, OSError):
        return None
