"""Runs the steps of one build one after the other, without a scheduler: as far as the step that makes the packages.

Owns the order, which comes from the step types' own needs, and the inputs, which they make. The steps themselves are
run by the caller.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Status
from farm.model.source import Source
from farm.model.target import Target
from farm.model.work import AnyResult, AnyWork, Work
from farm.state import machine
from farm.state.changes import BuildState, Changes, StepState
from farm.state.graph import How, Planned
from farm.steps.base import Made, Message, Order, Settling, StepType, Workflow, World
from farm.steps.registry import build_workflow, step_type


class LocalWorld(World, Protocol):
    """This machine in place of a farm."""

    @property
    def native(self) -> tuple[Arch, ...]:
        """The arches that this machine runs, best first."""
        ...

    def pinned(self, target: Target, arch: Arch) -> Target:
        """The target with the addresses of the farm's own repositories, where this machine has them."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalBuild:
    """A build that only this process knows."""

    target: Target
    source: Source
    arches: tuple[Arch, ...]
    options: BuildOptions
    world: LocalWorld

    def run(self, do: Callable[[AnyWork], AnyResult]) -> BuildState:
        """Run the steps with `do`. The answer has the outcome of the build, and all steps.

        Raises what `do` raises: trouble ends the build, since no other machine can try it.
        """
        workflow = _making(build_workflow())
        build = self._new(workflow)
        changes = Changes(now=datetime.now(UTC), builds={build.id: build})
        while (step := _next(build)) is not None:
            step.attempts += 1
            result = do(self._work(build, step))
            self._settle(changes, build, step, result, workflow)
        return build

    def _new(self, workflow: Workflow) -> BuildState:
        return BuildState(
            id=0,
            batch_id=0,
            package=self.source.guessed_name,
            source_commit=None,
            source=self.source,
            target=self.target.name,
            format=self.target.format,
            arches=self.arches,
            options=self.options,
            priority=0,
            owner="",
            status=Status.RUNNING,
            steps=[_step(planned) for planned in workflow.first()],
        )

    def _work(self, build: BuildState, step: StepState) -> AnyWork:
        kind = step_type(step.kind)
        limits = kind.limits(self.target, build.package, self.options)
        made = kind.make(self._order(build, step, limits.wall_s), self.world)
        target = self.world.pinned(self.target, made.arch) if kind.runs_in_root else self.target
        return Work(
            attempt=step.label,
            kind=step.kind,
            build_id=build.id,
            package=build.package,
            target=target,
            options=self.options,
            limits=limits,
            input=made,
        )

    def _order(self, build: BuildState, step: StepState, wall_s: int) -> Order:
        before = build.needed(step, How.CHAIN, How.SUCCESS)
        return Order(
            message=Message(
                attempt=step.label, kind=step.kind, arch=step.arch, package=build.package, queue=step.queue
            ),
            following=None,
            build_id=build.id,
            batch_id=build.batch_id,
            target=build.target,
            options=build.options,
            wall_s=wall_s,
            source=build.source,
            arches=build.arches,
            covers=step.covers or ((step.arch,) if step.arch else ()),
            made={
                one.kind: Made(attempt=one.label, output=step_type(one.kind).decode(one.output))
                for one in before
                if one.output is not None
            },
        )

    def _settle(
        self, changes: Changes, build: BuildState, step: StepState, result: AnyResult, workflow: Workflow
    ) -> None:
        if not result.outcome.is_success:
            machine.ended(changes, build, step, result.outcome, result.reason)
            return
        kind, output = step_type(step.kind), result.output
        settling = Settling(changes=changes, build=build, step=step, native=self.world.native, workflow=workflow)
        machine.succeeded(
            changes,
            build,
            step,
            outcome=result.outcome,
            output=msgspec.json.encode(output).decode(),
            settle=lambda: kind.settle(settling, output),
        )


def _making(whole: Workflow) -> Workflow:
    """The part of the workflow that makes packages: those step types and all that they need."""
    wanted: dict[str, StepType[Any, Any]] = {}
    for one in reversed(whole.types):
        if one.makes_packages or any(one.name == kind for later in wanted.values() for kind, _ in later.needs):
            wanted[one.name] = one
    part = Workflow("trial")
    for one in reversed(wanted.values()):
        part.add(one)
    return part


def _next(build: BuildState) -> StepState | None:
    return next((step for step in build.steps if step.status is not Status.FINISHED and build.may_go(step)), None)


def _step(planned: Planned) -> StepState:
    return StepState(
        id=None,
        job_id=0,
        kind=planned.kind,
        arch=planned.arch,
        queue=planned.queue,
        status=Status.READY,
        needs=planned.needs,
        counts=planned.counts,
    )
