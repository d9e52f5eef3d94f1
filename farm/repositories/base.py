"""The repository back end's protocol: named, installable package repositories with numbered, immutable versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from farm.model.arch import Arch


class RepositoryKind(StrEnum):
    BINARY = "binary"
    DEBUG = "debug"
    SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class RepositoryName:
    """A repository is named by its target, kind and arch; the source repository has no arch."""

    target: str
    kind: RepositoryKind
    arch: Arch | None = None

    @property
    def path(self) -> str:
        """`demo/x86_64/os`, `demo/x86_64/debug`, `demo/source`."""
        match self.kind:
            case RepositoryKind.BINARY:
                return f"{self.target}/{self.arch}/os"
            case RepositoryKind.DEBUG:
                return f"{self.target}/{self.arch}/debug"
            case RepositoryKind.SOURCE:
                return f"{self.target}/source"


@dataclass(frozen=True, kw_only=True)
class RepositoryPackage:
    """An RPM to publish: a readable local file, its sha256, and the file name it gets in the repository."""

    path: Path
    sha256: str
    filename: str


class RepositoryBackend(Protocol):
    def add(self, name: RepositoryName, packages: Sequence[RepositoryPackage]) -> int:
        """Make the packages visible, and return the number of the first version that has them all.

        Safe to repeat: what is already there makes no new version. Calls that come while another publishes the
        same repository share one new version. Raises RepositoryTrouble; BadSource for a file that is not an RPM.
        """

    def current(self, name: RepositoryName) -> int:
        """The newest version's number; 0 is the empty repository, which always exists."""

    def url(self, name: RepositoryName, version: int | None = None) -> str:
        """What a package manager's `baseurl` takes: of a fixed version, or of whatever is newest."""
