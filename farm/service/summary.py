"""A build in few words: what goes on in it, which attempt decided its outcome, how long a step ran."""

from farm.model.amounts import since
from farm.model.build import Attempt, Build, Step
from farm.model.outcome import Status
from farm.model.text import printable


def waiting(build: Build) -> str:
    """The running or waiting steps, in few words; empty for a finished build."""
    if build.status is Status.FINISHED:
        return ""
    running = [step.name for step in build.steps if step.status is Status.RUNNING]
    why = [
        f"{step.name}: {printable(step.waits_for)}"
        for step in build.steps
        if step.waits_for and not step.waits_for.startswith("waits for ")
    ]
    words = ([f"{', '.join(running)} running"] if running else []) + why
    return "; ".join(words) or "waits for the scheduler"


def culprit(build: Build) -> tuple[Step, Attempt] | tuple[None, None]:
    """The step that decided the build's outcome, and its last attempt."""
    for step in build.steps:
        if step.outcome is build.outcome and step.attempts and step.counts:
            return step, step.attempts[-1]
    return None, None


def ran_s(step: Step) -> float | None:
    """The seconds of the last attempt, until now while it runs; None if none has begun."""
    last = step.attempts[-1] if step.attempts else None
    return since(last.started_at, last.finished_at) if last is not None else None
