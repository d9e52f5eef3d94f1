"""Runs the steps of one build one after the other, without a scheduler: as far as the step that makes the packages.

Owns the order, which comes from the step types' own needs, and the inputs, which they make. The steps themselves are
run by the caller.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from farm.steps.base import Settling, StepType, Workflow, World
from farm.steps.orders import make_order
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
            steps=[StepState.planned(one, job_id=0, status=Status.READY) for one in workflow.first()],
        )

    def _work(self, build: BuildState, step: StepState) -> AnyWork:
        kind = step_type(step.kind)
        limits = kind.limits(self.target, build.package, self.options)
        order = replace(make_order(build, step, is_alone=True), wall_s=limits.wall_s)
        made = kind.make(order, self.world)
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
