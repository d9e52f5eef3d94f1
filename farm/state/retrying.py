"""Chooses the steps that a retry runs again, and gives the reason when it cannot."""

from farm.errors import NotFound, WrongState
from farm.model.arch import Arch
from farm.model.outcome import Outcome, Status
from farm.state.changes import BuildState, StepState
from farm.state.graph import How


def choose(build: BuildState, *, kind: str | None, arch: Arch | None) -> list[StepState]:
    """The steps that the retry makes ready again; none of them is downstream of another.

    Raises NotFound for a step that the build does not have, WrongState when it cannot be run again now.
    """
    wanted = _failed(build, arch) if kind is None else _named(build, kind, arch)
    chosen: list[StepState] = []
    for step in wanted:
        if not any(step is other for first in chosen for other in build.downstream(first)):
            _check(build, step)
            chosen.append(step)
    return chosen


def _failed(build: BuildState, arch: Arch | None) -> list[StepState]:
    steps = [step for step in _own_turn(build) if _can_be_again(step) and arch in (None, step.arch)]
    over = [step for step in steps if step.status is Status.FINISHED]
    failed = [step for step in over if step.outcome is not None and not step.outcome.is_success]
    # A skipped step follows from the failure of an earlier step: that one is run again, and the skipped one after it.
    wanted = [step for step in failed if not _waits_on(build, step, failed)]
    if wanted:
        return wanted
    where = f"build {build.id}" + (f" on {arch}" if arch else "")
    if len(over) < len(steps):
        raise WrongState(f"{where} is still going on; wait for it, or cancel it first with `farm cancel {build.id}`")
    raise WrongState(f"no step of {where} failed; name one with --step to run it again")


def _named(build: BuildState, kind: str, arch: Arch | None) -> list[StepState]:
    named = [step for step in build.steps if step.kind == kind]
    steps = [step for step in named if arch in (None, step.arch)]
    if not steps and named and all(step.arch is None for step in named):
        raise WrongState(f"step {kind} runs once for all arches; name it without --arch")
    if not steps:
        name = f"{kind} {arch}" if arch else kind
        have = ", ".join(step.name for step in build.steps)
        raise NotFound(f"build {build.id} has no step {name}; it has {have}")
    possible = [step for step in steps if _can_be_again(step)]
    if not possible:
        raise WrongState(f"{steps[0].name} of build {build.id} is excluded: {steps[0].reason}")
    failed = [step for step in possible if step.outcome is not None and not step.outcome.is_success]
    return failed or possible


def _own_turn(build: BuildState) -> list[StepState]:
    """The steps that do not follow from the failure of another one, as the steps that publish logs do."""
    return [step for step in build.steps if not step.is_aftermath]


def _can_be_again(step: StepState) -> bool:
    return step.outcome is not Outcome.EXCLUDED


def _waits_on(build: BuildState, step: StepState, failed: list[StepState]) -> bool:
    return any(before in failed for before in build.needed(step))


def _check(build: BuildState, step: StepState) -> None:
    for one in (step, *build.downstream(step), *build.needing(step, How.END)):
        if one.status is not Status.FINISHED:
            raise WrongState(
                f"{one.name} of build {build.id} is {one.status}; wait for it, or cancel the build first "
                f"with `farm cancel {build.id}`"
            )
    for before in build.needed(step, How.CHAIN, How.SUCCESS):
        if before.output is None:
            how = before.outcome or before.status
            raise WrongState(
                f"{step.name} of build {build.id} needs the results of {before.name}, which is {how}; retry that "
                "instead"
            )
