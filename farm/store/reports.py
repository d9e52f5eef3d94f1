"""Checks of what a worker reports. A worker may be hostile: each value is checked before the store records it.

Not what follows from a report (settling.py).
"""

import re
from collections.abc import Iterator

from farm import wire
from farm.artifacts.names import check_name
from farm.model.artifact import Artifact
from farm.model.nevra import Nevra
from farm.model.work import BuildResult, FetchResult, SrpmResult, UploadResult
from farm.repositories.base import RepositoryKind, RepositoryName
from farm.state.changes import BuildState, StepState

_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_INT = 2**63 - 1
_NAME_CHARS = 255


def report_problem(build: BuildState, step: StepState, report: wire.AnyReport) -> str | None:
    """The reason why this report cannot be true, whichever worker sent it; None for a sound report."""
    if (report.result is None) == (report.trouble is None):
        return "it has not exactly one of a result and trouble"
    result = report.result
    for item in _artifacts(report):
        if not _SHA256.fullmatch(item.sha256) or not 0 <= item.size_bytes <= _MAX_INT or not _is_name(item.name):
            return f"artifact {item.name[:_NAME_CHARS]!a}"
        if item.nevra is not None and (bad := _bad_nevra(item.nevra)) is not None:
            return bad
    if result is None:
        return None
    if result.peak_memory_bytes is not None and not 0 <= result.peak_memory_bytes <= _MAX_INT:
        return f"peak memory {result.peak_memory_bytes}"
    if result.outcome.is_success and result.output is None:
        return "a success without output"
    if isinstance(result.output, FetchResult) and (spec := result.output.spec) is not None:
        is_sound = spec.endswith(".spec") and "/" not in spec and spec.isprintable()
        return None if is_sound else f"the spec's name {spec[:_NAME_CHARS]!a}"
    if isinstance(result.output, SrpmResult):
        return _bad_nevra(result.output.nevra)
    if isinstance(result.output, UploadResult):
        allowed = _destinations(build, step)
        return next((bad for path, version, _ in result.output.versions if (bad := _bad(allowed, path, version))), None)
    return None


def _artifacts(report: wire.AnyReport) -> Iterator[Artifact]:
    """Every artifact that the report names: those of the attempt, and those that the next step is given."""
    if report.trouble is not None:
        yield from report.trouble.artifacts
    if report.result is None:
        return
    yield from report.result.artifacts
    match report.result.output:
        case FetchResult(archive=archive):
            yield archive
        case SrpmResult(srpm=srpm):
            yield srpm
        case BuildResult(rpms=rpms):
            yield from rpms
        case UploadResult() | None:
            pass


def _is_name(name: str) -> bool:
    """Whether another host may create a file of this name: it is no path, and every character is visible."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _destinations(build: BuildState, step: StepState) -> frozenset[str]:
    """The paths of the repositories that an upload may have changed: of its own target and arches."""
    arches = step.covers or ((step.arch,) if step.arch else ())
    named = [RepositoryName(target=build.target, kind=RepositoryKind.SOURCE)]
    for kind in (RepositoryKind.BINARY, RepositoryKind.DEBUG):
        named += [RepositoryName(target=build.target, kind=kind, arch=arch) for arch in arches]
    return frozenset(name.path for name in named)


def _bad(allowed: frozenset[str], path: str, version: int) -> str | None:
    """The problem with one published version. A sound one is a hint that the repository changed: the scheduler asks the
    back end for the version and its URL."""
    if path in allowed and 0 < version <= _MAX_INT:
        return None
    return f"version {version} of {path[:_NAME_CHARS]!a}, to which this upload does not publish"


def _bad_nevra(nevra: str) -> str | None:
    try:
        parsed = Nevra.parse(nevra)
    except ValueError:
        return f"NEVRA {nevra[:_NAME_CHARS]!a}"
    if not nevra.isascii() or not nevra.isprintable() or len(nevra) > 4 * _NAME_CHARS:
        return "a NEVRA that does not print"
    return None if len(parsed.name) <= _NAME_CHARS else f"a name of {len(parsed.name)} characters"
