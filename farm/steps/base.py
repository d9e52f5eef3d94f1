"""A step type: the input and output of a kind of step, its queue, and the consequences of its results.

Owns the protocol. Each step type is a file beside this one, and registry.py lists them. The part of a step type that
runs on a worker is in workers.steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from farm.errors import NotFound
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome
from farm.model.place import DEFAULT_PROJECT
from farm.model.source import Source
from farm.model.target import Limits, Target
from farm.model.work import LogFile, PinnedRepository
from farm.state import machine
from farm.state.changes import BuildState, Changes, PackageName, PublishedPackage, StepState
from farm.state.graph import How, Need, Planned
from farm.state.machine import FanOut

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

#: The wall-clock limit of a step that builds nothing of a package.
SHORT_WALL_S = 3600
#: The outcomes of a step that runs no code of a package. Only the scheduler cancels, and trouble is no result.
_ENDS = frozenset((Outcome.SUCCEEDED, Outcome.FAILED, Outcome.STALLED, Outcome.TIMED_OUT, Outcome.OVER_LIMIT))
_ENDS_IN_ROOT = _ENDS | {Outcome.UNRESOLVABLE, Outcome.EXCLUDED}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One link of a Celery chain."""

    attempt: str
    kind: str
    arch: Arch | None
    package: str
    queue: str

    @property
    def number(self) -> int:
        """The number of the attempt, from 1."""
        return AttemptLabel.parse(self.attempt).number


@dataclass(frozen=True, kw_only=True)
class Made:
    """The output of a step, and the label of the attempt that made it."""

    attempt: str
    output: Any


@dataclass(frozen=True, kw_only=True)
class Order:
    """An attempt whose turn it is, with everything in SQL from which its input may be made.

    `source` has its credentials again for a step type that takes them. `target_sha256` is the record of the target as
    it was when the build was asked for, if there is one. `covers` are the arches that get the packages.
    `made` are the outputs of the needed steps, by their kind. `logs` are the logs of all attempts that led here, for a
    step type that publishes them. `replaces` has packages, and the builds whose packages they replace, for a step type
    that publishes packages. `following` is the next link of the chain, if it is sent with this one.
    """

    message: Message
    following: Message | None
    build_id: int
    batch_id: int
    target: str
    options: BuildOptions
    wall_s: int
    source: Source
    arches: tuple[Arch, ...]
    covers: tuple[Arch, ...]
    made: Mapping[str, Made]
    logs: tuple[LogFile, ...] = ()
    replaces: tuple[tuple[str, int], ...] = ()
    target_sha256: str | None = None
    project: str = DEFAULT_PROJECT

    def need(self, kind: str) -> Made:
        """The output of the needed step of this kind. Raises NotFound if it was never recorded."""
        try:
            return self.made[kind]
        except KeyError:
            raise NotFound(f"{self.message.attempt} has no recorded {kind}; retry the build from there") from None

    @property
    def arch(self) -> Arch:
        """The arch of a step that runs once per arch. Raises NotFound for any other step."""
        if self.message.arch is None:
            raise NotFound(f"{self.message.attempt} has no recorded arch; retry the build from there")
        return self.message.arch


class World(Protocol):
    """The scheduler's knowledge beyond SQL's record of a build."""

    def source_arch(self, order: Order) -> Arch:
        """An arch of the target that a source worker runs without emulation, where there is one."""
        ...

    def own_repositories(self, order: Order, arch: Arch) -> tuple[PinnedRepository, ...]:
        """The farm's own packages for the target and arch that the order's project names, pinned to a version: the
        project's own first, then those of the projects that it builds on. An empty repository is left out."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settling:
    """A successful attempt that is settled now. `native` are arches with a free native worker, best first."""

    changes: Changes
    build: BuildState
    step: StepState
    native: tuple[Arch, ...]
    workflow: "Workflow"

    def fan_out(self, plan: FanOut) -> None:
        """Make the steps of each arch, now that the arches are known."""
        machine.fan_out(self.changes, self.build, plan, self.workflow.per_arch)


class StepType(Generic[InputT, OutputT]):
    """One kind of step. Override the defaults that do not fit it; instances have no state.

    `input` and `output` are frozen dataclasses, sent as JSON. `needs` are the step types whose success it needs, in the
    order in which they are made; a step that runs per arch needs the step of its own arch. `runs_in_root`: it runs in a
    build root of the target, for the arch in its input's field `arch`. `can_reopen`: a person may have this root again.
    `is_on_demand`: a build has no such step until another step's end asks for one. `counts`: its outcome is part of the
    build's outcome.
    """

    name: ClassVar[str]
    input: ClassVar[type]
    output: ClassVar[type]
    needs: ClassVar[tuple[tuple[str, How], ...]] = ()
    is_per_arch: ClassVar[bool] = False
    is_on_demand: ClassVar[bool] = False
    runs_in_root: ClassVar[bool] = False
    can_reopen: ClassVar[bool] = False
    counts: ClassVar[bool] = True
    #: The longest report of an attempt. A report takes the scheduler up to 60 ms for each MiB.
    report_bytes: ClassVar[int] = 2**20
    #: Its log is the log that people look for first once a build has succeeded.
    makes_packages: ClassVar[bool] = False
    #: It gets the source's URL with its credentials.
    takes_secrets: ClassVar[bool] = False
    #: It brings packages to the repositories.
    publishes_packages: ClassVar[bool] = False
    #: It publishes the logs of all attempts that led to it, so its own end needs no `logs` step.
    publishes_logs: ClassVar[bool] = False

    def queue(self, arch: Arch | None) -> str:
        """The queue of a step of this type. Raises ValueError for an arch that is missing."""
        raise NotImplementedError

    def limits(self, target: Target, package: str, options: BuildOptions) -> Limits:
        """The limits of a step. `package` is a guess until the source package is made."""
        return short(options.limits.over(target.limits_for(package)))

    def make(self, order: Order, world: World) -> InputT:
        """The input of an attempt. Raises FarmError if it cannot be made."""
        raise NotImplementedError

    def artifacts(self, output: OutputT) -> Iterable[Artifact]:
        """Every artifact that the output names."""
        return ()

    def problem(self, build: BuildState, step: StepState, output: OutputT) -> str | None:
        """The reason why a worker's output cannot be true; None for a sound one. Its artifacts are checked already."""
        return None

    def names(self, build: BuildState, output: OutputT) -> Iterable[PackageName]:
        """The package names that the output brings, which no other owner may have."""
        return ()

    def claims(self, build: BuildState, step: StepState) -> Iterable[PackageName]:
        """The package names that belong to the build's owner once the step has succeeded."""
        return ()

    def brings(self, build: BuildState, step: StepState, output: OutputT) -> Iterable[PublishedPackage]:
        """The packages of the output that the build's uploads will bring to the repositories."""
        return ()

    def publishes(self, build: BuildState, step: StepState) -> Iterable[PublishedPackage]:
        """The packages that are in the repositories once the step has succeeded."""
        return ()

    def settle(self, settling: Settling, output: OutputT) -> None:
        """Make the changes that follow from a success, other than starting the steps that need it."""

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """The outcomes that a worker may report of it."""
        return _ENDS_IN_ROOT if self.runs_in_root else _ENDS

    @property
    def task(self) -> str:
        """The name of Celery's task."""
        return f"farm.{self.name}"

    def is_for(self, arch: Arch | None) -> bool:
        """Whether there can be such a step for this arch, or without an arch."""
        return (arch is not None) is self.is_per_arch

    def decode(self, text: str | bytes) -> OutputT:
        """The output from the JSON that the store keeps."""
        found: OutputT = msgspec.json.decode(text, type=self.output)
        return found

    def planned(self, arch: Arch | None) -> Planned:
        """A step of this type, with the edges to the steps that it needs."""
        return Planned(kind=self.name, arch=arch, queue=self.queue(arch), needs=self.edges(arch), counts=self.counts)

    def edges(self, arch: Arch | None) -> tuple[Need, ...]:
        """The edges of `needs`, for a step of this arch. The workflow knows which of those steps run once."""
        return tuple(Need(kind=kind, arch=arch, how=how) for kind, how in self.needs)


class Workflow:
    """The step types of one kind of job, in the order in which a job goes through them."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._types: dict[str, StepType[Any, Any]] = {}

    def add(self, step_type: StepType[Any, Any]) -> None:
        """Add a step type. Raises ValueError if its name is taken, or if it needs a step type that is not added yet."""
        if step_type.name in self._types:
            raise ValueError(f"the workflow of a {self.job} has a step type {step_type.name!r} already")
        if missing := [kind for kind, _ in step_type.needs if kind not in self._types]:
            raise ValueError(f"step type {step_type.name!r} needs {missing[0]!r}, which is no step type before it")
        self._types[step_type.name] = step_type

    @property
    def types(self) -> tuple[StepType[Any, Any], ...]:
        return tuple(self._types.values())

    def find(self, name: str) -> StepType[Any, Any] | None:
        return self._types.get(name)

    def first(self) -> tuple[Planned, ...]:
        """The steps of a new job, which run once."""
        return tuple(self._planned(one, None) for one in self.types if not one.is_per_arch and not one.is_on_demand)

    def per_arch(self, arch: Arch) -> tuple[Planned, ...]:
        """The steps of one arch."""
        return tuple(self._planned(one, arch) for one in self.types if one.is_per_arch and not one.is_on_demand)

    def following(self, name: str) -> StepType[Any, Any] | None:
        """The step type whose message is sent with a step of this type, as the next link of its chain."""
        return next((one for one in self.types if (name, How.CHAIN) in one.needs), None)

    def after_end(self, step: StepState) -> Planned | None:
        """The step that publishes the logs of a step that ended without success; None if there is no such step type,
        and for a step that publishes logs itself."""
        publisher = next((one for one in self.types if one.publishes_logs and one.is_on_demand), None)
        own = self.find(step.kind)
        if publisher is None or own is None or own.publishes_logs:
            return None
        need = Need(kind=step.kind, arch=step.arch, how=How.END)
        return replace(publisher.planned(step.arch), needs=(need,))

    def _planned(self, step_type: StepType[Any, Any], arch: Arch | None) -> Planned:
        planned = step_type.planned(arch)
        once = {one.name for one in self.types if not one.is_per_arch}
        needs = (replace(need, arch=None) if need.kind in once else need for need in planned.needs)
        return replace(planned, needs=tuple(needs))


@lru_cache(maxsize=64)
def short(limits: Limits) -> Limits:
    """The limits of a step that builds nothing of a package."""
    return replace(limits, wall_s=min(limits.wall_s, SHORT_WALL_S))
