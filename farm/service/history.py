"""The past of packages: durations and outcomes of steps, and from those an estimate of when a build ends."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farm.model.arch import Arch
from farm.model.build import Build, Step
from farm.model.history import StepRun
from farm.model.outcome import Outcome, Status
from farm.steps.registry import find_step_type

#: The builds before it from which an estimate is made.
ESTIMATED_FROM = 10
_Key = tuple[str, Arch | None]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """When a build ends if its steps take as long as in earlier builds, and no step waits for a slot."""

    end_at: datetime
    seconds_left: float
    builds: int


@dataclass(frozen=True, kw_only=True)
class ArchOutcomes:
    """How the steps of an arch that make packages ended in the newest finished builds."""

    arch: Arch
    outcomes: Mapping[Outcome, int]
    median_s: float | None

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    @property
    def good(self) -> int:
        """The number of those that succeeded."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.is_success)


def makes_packages(kind: str) -> bool:
    """Whether steps of this type make the packages of a build."""
    found = find_step_type(kind)
    return found is not None and found.makes_packages


def outcomes_of(runs: Iterable[StepRun]) -> tuple[ArchOutcomes, ...]:
    """By arch, from the runs of steps that make packages."""
    counted: dict[Arch, Counter[Outcome]] = defaultdict(Counter)
    taken: dict[Arch, list[float]] = defaultdict(list)
    for run in runs:
        if run.arch is None or run.outcome is None or not makes_packages(run.kind):
            continue
        counted[run.arch][run.outcome] += 1
        if run.outcome.is_success and run.seconds is not None:
            taken[run.arch].append(run.seconds)
    return tuple(
        ArchOutcomes(
            arch=arch, outcomes=counted[arch], median_s=statistics.median(taken[arch]) if taken[arch] else None
        )
        for arch in Arch
        if arch in counted
    )


def estimate(build: Build, runs: Sequence[StepRun], now: datetime | None = None) -> Estimate | None:
    """From runs of earlier builds of the same package. None for a build that is over, and without such runs."""
    if build.status is Status.FINISHED:
        return None
    usual = _usual(runs)
    once_s = sum(_left_s(step, usual, now) for step in build.steps if step.arch is None)
    lanes = [sum(_left_of(build, arch, usual, now)) for arch in build.arches]
    if not usual or (once_s == 0 and not any(lanes)):
        return None
    left = once_s + max(lanes, default=0.0)
    at = (now or datetime.now(UTC)) + timedelta(seconds=left)
    return Estimate(end_at=at, seconds_left=left, builds=len({run.build for run in runs}))


def _usual(runs: Iterable[StepRun]) -> dict[_Key, float]:
    """The median duration of the successful runs of each step."""
    taken: dict[_Key, list[float]] = defaultdict(list)
    for run in runs:
        if run.outcome is not None and run.outcome.is_success and run.seconds is not None:
            taken[run.kind, run.arch].append(run.seconds)
    return {key: statistics.median(values) for key, values in taken.items()}


def _left_of(build: Build, arch: Arch, usual: Mapping[_Key, float], now: datetime | None) -> Iterable[float]:
    """The seconds that are left of each step of an arch, also of steps that the build does not have yet."""
    there = {step.kind: step for step in build.steps if step.arch is arch}
    for kind, of in usual:
        if of is arch:
            yield _left_s(there[kind], usual, now) if kind in there else usual[kind, of]


def _left_s(step: Step, usual: Mapping[_Key, float], now: datetime | None) -> float:
    if step.status is Status.FINISHED or not step.counts:
        return 0.0
    whole = usual.get((step.kind, step.arch), 0.0)
    last = step.attempts[-1] if step.attempts else None
    if step.status is not Status.RUNNING or last is None or last.started_at is None:
        return whole
    return max(0.0, whole - ((now or datetime.now(UTC)) - last.started_at).total_seconds())
