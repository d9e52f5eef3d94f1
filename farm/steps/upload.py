"""The `upload` step: brings the packages of one arch, with their logs and records, to the repositories."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import BuildOptions
from farm.model.target import Limits, Target
from farm.model.work import LogFile
from farm.queues import PUBLISH
from farm.repositories.base import RepositoryKind, RepositoryName
from farm.state.changes import BuildState, PackageName, PublishedPackage, StepState
from farm.state.graph import How
from farm.steps.base import Order, Settling, StepType, World, short
from farm.steps.build import BUILD, BuildResult
from farm.steps.names import NameKind
from farm.steps.srpm import SRPM, SrpmResult

_MAX_INT = 2**63 - 1
_PATH_CHARS = 255


@dataclass(frozen=True, kw_only=True)
class UploadInput:
    """`arches` are the arches whose repositories get the packages: one, or all of the build's for a noarch build.

    `srpm_by` and `built_by` are the labels of the attempts that made the source package and the binary packages. `logs`
    are the logs of all attempts that led here. `replaces` are packages and the builds whose packages of the same
    identity they replace, as known when the upload was offered.
    """

    srpm: Artifact
    rpms: tuple[Artifact, ...]
    arches: tuple[Arch, ...]
    batch: int = 0
    srpm_by: str = ""
    built_by: str = ""
    logs: tuple[LogFile, ...] = ()
    replaces: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class UploadResult:
    """The versions in which the packages are visible: (the repository's path, version, URL of that version)."""

    versions: tuple[tuple[str, int, str], ...]


class Upload(StepType[UploadInput, UploadResult]):
    name = "upload"
    input = UploadInput
    output = UploadResult
    needs = ((BUILD.name, How.CHAIN), (SRPM.name, How.SUCCESS))
    is_per_arch = True
    publishes_logs = True
    publishes_packages = True

    def queue(self, arch: Arch | None) -> str:
        return PUBLISH

    def limits(self, target: Target, package: str, options: BuildOptions) -> Limits:
        return short(target.limits)  # it runs no code of the package

    def make(self, order: Order, world: World) -> UploadInput:
        srpm, built = order.need(SRPM.name), order.need(BUILD.name)
        return UploadInput(
            srpm=srpm.output.srpm,
            rpms=built.output.rpms,
            arches=order.covers,
            batch=order.batch_id,
            srpm_by=srpm.attempt,
            built_by=built.attempt,
            logs=order.logs,
            replaces=order.replaces,
        )

    def problem(self, build: BuildState, step: StepState, output: UploadResult) -> str | None:
        allowed = _destinations(build, step)
        return next((bad for path, version, _ in output.versions if (bad := _bad(allowed, path, version))), None)

    def claims(self, build: BuildState, step: StepState) -> Iterable[PackageName]:
        yield build.place, NameKind.SOURCE.value, build.package
        made = build.find(BUILD.name, step.arch)
        if made is not None and made.output is not None:
            built: BuildResult = BUILD.decode(made.output)
            yield from BUILD.names(build, built)

    def publishes(self, build: BuildState, step: StepState) -> Iterable[PublishedPackage]:
        source, made = build.find(SRPM.name), build.find(BUILD.name, step.arch)
        if source is None or source.output is None or made is None or made.output is None:
            return
        packed: SrpmResult = SRPM.decode(source.output)
        yield PublishedPackage(
            place=build.place, arch=None, identity=packed.identity, sha256=packed.srpm.sha256, build_id=build.id
        )
        built: BuildResult = BUILD.decode(made.output)
        yield from BUILD.brings(build, step, built)

    def settle(self, settling: Settling, output: UploadResult) -> None:
        settling.changes.brought += self.publishes(settling.build, settling.step)
        settling.changes.published += [(path, version) for path, version, _ in output.versions]


def _destinations(build: BuildState, step: StepState) -> frozenset[str]:
    """The paths of the repositories that an upload may change: those of its own project, target and arches."""
    arches = step.covers or ((step.arch,) if step.arch else ())
    own = partial(RepositoryName, project=build.project, target=build.target)
    named = [own(kind=RepositoryKind.SOURCE)]
    for kind in (RepositoryKind.BINARY, RepositoryKind.DEBUG):
        named += [own(kind=kind, arch=arch) for arch in arches]
    return frozenset(name.path for name in named)


def _bad(allowed: frozenset[str], path: str, version: int) -> str | None:
    """The problem with one published version. A sound version only hints that the repository changed: the scheduler
    asks the back end for the version and its URL."""
    if path in allowed and 0 < version <= _MAX_INT:
        return None
    return f"version {version} of {path[:_PATH_CHARS]!a}, to which this upload does not publish"


UPLOAD = Upload()
