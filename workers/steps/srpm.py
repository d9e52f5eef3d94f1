"""The srpm step: makes the source package in a root of the target, once for all arches.

Owns the order of actions and the artifacts. The package format makes and checks source packages.
"""

import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

from farm.errors import StoreTrouble, disk_errors
from farm.formats.registry import format_of as farm_format_of
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.local import ShellRequest
from farm.model.outcome import Outcome
from farm.model.target import Limits
from farm.model.work import StepResult, Work
from farm.steps.fetch import FETCH
from farm.steps.srpm import SRPM, SrpmInput, SrpmResult
from workers.core.context import Ended, StepContext, open_watched, over_disk
from workers.core.text import shown
from workers.formats.base import Made, SourceRequest, WorkerFormat
from workers.formats.registry import format_of
from workers.sources.untar import members, open_tar
from workers.steps.records import found_again, store_package, store_root


def run(work: Work[SrpmInput], context: StepContext) -> StepResult[SrpmResult]:
    """Run the step. A given source package is made again for the target, so that the target's settings and the build's
    options apply to it.

    Raises as formats do: trouble, and LeaseLost.
    """
    form = format_of(work.target)
    made = form.make_source(_request(work, form, context), context)
    record = store_root(made.root, context)
    ended = StepResult[SrpmResult](
        outcome=made.outcome, reason=made.reason, artifacts=record, peak_memory_bytes=made.peak_memory_bytes
    )
    if made.outcome is not Outcome.SUCCEEDED:
        return ended
    try:
        with context.phase("collect"):
            output = _output(made, work.input.arch, form, context)
    except Ended as refused:
        return replace(ended, outcome=refused.outcome, reason=refused.reason)
    return replace(ended, artifacts=(output.srpm, *record), output=output)


def _request(work: Work[SrpmInput], form: WorkerFormat, context: StepContext) -> SourceRequest:
    given = work.input
    if given.archive.kind is ArtifactKind.SRPM:
        path = context.workdir / f"given.{form.source_word}"
        package = context.store.get(given.archive, path, stop=context.stop)
        return SourceRequest(target=work.target, arch=given.arch, options=work.options, package=package)
    folder = context.workdir / "sources"
    with context.store.local(given.archive.sha256, stop=context.stop) as archive:
        _unpack(archive, folder, context.stop, context.limits.disk_bytes)
    return SourceRequest(
        target=work.target,
        arch=given.arch,
        options=work.options,
        sources=folder,
        recipe=given.spec,
        source_date_epoch=given.commit_at,
    )


def asked_again(asked: ShellRequest, context: StepContext) -> SourceRequest:
    """The request of a recorded attempt, with its sources unpacked again. Raises NotFound if they are not kept."""
    given = found_again(asked, FETCH.name, (ArtifactKind.SOURCE, ArtifactKind.SRPM))
    form = format_of(asked.target)
    work = Work(
        attempt=asked.attempt,
        kind=SRPM.name,
        build_id=0,
        package=asked.package,
        target=asked.target,
        options=asked.options,
        limits=context.limits,
        input=SrpmInput(archive=given, spec=None, commit_at=None, arch=asked.arch),
    )
    request = _request(work, form, context)
    if request.sources is None:
        return request
    is_recipe = farm_format_of(asked.target.format).recipe_problem
    names = sorted(path.name for path in request.sources.iterdir() if is_recipe(path.name) is None)
    return replace(request, recipe=names[0] if names else None)


def _unpack(archive: Path, folder: Path, stop: threading.Event, limit_bytes: int = Limits.disk_bytes) -> None:
    """Unpack the fetch step's tar: regular files in one folder. It cannot have made any other member.

    Raises StoreTrouble for a damaged archive, since the fetch step does not make one, and LeaseLost.
    """
    folder.mkdir()
    try:
        with (
            disk_errors(StoreTrouble, f"unpacking the source archive {archive.name}"),
            open_watched(archive, stop) as file,
            open_tar(file) as tar,
        ):
            size_bytes = 0
            for member in members(tar):
                _check_member(member)
                size_bytes += member.size
                if size_bytes > limit_bytes:
                    raise over_disk(f"the sources are larger than the step's disk limit of {limit_bytes} bytes")
                tar.extract(member, folder, filter="data")
    except tarfile.TarError as error:
        raise StoreTrouble(
            f"the source archive {archive.name} is damaged: {error}; build from the source again"
        ) from error


def _check_member(member: tarfile.TarInfo) -> None:
    is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    if not is_plain or "/" in member.name or member.name in ("", ".", ".."):
        name = shown(os.fsencode(member.name))
        raise Ended(Outcome.FAILED, f"the source archive holds {name!r}, which is not a regular file")


def _output(made: Made, arch: Arch, form: WorkerFormat, context: StepContext) -> SrpmResult:
    taken, facts = form.take_source(made, context), made.facts
    if facts is None:
        raise ValueError(f"the format {form.name} made a source package and gave no facts of it")
    return SrpmResult(
        srpm=store_package(taken, ArtifactKind.SRPM, context),
        identity=str(taken.identity),
        build_requires=facts.requires,
        exclusive_arches=facts.exclusive_arches,
        exclude_arches=facts.exclude_arches,
        noarch=facts.is_independent,
        arch=arch,
    )
