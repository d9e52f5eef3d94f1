"""The protocol of a format's index: the files by which a package manager finds the packages of a repository.

Owns the form of these files and what they say of a package; not where packages lie, nor which belong to a version. The
directory back end keeps the entry of each package and makes the index of each version from them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: What the index says of one package: one piece for each of `Index.parts`. It never changes once it was read.
Entry = tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The entries of neighbouring packages as they stand in the files of the index, and their sizes before
    compression; in the order of `Index.parts`."""

    members: tuple[bytes, ...]
    open_sizes_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Edition:
    """A version of a repository: its number, the number of its packages, and the time of its publication."""

    number: int
    packages: int
    published_at_s: int


@dataclass(frozen=True, kw_only=True)
class IndexedPackage:
    """A package of a version. `identity` has its name, version and arch in the format's spelling; no two packages
    of one version have the same. `source` is the file name of the source package that it was built from,
    empty for a source package itself.
    """

    identity: str
    filename: str
    sha256: str
    size_bytes: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """A package's file to be read. `location` is its path in the repository, `shown` its name in messages;
    `check_stop` raises LeaseLost once the attempt is stopped."""

    path: Path
    sha256: str
    location: str
    shown: str
    check_stop: Callable[[], None] = lambda: None


class Index(Protocol):
    """The index of one format. Two versions with the same entries have the same files but for the top one."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the lists of which an index consists, as Python identifiers."""
        ...

    @property
    def top(self) -> str:
        """The path in a repository, `<folder>/<file>`, of the file that a package manager reads first. It names the
        others, which are in the same folder and have their digest in their names: replacing it shows a new version."""
        ...

    @property
    def tool(self) -> str:
        """The library that makes it, with its version; empty for one that needs none."""
        ...

    def read(self, given: Given) -> Entry:
        """The entry of a package.

        Raises BadSource for a file that is no package that a repository takes, or is another one than its name says;
        RepositoryTrouble if its content does not have the given digest; LeaseLost.
        """
        ...

    def edition(self, entry: Entry) -> str:
        """The part of the package's version that its file name lacks. Two packages of one file name and two editions
        are two packages, and neither replaces the other."""
        ...

    def group(self, entries: Iterable[Entry]) -> Group:
        """The same entries always give the same group. It reads them one after the other and keeps none: an entry may
        have hundreds of MiB."""
        ...

    def write(self, folder: Path, groups: Iterable[Group], edition: Edition) -> None:
        """Fill the empty folder with the files of the index."""
        ...

    def packages(self, folder: Path) -> tuple[IndexedPackage, ...]:
        """The packages in an index that `write` made, sorted by file name. Raises RepositoryTrouble if it is damaged or
        not there."""
        ...

    def size_bytes(self, top: bytes) -> int:
        """The uncompressed size of the index, from its top file."""
        ...
