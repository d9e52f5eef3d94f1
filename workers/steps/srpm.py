"""The srpm step: makes the source package in a root of the target, once for all arches.

Owns what goes into the root and what is taken from it. How a root is made is the engine's.
"""

import tarfile
from pathlib import Path

from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import SrpmInput, SrpmResult, StepResult, Work
from workers.buildroot.base import EngineRun, SrpmRequest
from workers.buildroot.engines import engine_for
from workers.steps.context import Ended, StepContext
from workers.steps.names import shown
from workers.steps.results import collect, store_root, store_source


def run(work: Work[SrpmInput], context: StepContext) -> StepResult[SrpmResult]:
    """A src.rpm is made again for the target, so that the target's macros and the build's options count in it.

    Raises what engines raise: trouble, and LeaseLost.
    """
    request = _request(work, context)
    made = engine_for(work.target, context.settings).make_srpm(request, context)
    record = store_root(made.root, context)
    if made.outcome is not Outcome.SUCCEEDED:
        return StepResult(
            outcome=made.outcome, reason=made.reason, artifacts=record, peak_memory_bytes=made.peak_memory_bytes
        )
    return _result(made, record, context)


def _request(work: Work[SrpmInput], context: StepContext) -> SrpmRequest:
    given = work.input
    if given.archive.kind is ArtifactKind.SRPM:
        srpm = context.store.get(given.archive, context.workdir / "given.src.rpm")
        return SrpmRequest(target=work.target, arch=given.arch, options=work.options, srpm=srpm)
    folder = context.workdir / "sources"
    _unpack(context.store.open_path(given.archive.sha256), folder)
    return SrpmRequest(
        target=work.target,
        arch=given.arch,
        options=work.options,
        sources=folder,
        spec=given.spec,
        source_date_epoch=given.commit_at,
    )


def _unpack(archive: Path, folder: Path) -> None:
    """The fetch step's tar: regular files side by side. Anything else in it is not of its making."""
    folder.mkdir()
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            if not member.isreg() or "/" in member.name or member.name in (".", ".."):
                raise Ended(Outcome.FAILED, f"the source archive holds {shown(member.name)!r}, which is no plain file")
            tar.extract(member, folder, filter="data")


def _result(made: EngineRun, record: tuple[Artifact, ...], context: StepContext) -> StepResult[SrpmResult]:
    artifact, nevra = store_source(collect(made.results, ".src.rpm"), context)
    header = made.header
    if header is None or header.nevra.removesuffix(".nosrc").removesuffix(".src") != nevra.removesuffix(".src"):
        said = header.nevra if header else "nothing"
        raise Ended(Outcome.FAILED, f"the spec says {shown(said)!r}, and the source package made of it is {nevra}")
    output = SrpmResult(
        srpm=artifact,
        nevra=nevra,
        build_requires=header.build_requires,
        exclusive_arches=header.exclusive_arches,
        exclude_arches=header.exclude_arches,
        noarch=bool(header.binary_arches) and set(header.binary_arches) == {"noarch"},
    )
    return StepResult(
        outcome=Outcome.SUCCEEDED,
        artifacts=(artifact, *record),
        peak_memory_bytes=made.peak_memory_bytes,
        output=output,
    )
