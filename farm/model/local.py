"""The requests of `farm try` and `farm shell` to this machine, without a farm. The command line writes one, and the
program `python -m workers.local` reads it.
"""

from dataclasses import dataclass, field

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.place import DEFAULT_PROJECT
from farm.model.source import Source
from farm.model.target import Target
from farm.model.work import PinnedRepository


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """Build a work tree, or `source`, for each of the arches in turn.

    `folder` is a full path within the work tree; `subdir` and `recipe` are relative to it. Packages, logs and records
    go into the folder `results`. `is_kept` keeps the work folder of a failed step, `has_shell` opens a shell in its
    root, and `is_quiet` leaves out the log.
    """

    target: Target
    arches: tuple[Arch, ...]
    options: BuildOptions
    folder: str
    results: str
    source: Source | None = None
    subdir: str | None = None
    recipe: str | None = None
    is_kept: bool = False
    has_shell: bool = False
    is_quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """An artifact, and the step whose last attempt stored it."""

    kind: str
    arch: Arch | None
    artifact: Artifact


@dataclass(frozen=True, kw_only=True)
class ShellRequest:
    """Run a command in the root of a recorded attempt; a shell on the terminal without a command.

    `artifacts` are those of all steps of the build. `repositories` are those that the step used, where this is known
    from another place than its records; else those of the project, and of the projects that it builds on, at the
    versions of the records. Without `kind`, the command runs in a new root of the target.
    """

    target: Target
    arch: Arch
    options: BuildOptions = field(default_factory=BuildOptions)
    project: str = DEFAULT_PROJECT
    builds_on: tuple[str, ...] = ()
    package: str = ""
    kind: str | None = None
    attempt: str = ""
    artifacts: tuple[StoredArtifact, ...] = ()
    repositories: tuple[PinnedRepository, ...] = ()
    command: tuple[str, ...] = ()
    has_network: bool = False


LocalRequest = TrialRequest | ShellRequest
