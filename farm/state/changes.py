"""Builds as the state machine sees them: loaded whole, changed in memory, written back in few statements.

The objects are mutable on purpose, and only inside one transaction: `Changes` notes which fields were set, so that two
hundred reports become a handful of statements. The decisions are in machine.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.label import AttemptLabel, label_text
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT, place_of
from farm.model.source import Source
from farm.state.graph import How, Need, Planned


@dataclass(kw_only=True, slots=True, eq=False)
class LiveAttempt:
    """An attempt that is not finished. `id` is None until it is written. `holder` is the digest of its worker's token;
    it is None until the attempt was seen running."""

    id: int | None
    number: int
    status: Status
    wall_s: int
    dispatched_at: datetime
    offered_at: datetime | None
    holder: str | None = None
    worker: str | None = None
    started_at: datetime | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class StepState:
    """One row of `step`, with the edges to the steps that it needs. `id` is None until it is written. `is_skipped`: the
    step never had its turn, since a step that it needs did not succeed."""

    id: int | None
    job_id: int
    kind: str
    arch: Arch | None
    queue: str
    status: Status
    needs: tuple[Need, ...] = ()
    counts: bool = True
    outcome: Outcome | None = None
    reason: str | None = None
    is_skipped: bool = False
    not_before_at: datetime | None = None
    attempts: int = 0
    troubles: int = 0
    deaths: int = 0
    hand_backs: int = 0
    trouble: str | None = None
    trouble_hosts: tuple[str, ...] = ()
    covers: tuple[Arch, ...] = ()
    output: str | None = None
    live: LiveAttempt | None = None

    @classmethod
    def planned(cls, planned: Planned, *, job_id: int, status: Status) -> "StepState":
        """A step as it was planned, which is not written yet."""
        return cls(
            id=None,
            job_id=job_id,
            kind=planned.kind,
            arch=planned.arch,
            queue=planned.queue,
            status=status,
            needs=planned.needs,
            counts=planned.counts,
        )

    @property
    def name(self) -> str:
        return f"{self.kind} {self.arch}" if self.arch else self.kind

    @property
    def is_aftermath(self) -> bool:
        """Whether it was made because another step ended without success."""
        return any(need.how is How.END for need in self.needs)

    @property
    def label(self) -> str:
        """The label of the newest attempt."""
        return self.label_of(self.attempts)

    def label_of(self, number: int) -> str:
        """The label of the attempt with this number."""
        return label_text(self.job_id, self.kind, self.arch, number)


@dataclass(kw_only=True, slots=True, eq=False)
class BuildState:
    """One row of `build` with its steps, in the order in which they were made: a step after the steps that it needs."""

    id: int
    batch_id: int
    package: str
    nevra: str | None = None
    source_commit: str | None
    source: Source
    target: str
    format: str
    arches: tuple[Arch, ...]
    options: BuildOptions
    priority: int
    owner: str
    status: Status
    outcome: Outcome | None = None
    reason: str | None = None
    finished_at: datetime | None = None
    target_sha256: str | None = None
    project: str = DEFAULT_PROJECT
    steps: list[StepState] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The place of its packages: their names and versions are apart from those of other targets and projects."""
        return place_of(self.project, self.target)

    @property
    def name_owner(self) -> str:
        """The owner of its packages' names: its own in the default project, where all owners share roots; in another
        project its place, since the members publish together."""
        return self.owner if self.project == DEFAULT_PROJECT else self.place

    def find(self, kind: str, arch: Arch | None = None) -> StepState | None:
        for step in self.steps:
            if step.kind == kind and step.arch is arch:
                return step
        return None

    def needed(self, step: StepState, *hows: How) -> Iterator[StepState]:
        """The steps that this one needs in one of these ways; in any way if no way is given."""
        for need in step.needs:
            if (not hows or need.how in hows) and (found := self.find(need.kind, need.arch)) is not None:
                yield found

    def needing(self, step: StepState, *hows: How) -> Iterator[StepState]:
        """The steps that need this one in one of these ways; in any way if no way is given."""
        for other in self.steps:
            for need in other.needs:
                if need.kind == step.kind and need.arch is step.arch and (not hows or need.how in hows):
                    yield other

    def next_in_chain(self, step: StepState) -> StepState | None:
        """The step whose message goes out with this one's."""
        return next(self.needing(step, How.CHAIN), None)

    def downstream(self, step: StepState) -> list[StepState]:
        """Every step that needs this one's success, directly or through others, near ones first."""
        return _closure(step, lambda one: self.needing(one, How.CHAIN, How.SUCCESS))

    def ancestors(self, step: StepState) -> list[StepState]:
        """Every step that led to this one, near ones first."""
        return _closure(step, self.needed)

    def may_go(self, step: StepState) -> bool:
        """Whether the steps that this one needs have ended as it needs them to."""
        return all(other.status is Status.FINISHED for other in self.needed(step)) and all(
            other.outcome is not None and other.outcome.is_success
            for other in self.needed(step, How.CHAIN, How.SUCCESS)
        )

    def by_label(self, label: str) -> StepState | None:
        """The step whose live attempt has this label."""
        for step in self.steps:
            if step.live is not None and step.label_of(step.live.number) == label:
                return step
        return None


def _closure(step: StepState, near: Callable[[StepState], Iterable[StepState]]) -> list[StepState]:
    found: list[StepState] = []
    border = [step]
    while border:
        border = [other for one in border for other in near(one) if other is not step and other not in found]
        found += dict.fromkeys(border)
    return found


def build_for(builds: Mapping[int, BuildState], label: str) -> BuildState | None:
    """The build whose attempt the label names; None for another build, and for a text that is no label."""
    attempt = AttemptLabel.parse_or_none(label)
    return builds.get(attempt.job_id) if attempt is not None else None


#: Place (farm.model.place), kind and name.
PackageName = tuple[str, str, str]
Thing = BuildState | StepState | LiveAttempt


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedPackage:
    """A package that a build brings to a repository of its place: to that of `arch`, or for None to that of the
    sources. Two packages of one `slot` replace each other."""

    place: str
    arch: Arch | None
    identity: str
    sha256: str
    build_id: int

    @property
    def slot(self) -> tuple[str, str, str]:
        return self.place, self.arch or "", self.identity


@dataclass(frozen=True, kw_only=True, slots=True)
class Occupant:
    """The newest package in a slot: its content, its build, and the source package of that."""

    sha256: str
    build_id: int
    source: str


@dataclass(kw_only=True, slots=True)
class Changes:
    """The changes of one transaction to SQL, and the changes to Redis that follow its commit."""

    now: datetime
    builds: dict[int, BuildState]
    dirty: dict[int, tuple[Thing, dict[str, Any]]] = field(default_factory=dict)
    new_steps: list[StepState] = field(default_factory=list)
    new_needs: list[tuple[StepState, Need]] = field(default_factory=list)
    new_attempts: list[tuple[StepState, LiveAttempt]] = field(default_factory=list)
    dropped_attempts: list[int] = field(default_factory=list)
    artifacts: list[tuple[int, tuple[Artifact, ...]]] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    offers: list[tuple[BuildState, StepState]] = field(default_factory=list)
    used_s: dict[str, float] = field(default_factory=dict)
    published: list[tuple[str, int]] = field(default_factory=list)
    owners: dict[PackageName, str] = field(default_factory=dict)
    claims: list[tuple[PackageName, str, int]] = field(default_factory=list)
    occupants: dict[tuple[str, str, str], Occupant] = field(default_factory=dict)
    brought: list[PublishedPackage] = field(default_factory=list)

    def put(self, thing: Thing, **values: Any) -> None:
        """Set fields, and have them written. A value that a field already has is not written."""
        noted = self.dirty.get(id(thing))
        for name, value in values.items():
            if getattr(thing, name) == value:
                continue
            setattr(thing, name, value)
            if noted is None:
                noted = self.dirty[id(thing)] = (thing, {})
            noted[1][name] = value

    def close_attempt(self, attempt: LiveAttempt, **values: Any) -> None:
        """End an attempt. `values` are columns of its row, also such as `LiveAttempt` does not have."""
        noted = self.dirty.setdefault(id(attempt), (attempt, {}))
        attempt.status = Status.FINISHED
        noted[1].update({"finished_at": self.now, **values, "status": Status.FINISHED})

    def events(self) -> Iterator[dict[str, Any]]:
        """An event for each change of status, for listening clients: steps first, then builds."""
        at = self.now.isoformat()
        for thing, values in self.dirty.values():
            if isinstance(thing, StepState) and thing.id is not None and "status" in values:
                yield _event(self.builds[thing.job_id], thing, at)
        for step in self.new_steps:
            yield _event(self.builds[step.job_id], step, at)
        for thing, values in self.dirty.values():
            if isinstance(thing, BuildState) and "status" in values:
                yield _event(thing, None, at)


def _event(build: BuildState, step: StepState | None, at: str) -> dict[str, Any]:
    whole = step or build
    return {
        "build": build.id,
        "project": build.project,
        "package": build.package,
        "step": step.kind if step else None,
        "arch": step.arch if step else None,
        "attempt": step.label if step and step.attempts else None,
        "status": whole.status,
        "outcome": whole.outcome,
        "reason": whole.reason,
        "at": at,
    }
