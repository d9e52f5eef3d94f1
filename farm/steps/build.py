"""The `build` step: makes the binary packages of one arch from the source package."""

from collections.abc import Iterable
from dataclasses import dataclass

from farm.formats.base import Format
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.target import Limits, Target
from farm.model.work import PinnedRepository
from farm.queues import build_queue
from farm.state.changes import BuildState, PackageName, PublishedPackage, StepState
from farm.state.graph import How
from farm.steps.base import Order, StepType, World
from farm.steps.names import NameKind, identity_of, package_names
from farm.steps.srpm import SRPM, SrpmResult

_NAME_CHARS = 255


@dataclass(frozen=True, kw_only=True)
class BuildInput:
    """`repositories` are the farm's own, pinned to versions. Empty repositories are left out. The recipe states
    `build_requires` for the arch `requires_arch`; None if that arch is unknown."""

    srpm: Artifact
    identity: str
    build_requires: tuple[str, ...]
    arch: Arch
    repositories: tuple[PinnedRepository, ...]
    requires_arch: Arch | None = None


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    rpms: tuple[Artifact, ...]


class Build(StepType[BuildInput, BuildResult]):
    name = "build"
    input = BuildInput
    output = BuildResult
    needs = ((SRPM.name, How.SUCCESS),)
    is_per_arch = True
    runs_in_root = True
    can_reopen = True
    makes_packages = True
    #: A report names each package twice, in 600 bytes together: 20,000 packages. TeX Live has 5,600.
    report_bytes = 16 * 2**20

    def queue(self, arch: Arch | None) -> str:
        if arch is None:
            raise ValueError("a build step has an arch")
        return build_queue(arch)

    def limits(self, target: Target, package: str, options: BuildOptions) -> Limits:
        return options.limits_over(target.limits_for(package))

    def make(self, order: Order, world: World) -> BuildInput:
        made: SrpmResult = order.need(SRPM.name).output
        return BuildInput(
            srpm=made.srpm,
            identity=made.identity,
            build_requires=made.build_requires,
            requires_arch=made.arch,
            arch=order.arch,
            repositories=world.own_repositories(order, order.arch),
        )

    def artifacts(self, output: BuildResult) -> Iterable[Artifact]:
        return output.rpms

    def problem(self, build: BuildState, step: StepState, output: BuildResult) -> str | None:
        form = format_of(build.format)
        return next((bad for rpm in output.rpms if (bad := _bad_arch(form, step, rpm)) is not None), None)

    def names(self, build: BuildState, output: BuildResult) -> Iterable[PackageName]:
        return [(build.place, NameKind.BINARY.value, name) for name in package_names(build.format, output.rpms)]

    def brings(self, build: BuildState, step: StepState, output: BuildResult) -> Iterable[PublishedPackage]:
        form = format_of(build.format)
        arches = step.covers or ((step.arch,) if step.arch else ())
        for rpm in output.rpms:
            identity = identity_of(form, rpm)
            for arch in arches:
                if identity is not None and identity.arch in (form.independent, form.spell(arch)):
                    yield PublishedPackage(
                        place=build.place,
                        arch=arch,
                        identity=identity.text,
                        sha256=rpm.sha256,
                        build_id=build.id,
                    )


def _bad_arch(form: Format, step: StepState, rpm: Artifact) -> str | None:
    """The problem with a package that this step cannot have made. The hosts of one arch may make no packages of another
    arch: an upload for several arches brings each package to the repositories of its own arch."""
    own = () if len(step.covers) > 1 or step.arch is None else (form.spell(step.arch),)
    allowed = (form.independent, *own)
    arch = form.parse_identity(rpm.identity).arch if rpm.identity is not None else None
    if arch in allowed:
        return None
    return f"package {rpm.name[:_NAME_CHARS]!a} of arch {arch}, where a build makes {' and '.join(allowed)}"


BUILD = Build()
