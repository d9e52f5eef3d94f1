"""The typed input and result of each step: the order of an attempt, and its answer."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions, Phase, StepKind
from farm.model.outcome import Outcome
from farm.model.source import Source
from farm.model.target import Limits, Target


@dataclass(frozen=True, kw_only=True)
class PinnedRepository:
    """One of the farm's own repositories, at the version for a build: the content of `url` never changes."""

    name: str
    url: str
    version: int


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A log or record that the attempt of this label stored."""

    attempt: str
    artifact: Artifact


@dataclass(frozen=True, kw_only=True)
class FetchInput:
    source: Source


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """`archive` is a src.rpm, or an uncompressed tar of the spec's folder with every source file beside the spec
    (`spec` is its name there). `commit_at` is the commit's time in seconds since 1970, for reproducible mtimes."""

    archive: Artifact
    spec: str | None = None
    commit: str | None = None
    commit_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class SrpmInput:
    archive: Artifact
    spec: str | None
    commit_at: int | None
    arch: Arch


@dataclass(frozen=True, kw_only=True)
class SrpmResult:
    """`exclusive_arches` and `exclude_arches` are as the spec says them, RPM spellings and all; `noarch` is true
    when every binary package is noarch, so that one arch builds for all."""

    srpm: Artifact
    nevra: str
    build_requires: tuple[str, ...]
    exclusive_arches: tuple[str, ...]
    exclude_arches: tuple[str, ...]
    noarch: bool


@dataclass(frozen=True, kw_only=True)
class BuildInput:
    """`repositories` are the farm's own, pinned to versions. Empty ones are left out."""

    srpm: Artifact
    nevra: str
    build_requires: tuple[str, ...]
    arch: Arch
    repositories: tuple[PinnedRepository, ...]


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    rpms: tuple[Artifact, ...]


@dataclass(frozen=True, kw_only=True)
class UploadInput:
    """`arches` are those whose repositories get the packages: one, or all of the build's for a noarch build.

    `srpm_by` and `built_by` are the labels of the attempts that made the source package and the others. `logs` are
    of all attempts that led here. Without packages (`srpm` None, no `rpms`) there are only the logs: the build did not
    succeed.
    """

    srpm: Artifact | None
    rpms: tuple[Artifact, ...]
    arches: tuple[Arch, ...]
    batch: int = 0
    srpm_by: str = ""
    built_by: str = ""
    logs: tuple[LogFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UploadResult:
    """The versions in which the packages are visible: (the repository's path, version, URL of that version)."""

    versions: tuple[tuple[str, int, str], ...]


StepInput = FetchInput | SrpmInput | BuildInput | UploadInput
StepOutput = FetchResult | SrpmResult | BuildResult | UploadResult

InputT = TypeVar("InputT", bound=StepInput, covariant=True)
OutputT = TypeVar("OutputT", bound=StepOutput, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Work(Generic[InputT]):
    """One attempt's whole order: everything its worker may know."""

    attempt: str
    kind: StepKind
    build_id: int
    package: str
    target: Target
    options: BuildOptions
    limits: Limits
    input: InputT


@dataclass(frozen=True, kw_only=True)
class StepResult(Generic[OutputT]):
    """How a step ended. A failing package is a result; only farm trouble raises.

    `reason` is one line; `excerpt` the log lines around it. `artifacts` are everything stored, the log included;
    `output` is there exactly when the outcome is a success.
    """

    outcome: Outcome
    reason: str | None = None
    excerpt: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    phases: tuple[Phase, ...] = ()
    peak_memory_bytes: int | None = None
    output: OutputT | None = None


AnyWork = Work[FetchInput] | Work[SrpmInput] | Work[BuildInput] | Work[UploadInput]
AnyResult = StepResult[StepOutput]
