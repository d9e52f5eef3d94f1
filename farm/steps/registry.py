"""The list of step types. A new step type is a file beside this one and a line here, or a module of its own, which
FARM_EXTENSIONS names and which calls `register`.
"""

from collections.abc import Iterable
from typing import Any

from farm.extensions import load_extensions
from farm.model.arch import Arch
from farm.model.label import AttemptLabel
from farm.state.changes import BuildState, PackageName, PublishedPackage, StepState
from farm.steps.base import StepType, Workflow
from farm.steps.build import BUILD
from farm.steps.fetch import FETCH
from farm.steps.logs import LOGS
from farm.steps.srpm import SRPM
from farm.steps.upload import UPLOAD

AnyStepType = StepType[Any, Any]

_BUILD_WORKFLOW = Workflow("build")
for _one in (FETCH, SRPM, BUILD, UPLOAD, LOGS):
    _BUILD_WORKFLOW.add(_one)


def register(step_type: AnyStepType) -> None:
    """Add a step type to the workflow of a build. Raises ValueError for a name that is taken."""
    _BUILD_WORKFLOW.add(step_type)


def build_workflow() -> Workflow:
    """The workflow of a build, with the step types of extensions."""
    load_extensions()
    return _BUILD_WORKFLOW


def step_types() -> tuple[AnyStepType, ...]:
    """Every step type, in the order of the workflow."""
    return build_workflow().types


def find_step_type(kind: str) -> AnyStepType | None:
    """None for a name that no step type has."""
    # The farm's own step types are found without reading the environment: the scheduler asks ten times for each build.
    return _BUILD_WORKFLOW.find(kind) or build_workflow().find(kind)


def step_type(kind: str) -> AnyStepType:
    """Raises ValueError, in words for people, for a name that no step type has."""
    found = find_step_type(kind)
    if found is None:
        names = ", ".join(one.name for one in step_types())
        raise ValueError(f"{kind[:64]!a} is not a step; there are {names}, and FARM_EXTENSIONS can add others")
    return found


def claims_of(build: BuildState, step: StepState) -> Iterable[PackageName]:
    """The package names that belong to the build's owner once the step has succeeded. A step of an extension that is no
    longer installed has none, and is refused when it is sent."""
    found = find_step_type(step.kind)
    return found.claims(build, step) if found is not None else ()


def publishes(build: BuildState, step: StepState) -> Iterable[PublishedPackage]:
    """The packages that are in the repositories once the step has succeeded; none for a step of an extension that is no
    longer installed."""
    found = find_step_type(step.kind)
    return found.publishes(build, step) if found is not None and found.publishes_packages else ()


def publishing_kinds() -> list[str]:
    """The step types that bring packages to the repositories."""
    return [one.name for one in step_types() if one.publishes_packages]


def queue_of(label: str) -> str | None:
    """The queue of the step that an attempt's label names (`12.build.x86_64.1`); None for a text that is no label."""
    attempt = AttemptLabel.parse_or_none(label)
    found = find_step_type(attempt.kind) if attempt is not None else None
    if attempt is None or found is None or not found.is_for(attempt.arch):
        return None
    return found.queue(attempt.arch)


def kinds_for(queue: str) -> tuple[AnyStepType, ...]:
    """The step types whose steps are sent to this queue."""
    return tuple(one for one in step_types() if any(one.is_for(arch) and one.queue(arch) == queue for arch in _ARCHES))


def needs_root(queue: str) -> bool:
    """Whether a step of this queue runs in a build root."""
    return any(one.runs_in_root for one in kinds_for(queue))


_ARCHES = (None, *Arch)
