"""The files of directory repositories as clients may read them over a network: which there are, and for how long each
stays as it is. Unfinished files, ledgers and locks are none of them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from farm.errors import NotFound
from farm.model.place import DEFAULT_PROJECT

#: A repository's folder, and its part that clients read; or a file of the logs.
_PUBLIC = re.compile(
    r"(?:~[^/]+/)?[^/~][^/]*/(?:(?:[^/]+/(?:os|debug)|source)/(?:current|versions|packages)/|logs/)[^/].*"
)
#: The digest of a package stands in its path, so the path never gets another content.
_PACKAGE = re.compile(r"/packages/[0-9a-f]{2}/([0-9a-f]{64})/[^/]+$")


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """`sha256` is that of a package, which never changes; None for another file, which can be replaced."""

    path: Path
    size_bytes: int
    tag: str
    sha256: str | None


def missing(name: str) -> NotFound:
    """The error for a file that no repository has, or that its asker may not see."""
    return NotFound(f"no repository has a file {name[:300]!r}; `farm repo TARGET` shows the addresses")


def project_of(name: str) -> str:
    """The project whose repository the file is in.

    >>> project_of("~perl/demo/source/current/repodata/repomd.xml"), project_of("demo/source/current/")
    ('perl', 'main')
    """
    first = name.partition("/")[0]
    return first[1:] if first.startswith("~") else DEFAULT_PROJECT


def find_published(root: Path, name: str) -> PublishedFile:
    """The file of this name, relative to the folder of all repositories. Raises NotFound."""
    parts = name.split("/")
    if not _PUBLIC.fullmatch(name) or "\0" in name or any(part in ("", "..") or part[0] == "." for part in parts):
        raise missing(name)
    try:
        path = (root / name).resolve(strict=True)
        found = path.stat()
    except (OSError, ValueError) as error:  # not there, a circle of links, a name that is too long
        raise missing(name) from error
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise missing(name)
    package = _PACKAGE.search(name)
    return PublishedFile(
        path=path,
        size_bytes=found.st_size,
        tag=package[1] if package else f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
        sha256=package[1] if package else None,
    )


def public_url(url: str, root: Path, address: str) -> str:
    """The URL of a repository below `root` at a server that serves the files at this address; another URL unchanged.

    >>> public_url("file:///srv/r/demo/source/current/", Path("/srv/r"), "https://farm.example/repos")
    'https://farm.example/repos/demo/source/current/'
    """
    here = f"file://{quote(str(root))}/"
    return f"{address}/{url.removeprefix(here)}" if url.startswith(here) else url
