"""The repository back end's protocol: named, installable package repositories with numbered, immutable versions."""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from farm.formats.index import IndexedPackage
from farm.model.arch import Arch
from farm.model.place import DEFAULT_PROJECT, place_of
from farm.model.target import Target

KEEP_VERSIONS = 20


class RepositoryKind(StrEnum):
    BINARY = "binary"
    DEBUG = "debug"
    SOURCE = "source"
    LOGS = "logs"  # logs and records, as plain files


@dataclass(frozen=True, kw_only=True)
class RepositoryName:
    """A repository is named by its project, target, kind and arch; those of sources and of logs have no arch.

    `format` is that of the target, of which all packages are. It is no part of the path.
    """

    project: str = DEFAULT_PROJECT
    target: str
    kind: RepositoryKind
    arch: Arch | None = None
    format: str = Target.format

    @property
    def path(self) -> str:
        """`demo/x86_64/os`, `demo/x86_64/debug`, `demo/source`, `demo/logs`; in a project other than the default one
        `~perl/demo/source`. No target's name begins with `~`, so paths of two projects are never the same and never
        one below the other.

        >>> RepositoryName(project="perl", target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64).path
        '~perl/demo/x86_64/os'
        """
        target = place_of(self.project, self.target)
        match self.kind:
            case RepositoryKind.BINARY:
                return f"{target}/{self.arch}/os"
            case RepositoryKind.DEBUG:
                return f"{target}/{self.arch}/debug"
            case RepositoryKind.SOURCE:
                return f"{target}/source"
            case RepositoryKind.LOGS:
                return f"{target}/logs"


@dataclass(frozen=True, kw_only=True)
class RepositoryPackage:
    """A package to publish: a readable local file, its sha256, and the file name it gets in the repository.

    `labels` say where it came from (`build`, `arch`, `attempt`, `batch`), for back ends that store labels.
    """

    path: Path
    sha256: str
    filename: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RepositoryFile:
    """A log or record to publish. `name` is its path in the repository: `12/build.x86_64.1/build.x86_64.log`."""

    path: Path
    sha256: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RepositoryVersion:
    """`is_current` is true for the version of clients that ask for no version."""

    number: int
    published_at: datetime
    packages: int
    url: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class RepositoryCheck:
    """One check of the back end, in words; `remedy` says what to do when it fails."""

    what: str
    is_ok: bool
    found: str
    remedy: str = ""


class RepositoryBackend(Protocol):
    """Names that no repository can have raise BadRequest everywhere, and so does a format that the back end cannot
    publish. `stop` ends a call within two seconds, with
    LeaseLost; a repeat of the call finishes its work.
    """

    def prepare(
        self, name: RepositoryName, packages: Sequence[RepositoryPackage], *, stop: threading.Event | None = None
    ) -> None:
        """Do all of `add` that can refuse a package, and change no repository.

        A caller that adds to several repositories prepares all of them first. Raises what `add` raises.
        """

    def add(
        self,
        name: RepositoryName,
        packages: Sequence[RepositoryPackage],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """Make the packages visible, and return the number of a version that has them all.

        Safe to repeat: what is already there makes no new version. Calls that come while another publishes the
        same repository share one new version. Afterwards the newest `keep` versions remain, and any others that
        clients may still be reading. Raises RepositoryTrouble; BadSource for a file that is no package of
        the repository's format.
        """

    def add_files(
        self, name: RepositoryName, files: Sequence[RepositoryFile], *, stop: threading.Event | None = None
    ) -> str:
        """Make logs and records of a repository of kind LOGS visible, and return the URL that their names go below.

        Safe to repeat. An empty file may be left out. Raises RepositoryTrouble.
        """

    def copy(
        self,
        source: RepositoryName,
        version: int,
        into: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """Make packages of a kept version of one repository visible in another of the same kind, without bringing
        their files again. Returns the number of a version of `into` that has them all; all become visible at once.

        Safe to repeat, and the same as `add` in all else. Raises NotFound, before anything changes, for a version that
        is not kept, and for a package that it does not have; BadRequest, RepositoryTrouble.
        """

    def remove(
        self,
        name: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """Make a version without these packages, and return its number: the current one's when that has none of them.
        Older versions keep them.

        Safe to repeat; undone by `rollback`. Afterwards versions are kept as after `add`. Raises BadRequest,
        RepositoryTrouble.
        """

    def index(self, name: RepositoryName, version: int) -> tuple[IndexedPackage, ...]:
        """The packages of a kept version, sorted by file name; none for version 0.

        Raises NotFound for a version that is not kept, BadRequest, RepositoryTrouble when the back end does not answer.
        """

    def current(self, name: RepositoryName) -> int:
        """The number of the version that clients get; 0 is the empty repository, which always exists.

        Raises RepositoryTrouble when the back end does not answer.
        """

    def url(self, name: RepositoryName, version: int | None = None) -> str:
        """The `baseurl` for a package manager, of a fixed version or of the current one."""

    def versions(self, name: RepositoryName) -> tuple[RepositoryVersion, ...]:
        """The versions that are kept, newest first. Raises RepositoryTrouble when the back end does not answer."""

    def rollback(self, name: RepositoryName, to: int) -> int:
        """Give clients the content of version `to`, on which later additions build. Returns the new version's
        number, which is the current one's when that has the same content.

        Safe to repeat; undone by rolling back to the version that was current before. Raises NotFound for a version
        that is not kept, RepositoryTrouble.
        """

    def keeps(self, sha256s: Collection[str]) -> frozenset[str]:
        """The digests that packages of kept versions of any repository have. It may name others too, which the
        back end has not cleared away yet. Raises RepositoryTrouble when the back end does not answer."""

    def check(self) -> tuple[RepositoryCheck, ...]:
        """Whether the back end can be used from here: reachable, recent enough, and with the rights it needs."""
