"""Batches, builds, steps and attempts, as the store returns them."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT
from farm.model.source import Source
from farm.model.target import Limits, OwnLimits


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """`with_`/`without` are bcond names; `defines` are (name, value) RPM macros, in order.

    `timeout_s` replaces the wall-clock limit of the `build` step. `limits` are for `fetch` and `srpm`, too; their
    `wall_s` is None, for `timeout_s` says it.
    """

    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()
    timeout_s: int | None = None
    limits: OwnLimits = field(default_factory=OwnLimits)

    def limits_over(self, limits: Limits) -> Limits:
        """The limits of the `build` step: the requested limits, completed by the limits of the package."""
        return replace(self.limits, wall_s=self.timeout_s).over(limits)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """A request for one build. No arches means all arches of the target. `format` is the target's. A higher `priority`
    goes first. `package` is the name of a package of the project, if it was asked for by that name."""

    source: Source
    target: str
    arches: tuple[Arch, ...] = ()
    options: BuildOptions = BuildOptions()
    priority: int = 0
    format: str = "rpm"
    project: str = DEFAULT_PROJECT
    package: str | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A timed part of an attempt, such as `template`, `layer`, `rpmbuild`, `collect`."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of one step by one worker. `label` is unique and is Celery's task id: `12.build.x86_64.1`."""

    label: str
    number: int
    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    excerpt: str | None = None
    worker: str | None = None
    dispatched_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phases: tuple[Phase, ...] = ()
    peak_memory_bytes: int | None = None
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """`waits_for` says why a step does not run, such as "no worker for ppc64le"; None if it runs or is over.

    `kind` is the name of its step type. The outcome of a step without `counts` is not part of the build's.
    """

    kind: str
    arch: Arch | None
    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    waits_for: str | None = None
    counts: bool = True
    attempts: tuple[Attempt, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind} {self.arch}" if self.arch else self.kind


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """A package of one build in place of the same package of another build, of the same name, version and arch.

    `package` is its identity, `by` and `of` are the numbers of the builds. `arches` are the arches of the repositories
    in which it happened; none for a source package.
    """

    package: str
    arches: tuple[Arch, ...]
    of: int
    by: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Build:
    """One package for one target in one project. `package` is a guess until the srpm step has run; `nevra` is None
    until then.

    `target_sha256` is the artifact with the target as it was when the build was asked for; None for a build of a farm
    that did not record it. `warnings` are remarks that change no outcome; a list of builds leaves them out.
    `replaces` are the packages of other builds that packages of this one replaced in the
    repositories; `replaced` are its own packages that were replaced and that it has not published again since.
    """

    id: int
    batch_id: int
    package: str
    nevra: str | None = None
    commit: str | None = None
    source: Source
    target: str
    target_sha256: str | None = None
    arches: tuple[Arch, ...]
    options: BuildOptions
    priority: int
    owner: str
    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    created_at: datetime
    finished_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    replaces: tuple[Replacement, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    project: str = DEFAULT_PROJECT

    @property
    def name(self) -> str:
        """The name of the package; also its version, once that is known."""
        return self.nevra.removesuffix(".src") if self.nevra else self.package


@dataclass(frozen=True, kw_only=True)
class Batch:
    id: int
    owner: str
    created_at: datetime
    builds: tuple[Build, ...]
