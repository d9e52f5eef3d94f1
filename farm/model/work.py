"""The work of an attempt, and how a step ended. The inputs and outputs of each step type are in farm.steps."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions, Phase
from farm.model.outcome import Outcome
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Limits, Target


@dataclass(frozen=True, kw_only=True)
class PinnedRepository:
    """One of the farm's own repositories, at the version for a build: the content of `url` never changes."""

    name: str
    url: str
    version: int


def repository_id(project: str, target: str, arch: Arch) -> str:
    """The name of a pinned repository in a root of this target. No two projects have the same.

    >>> repository_id("main", "demo", Arch.X86_64), repository_id("perl", "demo", Arch.X86_64)
    ('farm-demo-x86_64', 'farm.perl-x86_64')
    """
    return f"farm-{target}-{arch}" if project == DEFAULT_PROJECT else f"farm.{project}-{arch}"


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A log or record that the attempt of this label stored."""

    attempt: str
    artifact: Artifact


InputT = TypeVar("InputT", covariant=True)
OutputT = TypeVar("OutputT", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Work(Generic[InputT]):
    """Everything that the worker of an attempt is told. `project` is that of the repositories that get the packages.

    `target_sha256` is the artifact from which `target` comes, if it was recorded: the target before addresses were
    filled in for the farm's own repositories.
    """

    attempt: str
    kind: str
    build_id: int
    package: str
    target: Target
    options: BuildOptions
    limits: Limits
    input: InputT
    target_sha256: str | None = None
    project: str = DEFAULT_PROJECT


@dataclass(frozen=True, kw_only=True)
class StepResult(Generic[OutputT]):
    """How a step ended. A failing package is a result; only farm trouble raises.

    `reason` is one line; `excerpt` the log lines around it. `artifacts` are all stored files, the log included;
    `output` is set exactly when the outcome is a success.
    """

    outcome: Outcome
    reason: str | None = None
    excerpt: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    phases: tuple[Phase, ...] = ()
    peak_memory_bytes: int | None = None
    output: OutputT | None = None


AnyWork = Work[Any]
AnyResult = StepResult[Any]
