"""The upload step: brings one build's packages to the repositories they belong in.

Owns which package goes to which repository; how it gets there is the repository back end's.
"""

from farm.errors import BadSource, LeaseLost
from farm.model.artifact import Artifact
from farm.model.nevra import Nevra
from farm.model.outcome import Outcome
from farm.model.work import StepResult, UploadInput, UploadResult, Work
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from workers.steps.context import StepContext

_DEBUG = ("-debuginfo", "-debugsource")
Destinations = dict[RepositoryName, list[tuple[Artifact, str]]]


def run(work: Work[UploadInput], context: StepContext) -> StepResult[UploadResult]:
    """One `add` per repository, in an order in which nothing is installable before its source is there.

    Safe to repeat. Raises the back end's RepositoryTrouble and the store's NotFound and trouble; BadSource for an
    artifact that is not a package of this build.
    """
    backend = open_repositories(context.settings)
    plan = destinations(work.target.name, work.input)
    artifacts = {artifact.sha256: artifact for content in plan.values() for artifact, _ in content}
    with context.phase("download"):
        paths = {
            sha256: context.store.get(artifact, context.workdir / f"{sha256}.rpm")
            for sha256, artifact in artifacts.items()
        }
    versions: list[tuple[str, int]] = []
    with context.phase("publish"):
        for name, content in plan.items():
            if context.stop.is_set():
                raise LeaseLost(f"attempt {context.attempt} was stopped before {name.path} was published")
            version = backend.add(
                name,
                [
                    RepositoryPackage(path=paths[artifact.sha256], sha256=artifact.sha256, filename=filename)
                    for artifact, filename in content
                ],
            )
            context.log.note(f"{name.path} version {version} has {', '.join(filename for _, filename in content)}")
            versions.append((name.path, version))
    return StepResult(outcome=Outcome.SUCCEEDED, phases=context.phases, output=UploadResult(versions=tuple(versions)))


def destinations(target: str, given: UploadInput) -> Destinations:
    """What goes where, with the file name it gets there: source first, then debug, then binary repositories.

    A noarch package goes to the repositories of all the given arches.
    """
    plan: Destinations = {
        RepositoryName(target=target, kind=RepositoryKind.SOURCE): [_named(given.srpm, ("src", "nosrc"))]
    }
    allowed = ("noarch", *(arch.rpm for arch in given.arches))
    for kind in (RepositoryKind.DEBUG, RepositoryKind.BINARY):
        is_debug = kind is RepositoryKind.DEBUG
        named = [_named(artifact, allowed) for artifact in given.rpms if _is_debug(_nevra(artifact).name) == is_debug]
        for arch in given.arches:
            content = [(artifact, name) for artifact, name in named if _nevra(artifact).arch in ("noarch", arch.rpm)]
            if content:
                plan[RepositoryName(target=target, kind=kind, arch=arch)] = content
    return plan


def _named(artifact: Artifact, arches: tuple[str, ...]) -> tuple[Artifact, str]:
    nevra = _nevra(artifact)
    if nevra.arch not in arches:
        raise BadSource(f"{str(nevra)!a} is for {nevra.arch}, and this upload takes {', '.join(arches)}")
    return artifact, nevra.filename


def _nevra(artifact: Artifact) -> Nevra:
    try:
        return Nevra.parse(artifact.nevra or "")
    except ValueError as error:
        raise BadSource(f"artifact {artifact.name!a} cannot be published: {error}") from error


def _is_debug(name: str) -> bool:
    """By name, as pungi and koji tell them. The middle forms are the kernel's `-debuginfo-common-<arch>` and such."""
    return name.endswith(_DEBUG) or any(f"{word}-" in name for word in _DEBUG)
