"""The build step: makes the packages of one arch from the source package, in a clean root without network.

Owns the order of actions and the artifacts. The package format makes and checks packages.
"""

from dataclasses import replace

from farm.artifacts.names import check_name
from farm.errors import BadSource
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.local import ShellRequest
from farm.model.outcome import Outcome
from farm.model.work import StepResult, Work
from farm.steps.build import BuildInput, BuildResult
from farm.steps.srpm import SRPM
from workers.core.context import Ended, StepContext
from workers.formats.base import BuildRequest
from workers.formats.registry import format_of
from workers.steps.records import found_again, store_packages, store_provenance, store_root


def run(work: Work[BuildInput], context: StepContext) -> StepResult[BuildResult]:
    """Run the step. Raises as formats do: trouble, and LeaseLost."""
    given, form = work.input, format_of(work.target)
    # In its own folder: another host chose the name. The file may be a hard link to the store's, so it must never be
    # written to.
    folder = context.workdir / "given"
    folder.mkdir()
    source = context.store.get(given.srpm, folder / _plain(given.srpm.name), stop=context.stop)
    request = BuildRequest(
        target=work.target,
        arch=given.arch,
        options=work.options,
        source=source,
        requires=given.build_requires,
        requires_arch=given.requires_arch,
        repositories=tuple((one.name, one.url) for one in given.repositories),
    )
    made = form.build(request, context)
    ended = StepResult[BuildResult](outcome=made.outcome, reason=made.reason, peak_memory_bytes=made.peak_memory_bytes)
    packages: tuple[Artifact, ...] = ()
    if made.outcome is Outcome.SUCCEEDED:
        try:
            with context.phase("collect"):
                taken = form.take_packages(made, source=given.srpm.name, arch=given.arch, context=context)
                packages = store_packages(taken, ArtifactKind.RPM, context)
            ended = replace(ended, output=BuildResult(rpms=packages))
        except Ended as refused:
            ended = replace(ended, outcome=refused.outcome, reason=refused.reason)
    records = (*store_root(made.root, context), store_provenance(work, packages, made.rounds, context))
    return replace(ended, artifacts=(*packages, *records))


def asked_again(asked: ShellRequest, context: StepContext) -> BuildRequest:
    """The request of a recorded attempt. Raises NotFound if its source package is not kept."""
    given = found_again(asked, SRPM.name, (ArtifactKind.SRPM,))
    folder = context.workdir / "given"
    folder.mkdir()
    return BuildRequest(
        target=asked.target,
        arch=asked.arch,
        options=asked.options,
        source=context.store.get(given, folder / _plain(given.name), stop=context.stop),
        requires=(),
        repositories=(),
    )


def _plain(name: str) -> str:
    """Check a name from another host, which becomes a file's name on this one."""
    try:
        return check_name(name)
    except ValueError as error:
        raise BadSource(f"the source package cannot be built: {error}; retry the srpm step") from error
