"""The srpm step: makes the source package in a root of the target, once for all arches.

Owns what goes into the root and what is taken from it. How a root is made is the engine's.
"""

import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

from farm.errors import StoreTrouble, disk_errors
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Outcome
from farm.model.target import Limits
from farm.model.work import StepResult, Work
from farm.steps.srpm import SrpmInput, SrpmResult
from workers.core.collect import collect
from workers.core.context import Ended, StepContext, open_watched, over_disk
from workers.core.text import shown
from workers.formats.rpm.engine import EngineRun, SrpmRequest
from workers.formats.rpm.engines import engine_for
from workers.formats.rpm.results import store_root, store_source
from workers.sources.untar import members, open_tar


def run(work: Work[SrpmInput], context: StepContext) -> StepResult[SrpmResult]:
    """A src.rpm is made again for the target, so that the target's macros and the build's options count in it.

    Raises what engines raise: trouble, and LeaseLost.
    """
    request = _request(work, context)
    made = engine_for(work.target, context.settings).make_srpm(request, context)
    record = store_root(made.root, context)
    ended = StepResult[SrpmResult](
        outcome=made.outcome, reason=made.reason, artifacts=record, peak_memory_bytes=made.peak_memory_bytes
    )
    if made.outcome is not Outcome.SUCCEEDED:
        return ended
    try:
        with context.phase("collect"):
            output = _output(made, context)
    except Ended as refused:
        return replace(ended, outcome=refused.outcome, reason=refused.reason)
    return replace(ended, artifacts=(output.srpm, *record), output=output)


def _request(work: Work[SrpmInput], context: StepContext) -> SrpmRequest:
    given = work.input
    if given.archive.kind is ArtifactKind.SRPM:
        srpm = context.store.get(given.archive, context.workdir / "given.src.rpm", stop=context.stop)
        return SrpmRequest(target=work.target, arch=given.arch, options=work.options, srpm=srpm)
    folder = context.workdir / "sources"
    with context.store.local(given.archive.sha256, stop=context.stop) as archive:
        _unpack(archive, folder, context.stop, context.limits.disk_bytes)
    return SrpmRequest(
        target=work.target,
        arch=given.arch,
        options=work.options,
        sources=folder,
        spec=given.spec,
        source_date_epoch=given.commit_at,
    )


def _unpack(archive: Path, folder: Path, stop: threading.Event, limit_bytes: int = Limits.disk_bytes) -> None:
    """The fetch step's tar: regular files side by side. Anything else in it is not of its making.

    Raises StoreTrouble for an archive that is damaged, which the fetch step does not make, and LeaseLost.
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
            f"the source archive {archive.name} is damaged: {error}; build from the source anew"
        ) from error


def _check_member(member: tarfile.TarInfo) -> None:
    is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    if not is_plain or "/" in member.name or member.name in ("", ".", ".."):
        name = shown(os.fsencode(member.name))
        raise Ended(Outcome.FAILED, f"the source archive holds {name!r}, which is no plain file")


def _output(made: EngineRun, context: StepContext) -> SrpmResult:
    artifact, nevra = store_source(collect(made.results, ".src.rpm", limit_bytes=context.limits.disk_bytes), context)
    header = made.header
    if header is None or header.nevra.removesuffix(".nosrc").removesuffix(".src") != nevra.removesuffix(".src"):
        said = header.nevra if header else "nothing"
        raise Ended(Outcome.FAILED, f"the spec says {shown(said)!r}, and the source package made of it is {nevra}")
    return SrpmResult(
        srpm=artifact,
        nevra=nevra,
        build_requires=header.build_requires,
        exclusive_arches=header.exclusive_arches,
        exclude_arches=header.exclude_arches,
        noarch=bool(header.binary_arches) and set(header.binary_arches) == {"noarch"},
    )
