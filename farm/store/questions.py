"""Parts of the questions about packages that builds bring: the builds with their reports, and lists in portions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from farm import wire
from farm.model.outcome import Status
from farm.model.work import AnyResult
from farm.state.changes import BuildState, StepState, build_for

_AT_ONCE = 500  # every database takes so many parameters
_Value = TypeVar("_Value")


def portions(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """The values in portions that fit into one question."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def reported(
    builds: Mapping[int, BuildState], reports: Iterable[wire.AnyReport]
) -> Iterator[tuple[BuildState, wire.AnyReport, AnyResult]]:
    """The reports that have a result, each with its build."""
    for report in reports:
        build = build_for(builds, report.attempt)
        if build is not None and report.result is not None:
            yield build, report, report.result


def ready_steps(builds: Mapping[int, BuildState]) -> Iterator[tuple[BuildState, StepState]]:
    return ((build, step) for build in builds.values() for step in build.steps if step.status is Status.READY)
