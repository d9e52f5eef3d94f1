"""The upload step: brings one build's packages, logs and records to the repositories they belong in.

Owns which file goes to which repository; how it gets there is the repository back end's.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from farm.errors import BadSource
from farm.formats.rpm import rpmfile
from farm.model.artifact import Artifact
from farm.model.nevra import Nevra
from farm.model.outcome import Outcome
from farm.model.work import StepResult, Work
from farm.repositories import (
    RepositoryBackend,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
    open_repositories,
)
from farm.repositories.room import check_room
from farm.steps.upload import UploadInput, UploadResult
from workers.core.context import Ended, StepContext
from workers.steps.logs import check_stop, labels_of, publish_logs

_DEBUG = ("-debuginfo", "-debugsource")
_SOURCE = ("src", "nosrc")
_AT_ONCE = 4  # repositories: source, debuginfo and logs, then those of three arches
Destinations = dict[RepositoryName, list[tuple[Artifact, str]]]


def run(work: Work[UploadInput], context: StepContext) -> StepResult[UploadResult]:
    """What a repository refuses is the package's failure, and no host's. Raises what else `publish` does."""
    backend = open_repositories(context.settings)
    try:
        check_room(backend, destinations(work.target.name, work.input), context.settings)
        return publish(work, backend, context)
    except BadSource as error:
        raise Ended(Outcome.FAILED, f"refused by the repository: {error}") from error


def publish(work: Work[UploadInput], backend: RepositoryBackend, context: StepContext) -> StepResult[UploadResult]:
    """One `add` per repository: what is installed comes last, after its source, debuginfo and logs are there. Those
    that may come at the same time do, since a back end like Pulp is mostly waited for.

    Safe to repeat. Raises the back end's RepositoryTrouble and the store's NotFound and trouble; BadSource for an
    artifact that is not a package of this build.
    """
    plan = destinations(work.target.name, work.input)
    with ExitStack() as files:
        # Not copied to be checked: back ends look at digests, so a file that is not what it should be is found there.
        with context.phase("download"):
            paths = _brought(plan, context, files)
        return _published(work, plan, paths, backend, context)


def _brought(plan: Destinations, context: StepContext, files: ExitStack) -> dict[str, Path]:
    """The packages as files of this machine, by digest, for as long as `files` is open."""
    artifacts = dict.fromkeys(artifact for content in plan.values() for artifact, _ in content)
    digests = dict.fromkeys(artifact.sha256 for artifact in artifacts)
    paths = {sha256: files.enter_context(context.store.local(sha256, stop=context.stop)) for sha256 in digests}
    for artifact in artifacts:
        _check_header(artifact, paths[artifact.sha256])
    return paths


def _published(
    work: Work[UploadInput],
    plan: Destinations,
    paths: dict[str, Path],
    backend: RepositoryBackend,
    context: StepContext,
) -> StepResult[UploadResult]:
    def add(name: RepositoryName) -> tuple[str, int, str]:
        check_stop(context, name)
        given = [
            RepositoryPackage(
                path=paths[artifact.sha256],
                sha256=artifact.sha256,
                filename=filename,
                labels=_package_labels(work, artifact),
            )
            for artifact, filename in plan[name]
        ]
        version = backend.add(name, given, keep=work.target.keep_versions, stop=context.stop)
        context.log.note(f"{name.path} version {version} has {', '.join(filename for _, filename in plan[name])}")
        return name.path, version, backend.url(name, version)

    installable = [name for name in plan if name.kind is RepositoryKind.BINARY]
    with context.phase("publish"), ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="publish") as pool:
        logs = pool.submit(publish_logs, work, work.input.logs, backend, context)
        versions = list(pool.map(add, (name for name in plan if name not in installable)))
        logs.result()
        versions += pool.map(add, installable)
    return StepResult(outcome=Outcome.SUCCEEDED, phases=context.phases, output=UploadResult(versions=tuple(versions)))


def destinations(target: str, given: UploadInput) -> Destinations:
    """What goes where, with the file name it gets there: source first, then debug, then binary repositories.

    A noarch package goes to the repositories of all the given arches.
    """
    plan: Destinations = {RepositoryName(target=target, kind=RepositoryKind.SOURCE): [_named(given.srpm, _SOURCE)]}
    allowed = ("noarch", *(arch.rpm for arch in given.arches))
    for kind in (RepositoryKind.DEBUG, RepositoryKind.BINARY):
        is_debug = kind is RepositoryKind.DEBUG
        named = [_named(artifact, allowed) for artifact in given.rpms if _is_debug(_nevra(artifact).name) == is_debug]
        for arch in given.arches:
            content = [(artifact, name) for artifact, name in named if _nevra(artifact).arch in ("noarch", arch.rpm)]
            if content:
                plan[RepositoryName(target=target, kind=kind, arch=arch)] = content
    return plan


def _package_labels(work: Work[UploadInput], artifact: Artifact) -> dict[str, str]:
    """Of the attempt that made the package. The source package's are the same, whichever arch's upload brings it."""
    is_source = artifact is work.input.srpm
    attempt = work.input.srpm_by if is_source else work.input.built_by
    return labels_of(work, attempt=attempt, arch=_nevra(artifact).arch, batch=work.input.batch)


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


def _check_header(artifact: Artifact, path: Path) -> None:
    """Names decide who may publish, and it is a builder that reported this one: the file has to say the same of itself.
    Raises BadSource."""
    nevra = _nevra(artifact)
    read = rpmfile.read_source_tags if nevra.arch in _SOURCE else rpmfile.read_binary
    try:
        found = read(path).nevra
    except rpmfile.BadRpm as error:
        raise BadSource(f"{nevra.filename!a} {error}") from error
    if replace(found, arch=nevra.arch if found.arch in _SOURCE else found.arch) != nevra:
        raise BadSource(f"{nevra.filename!a} says of itself that it is {found}, and was reported as {nevra}")


def _is_debug(name: str) -> bool:
    """By name, as pungi and koji tell them. The middle forms are the kernel's `-debuginfo-common-<arch>` and such."""
    return name.endswith(_DEBUG) or any(f"{word}-" in name for word in _DEBUG)
