"""The order for one attempt: everything in a build's record from which its input is made.

Not the input itself, which the step type makes (farm.steps), nor the target and the farm's repositories
(farm.scheduler.work).
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from farm.model.work import LogFile
from farm.state.changes import BuildState, StepState
from farm.state.graph import How
from farm.steps.base import Made, Message, Order
from farm.steps.registry import step_type

_NONE: Mapping[Any, Any] = MappingProxyType({})


def make_order(
    build: BuildState,
    step: StepState,
    secrets: Mapping[int, str] = _NONE,
    logs: Mapping[str, tuple[LogFile, ...]] = _NONE,
    replaces: Mapping[str, tuple[tuple[str, int], ...]] = _NONE,
    *,
    is_alone: bool = False,
) -> Order:
    """The order for a step; `logs` and `replaces` are by a step's label. With `is_alone` the message of the next step
    in the chain has been sent already, or is never sent. `wall_s` is that of the live attempt, and 0 without one."""
    following = None if is_alone else build.next_in_chain(step)
    source = build.source
    if step_type(step.kind).takes_secrets and build.id in secrets:
        source = replace(source, url=secrets[build.id])
    return Order(
        message=_message(build, step),
        following=_message(build, following) if following is not None and following.live is not None else None,
        build_id=build.id,
        batch_id=build.batch_id,
        project=build.project,
        target=build.target,
        target_sha256=build.target_sha256,
        options=build.options,
        wall_s=step.live.wall_s if step.live else 0,
        source=source,
        arches=build.arches,
        covers=step.covers or ((step.arch,) if step.arch else ()),
        made=_made(build, step),
        logs=logs.get(step.label, ()),
        replaces=replaces.get(step.label, ()),
    )


def _message(build: BuildState, step: StepState) -> Message:
    return Message(attempt=step.label, kind=step.kind, arch=step.arch, package=build.package, queue=step.queue)


def _made(build: BuildState, step: StepState) -> dict[str, Made]:
    """By kind, the outputs of the needed steps. A step with an output succeeded in its newest attempt."""
    return {
        other.kind: Made(attempt=other.label, output=step_type(other.kind).decode(other.output))
        for other in build.needed(step, How.CHAIN, How.SUCCESS)
        if other.output is not None
    }
