"""The protocol of a package format on the workers' side: the methods that steps call, and the values that they pass.

A format is a folder beside this file and a line in `workers.formats.registry`. The steps own the artifacts and the
order of actions; a format owns the meaning of recipes, packages and the output of its tools.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from farm.config import Settings
from farm.formats.base import Identity
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.source import Source
from farm.model.target import Target
from workers.core.context import StepContext
from workers.isolation.sandbox import Bind
from workers.roots.base import PinnedUrl, RootMaker
from workers.roots.root import RootPackage
from workers.roots.session import RootSession
from workers.sources.tarball import Member
from workers.sources.tree import Tree


class BadPackage(ValueError):
    """A file is not a sound package of the format. The message continues a sentence that begins with the package's
    name."""


@dataclass(frozen=True, kw_only=True)
class GatherRequest:
    """A source in a tree. The first of `arches` is that of the root in which the recipe is asked; the others are those
    that the build asks for beside it."""

    source: Source
    target: Target
    options: BuildOptions
    arches: tuple[Arch, ...]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The recipe's file name, a name for the archive, and the recipe with all its sources, beside each other."""

    recipe: str
    stem: str
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class CheckedSource:
    """A source package that is complete. `verified` names the digests in it that were compared."""

    identity: Identity
    verified: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """Either `package` (a source package that is made again, so that the target's settings apply) or `sources` (a
    folder with the recipe, whose name is `recipe`, and every source file beside it)."""

    target: Target
    arch: Arch
    options: BuildOptions
    package: Path | None = None
    sources: Path | None = None
    recipe: str | None = None
    source_date_epoch: int | None = None


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """`repositories` are the farm's own, pinned. `requires` is the list of the source package, as the recipe states it
    for `requires_arch`; the recipe may state another one for `arch`. None if that arch is unknown."""

    target: Target
    arch: Arch
    options: BuildOptions
    source: Path
    requires: Sequence[str]
    repositories: Sequence[PinnedUrl]
    requires_arch: Arch | None = None

    @property
    def first_guess(self) -> tuple[str, ...]:
        """The requirements of the first root: none for another arch than the list's, since the list may have packages
        that this arch does not have."""
        return tuple(self.requires) if self.requires_arch in (None, self.arch) else ()


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """The facts that the recipe states for this target. `requires` are the packages needed to build it. The arches are
    in the format's spelling; `is_independent` if one arch builds for all."""

    identity: str
    requires: tuple[str, ...] = ()
    exclusive_arches: tuple[str, ...] = ()
    exclude_arches: tuple[str, ...] = ()
    is_independent: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """The result of making packages. `results` is a folder of files as the recipe left them, with hostile names, types
    and contents; it is empty unless `outcome` is a success. `facts` is set if a source package was made. `rounds` are
    the requirements that each root of the build was made to meet; the last root is the one that is recorded.

    `outcome` is SUCCEEDED, FAILED, UNRESOLVABLE (the reason names the requirements without a provider), EXCLUDED,
    TIMED_OUT, STALLED or OVER_LIMIT.
    """

    outcome: Outcome
    results: Path
    reason: str | None = None
    root: tuple[RootPackage, ...] = ()
    peak_memory_bytes: int | None = None
    facts: SourceFacts | None = None
    rounds: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A package of the results that was checked, and may be stored."""

    path: Path
    identity: Identity


@dataclass(frozen=True, kw_only=True)
class Reason:
    """The line of a log that says why a step failed, and the lines around it; both printable and of bounded length.
    `phase` is the format's name for the part of the recipe that failed; empty if it is unknown."""

    line: str
    excerpt: str
    phase: str = ""


@dataclass(frozen=True, kw_only=True)
class Fitness:
    """The engines of a format that work on this host. `unfit` is the reason why no root can be made here; None if one
    can."""

    engines: tuple[str, ...]
    unfit: str | None


@dataclass(frozen=True, kw_only=True)
class Past:
    """The record of an attempt: the packages of its root (none if that was not recorded), the farm's own repositories
    as they were pinned, and /builddir as it was left, if that was kept."""

    packages: tuple[RootPackage, ...] = ()
    repositories: tuple[PinnedUrl, ...] = ()
    build: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """A session in the root of an attempt. Commands get `binds`. `remarks` say how it differs from the record, and
    `commands` are the step's command lines."""

    session: RootSession
    binds: tuple[Bind, ...]
    remarks: tuple[str, ...]
    commands: tuple[str, ...] = ()


class WorkerFormat(Protocol):
    """One package format on a build host. All data from a recipe or a server is hostile.

    All methods that take a context raise trouble, LeaseLost once the context is stopped, and Ended for a fault of the
    package, unless their docstring says otherwise.
    """

    @property
    def name(self) -> str:
        """The name of the format in Target.format."""
        ...

    @property
    def source_word(self) -> str:
        """The word for a source package that people see: `src.rpm`."""
        ...

    def gather(self, tree: Tree, request: GatherRequest, context: StepContext) -> Gathered:
        """Find the recipe in the tree and collect its sources. The recipe runs in a root without network alone."""
        ...

    def check_source(self, path: Path, *, stop: threading.Event) -> CheckedSource:
        """Raises BadPackage for a file that is not a complete source package, and LeaseLost."""
        ...

    def check_identity(self, path: Path, identity: Identity) -> None:
        """Raises BadPackage if the package states another identity."""
        ...

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        """Make the source package in a root of the target. The answer reports a fault of the package."""
        ...

    def take_source(self, made: Made, context: StepContext) -> Taken:
        """The one source package in the results of a success. Raises Ended unless there is exactly one, and it is
        sound."""
        ...

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        """Make the packages of one arch in a root of the target, without network. The answer reports a fault of the
        package."""
        ...

    def take_packages(self, made: Made, *, source: str, arch: Arch, context: StepContext) -> tuple[Taken, ...]:
        """The packages in the results of a success. `source` is the file name of the source package. Raises Ended for
        a package with a wrong name, of another arch or source, or that a repository would refuse, and if there is no
        package."""
        ...

    def reopen(
        self, request: SourceRequest | BuildRequest, past: Past, context: StepContext
    ) -> AbstractContextManager[Reopened]:
        """Make the root of an attempt again, with its sources and commands in place. Raises trouble, and BadRequest if
        no root can be made."""
        ...

    def find_reason(self, log: Path) -> Reason | None:
        """The reason why the step of this log failed; None if the log does not tell."""
        ...

    def roots(self, settings: Settings) -> RootMaker:
        """The maker of roots in which commands run."""
        ...

    def fitness(self, settings: Settings, tools: Mapping[str, str]) -> Fitness:
        """`tools` are those of this host, with their versions (HostFacts)."""
        ...

    def sweep(self, settings: Settings) -> int:
        """Remove the files of dead workers outside of their roots. Returns the number of removed things."""
        ...
