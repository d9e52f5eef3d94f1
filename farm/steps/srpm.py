"""The `srpm` step: makes the source package, once for all arches. Its result says which arches are built."""

from collections.abc import Iterable
from dataclasses import dataclass

from farm.formats.base import ArchRules
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.queues import SOURCE
from farm.state.changes import BuildState, PackageName, StepState
from farm.state.graph import How
from farm.steps.arches import plan_arches
from farm.steps.base import Order, Settling, StepType, World
from farm.steps.fetch import FETCH, FetchResult
from farm.steps.names import NameKind, bad_identity, parsed_names


@dataclass(frozen=True, kw_only=True)
class SrpmInput:
    archive: Artifact
    spec: str | None
    commit_at: int | None
    arch: Arch


@dataclass(frozen=True, kw_only=True)
class SrpmResult:
    """`exclusive_arches` and `exclude_arches` are in the spelling of the package format; `noarch` is true when one
    arch builds for all. `arch` is the arch for which the recipe stated `build_requires`; None if that is unknown."""

    srpm: Artifact
    identity: str
    build_requires: tuple[str, ...]
    exclusive_arches: tuple[str, ...]
    exclude_arches: tuple[str, ...]
    noarch: bool
    arch: Arch | None = None


class Srpm(StepType[SrpmInput, SrpmResult]):
    name = "srpm"
    input = SrpmInput
    output = SrpmResult
    needs = ((FETCH.name, How.CHAIN),)
    runs_in_root = True
    can_reopen = True
    #: It has the requirements of the package.
    report_bytes = 4 * 2**20

    def queue(self, arch: Arch | None) -> str:
        return SOURCE

    def make(self, order: Order, world: World) -> SrpmInput:
        fetched: FetchResult = order.need(FETCH.name).output
        arch = world.source_arch(order)
        return SrpmInput(archive=fetched.archive, spec=fetched.spec, commit_at=fetched.commit_at, arch=arch)

    def artifacts(self, output: SrpmResult) -> Iterable[Artifact]:
        return (output.srpm,)

    def problem(self, build: BuildState, step: StepState, output: SrpmResult) -> str | None:
        if output.srpm.identity != output.identity:  # the one is checked for its owner, and the other published
            return f"a source package that is {str(output.srpm.identity)[:200]!a} and {output.identity[:200]!a} at once"
        return bad_identity(build.format, output.identity)

    def names(self, build: BuildState, output: SrpmResult) -> Iterable[PackageName]:
        return [(build.place, NameKind.SOURCE.value, name) for name in parsed_names(build.format, [output.identity])]

    def settle(self, settling: Settling, output: SrpmResult) -> None:
        build, form = settling.build, format_of(settling.build.format)
        settling.changes.put(build, package=form.parse_identity(output.identity).name, nevra=output.identity)
        settling.fan_out(plan_arches(build.arches, rules_of(output), settling.native, form))


def rules_of(output: SrpmResult) -> ArchRules:
    """The source package's rules about arches."""
    return ArchRules(exclusive=output.exclusive_arches, excluded=output.exclude_arches, is_independent=output.noarch)


SRPM = Srpm()
