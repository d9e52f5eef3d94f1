"""Checks the reports of workers. A worker may be hostile: each value is checked before the store records it.

Not the changes that follow from a report (settling.py).
"""

import re
from collections.abc import Iterator

from farm import wire
from farm.artifacts.names import check_name
from farm.model.artifact import Artifact
from farm.model.build import Phase
from farm.state.changes import BuildState, StepState
from farm.steps.names import bad_identity
from farm.steps.registry import step_type

_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_INT = 2**63 - 1
_NAME_CHARS = 255
_PHASES = 1000
_PHASE_S = 2**31


def report_problem(build: BuildState, step: StepState, report: wire.AnyReport) -> str | None:
    """The reason why this report cannot be true, whichever worker sent it; None for a sound report."""
    if (report.result is None) == (report.trouble is None):
        return "it must have either a result or trouble"
    result = report.result
    for item in _artifacts(report):
        if not _SHA256.fullmatch(item.sha256) or not 0 <= item.size_bytes <= _MAX_INT or not _is_name(item.name):
            return f"artifact {item.name[:_NAME_CHARS]!a}"
        if item.identity is not None and (bad := bad_identity(build.format, item.identity)) is not None:
            return bad
    if result is None:
        return None
    if result.peak_memory_bytes is not None and not 0 <= result.peak_memory_bytes <= _MAX_INT:
        return f"peak memory {result.peak_memory_bytes}"
    if len(result.phases) > _PHASES or not all(map(_is_phase, result.phases)):
        return f"{len(result.phases)} phases, of which each has a name and a time, and at most {_PHASES} are taken"
    if result.outcome not in step_type(step.kind).outcomes:
        return f"the outcome {result.outcome.value}, which no worker gives a {step.kind} step"
    if result.outcome.is_success and result.output is None:
        return "a success without output"
    return step_type(step.kind).problem(build, step, result.output) if result.output is not None else None


def _artifacts(report: wire.AnyReport) -> Iterator[Artifact]:
    """Every artifact that the report names: those of the attempt, and those that the next step is given."""
    if report.trouble is not None:
        yield from report.trouble.artifacts
    if report.result is None:
        return
    yield from report.result.artifacts
    if report.result.output is not None:
        yield from step_type(report.kind).artifacts(report.result.output)


def _is_phase(phase: Phase) -> bool:
    return 0 < len(phase.name) <= _NAME_CHARS and phase.name.isprintable() and 0 <= phase.seconds <= _PHASE_S


def _is_name(name: str) -> bool:
    """Whether another host may create a file of this name: it is no path, and every character is visible."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True
