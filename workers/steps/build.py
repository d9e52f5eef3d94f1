"""The build step: makes the binary packages of one arch from the source package, in a clean root without network.

Owns what goes into the root and what is taken from it. How a root is made is the engine's.
"""

from dataclasses import replace

from farm.artifacts.names import check_name
from farm.errors import BadSource
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome
from farm.model.work import StepResult, Work
from farm.steps.build import BuildInput, BuildResult
from workers.core.collect import collect
from workers.core.context import Ended, StepContext
from workers.formats.rpm.engine import RpmsRequest
from workers.formats.rpm.engines import engine_for
from workers.formats.rpm.results import store_packages, store_provenance, store_root


def run(work: Work[BuildInput], context: StepContext) -> StepResult[BuildResult]:
    """Raises what engines raise: trouble, and LeaseLost."""
    given = work.input
    request = RpmsRequest(
        target=work.target,
        arch=given.arch,
        options=work.options,
        srpm=context.store.get(given.srpm, context.workdir / _plain(given.srpm.name), stop=context.stop),
        build_requires=given.build_requires,
        repositories=tuple((one.name, one.url) for one in given.repositories),
    )
    made = engine_for(work.target, context.settings).make_rpms(request, context)
    ended = StepResult[BuildResult](outcome=made.outcome, reason=made.reason, peak_memory_bytes=made.peak_memory_bytes)
    packages: tuple[Artifact, ...] = ()
    if made.outcome is Outcome.SUCCEEDED:
        try:
            with context.phase("collect"):
                found = collect(made.results, ".rpm", limit_bytes=context.limits.disk_bytes)
                packages = store_packages(found, source=given.srpm.name, arch=given.arch.rpm, context=context)
            ended = replace(ended, output=BuildResult(rpms=packages))
        except Ended as refused:
            ended = replace(ended, outcome=refused.outcome, reason=refused.reason)
    records = (*store_root(made.root, context), store_provenance(work, packages, context))
    return replace(ended, artifacts=(*packages, *records))


def _plain(name: str) -> str:
    """A name that another host has given; it becomes a file's on this one."""
    try:
        return check_name(name)
    except ValueError as error:
        raise BadSource(f"the source package cannot be built: {error}; retry the srpm step") from error
