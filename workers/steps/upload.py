"""The upload step: brings one build's packages, logs and records to the repositories they belong in.

Owns which file goes to which repository; how it gets there is the repository back end's.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from farm.errors import BadSource
from farm.formats.base import Format, Identity
from farm.formats.registry import format_of as farm_format_of
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome
from farm.model.place import DEFAULT_PROJECT
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
from workers.formats.base import BadPackage
from workers.formats.registry import format_of
from workers.steps.logs import check_size, check_stop, labels_of, publish_logs

_PACKAGE_MAX_BYTES = 64 * 2**30
_AT_ONCE = 4  # repositories: source, debuginfo and logs, then those of three arches
Destinations = dict[RepositoryName, list[tuple[Artifact, str]]]


def run(work: Work[UploadInput], context: StepContext) -> StepResult[UploadResult]:
    """What a repository refuses is the package's failure, and no host's. Raises what else `publish` does."""
    backend = open_repositories(context.settings)
    try:
        form = farm_format_of(work.target.format)
        plan = destinations(work.target.name, work.input, form, project=work.project)
        check_room(backend, plan, context.settings)
        return publish(work, backend, context)
    except BadSource as error:
        raise Ended(Outcome.FAILED, f"refused by the repository: {error}") from error


def publish(work: Work[UploadInput], backend: RepositoryBackend, context: StepContext) -> StepResult[UploadResult]:
    """One `add` per repository: what is installed comes last, after its source, debuginfo and logs are there. Those
    that may come at the same time do, since a back end like Pulp is mostly waited for.

    Safe to repeat. Raises the back end's RepositoryTrouble and the store's NotFound and trouble; BadSource for an
    artifact that is not a package of this build.
    """
    form = farm_format_of(work.target.format)
    plan = destinations(work.target.name, work.input, form, project=work.project)
    with ExitStack() as files:
        # Not copied to be checked: back ends look at digests, so a file that is not what it should be is found there.
        with context.phase("download"):
            paths = _brought(plan, work, form, context, files)
        given = {name: _given(content, paths, work, form) for name, content in plan.items()}
        # All of it before any repository changes: a build is published as a whole or not at all.
        with context.phase("check"):
            for name, packages in given.items():
                check_stop(context, name)
                backend.prepare(name, packages, stop=context.stop)
        return _published(work, given, backend, context)


def _brought(
    plan: Destinations, work: Work[UploadInput], form: Format, context: StepContext, files: ExitStack
) -> dict[str, Path]:
    """The packages as files of this machine, by digest, for as long as `files` is open. Raises BadSource."""
    artifacts = dict.fromkeys(artifact for content in plan.values() for artifact, _ in content)
    digests = dict.fromkeys(artifact.sha256 for artifact in artifacts)
    paths = {sha256: files.enter_context(context.store.local(sha256, stop=context.stop)) for sha256 in digests}
    for artifact in artifacts:
        check_size(artifact, paths[artifact.sha256], _PACKAGE_MAX_BYTES)
        _check_header(artifact, paths[artifact.sha256], work, form)
    return paths


def _given(
    content: list[tuple[Artifact, str]], paths: dict[str, Path], work: Work[UploadInput], form: Format
) -> list[RepositoryPackage]:
    return [
        RepositoryPackage(
            path=paths[artifact.sha256],
            sha256=artifact.sha256,
            filename=filename,
            labels=_package_labels(work, artifact, form),
        )
        for artifact, filename in content
    ]


def _published(
    work: Work[UploadInput],
    given: dict[RepositoryName, list[RepositoryPackage]],
    backend: RepositoryBackend,
    context: StepContext,
) -> StepResult[UploadResult]:
    def add(name: RepositoryName) -> tuple[str, int, str]:
        check_stop(context, name)
        version = backend.add(name, given[name], keep=work.target.keep_versions, stop=context.stop)
        context.log.note(f"{name.path} version {version} has {', '.join(one.filename for one in given[name])}")
        return name.path, version, backend.url(name, version)

    for identity, build in work.input.replaces:
        context.log.note(f"{identity} replaces the package of build {build}")
    installable = [name for name in given if name.kind is RepositoryKind.BINARY]
    with context.phase("publish"), ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="publish") as pool:
        logs = pool.submit(publish_logs, work, work.input.logs, backend, context)
        versions = list(pool.map(add, (name for name in given if name not in installable)))
        logs.result()
        versions += pool.map(add, installable)
    return StepResult(outcome=Outcome.SUCCEEDED, phases=context.phases, output=UploadResult(versions=tuple(versions)))


def destinations(target: str, given: UploadInput, form: Format, *, project: str = DEFAULT_PROJECT) -> Destinations:
    """What goes where, with the file name it gets there: source first, then debug, then binary repositories.

    A package for all arches goes to the repositories of all the given ones.
    """
    own = partial(RepositoryName, project=project, target=target, format=form.name)
    source = _identity(given.srpm, form)
    if not source.is_source:
        raise BadSource(f"{source.text!a} is for {source.arch}, and is no source package")
    plan: Destinations = {
        own(kind=RepositoryKind.SOURCE): [(given.srpm, source.filename)],
    }
    packages = [(artifact, _package(artifact, given, form)) for artifact in given.rpms]
    for kind in (RepositoryKind.DEBUG, RepositoryKind.BINARY):
        for arch in given.arches:
            content = [
                (artifact, identity.filename)
                for artifact, identity in packages
                if identity.is_debug == (kind is RepositoryKind.DEBUG)
                and identity.arch in (form.independent, form.spell(arch))
            ]
            if content:
                plan[own(kind=kind, arch=arch)] = content
    return plan


def _package_labels(work: Work[UploadInput], artifact: Artifact, form: Format) -> dict[str, str]:
    """Of the attempt that made the package. The source package's are the same, whichever arch's upload brings it."""
    is_source = artifact is work.input.srpm
    attempt = work.input.srpm_by if is_source else work.input.built_by
    return labels_of(work, attempt=attempt, arch=_identity(artifact, form).arch, batch=work.input.batch)


def _package(artifact: Artifact, given: UploadInput, form: Format) -> Identity:
    identity = _identity(artifact, form)
    arches = (form.independent, *(form.spell(arch) for arch in given.arches))
    if identity.is_source or identity.arch not in arches:
        raise BadSource(f"{identity.text!a} is for {identity.arch}, and this upload takes {', '.join(arches)}")
    return identity


def _identity(artifact: Artifact, form: Format) -> Identity:
    try:
        return form.parse_identity(artifact.identity or "")
    except ValueError as error:
        raise BadSource(f"artifact {artifact.name!a} cannot be published: {error}") from error


def _check_header(artifact: Artifact, path: Path, work: Work[UploadInput], form: Format) -> None:
    """Names decide who may publish, and it is a builder that reported this one: the file has to say the same of itself.
    Raises BadSource."""
    identity = _identity(artifact, form)
    try:
        format_of(work.target).check_identity(path, identity)
    except BadPackage as error:
        raise BadSource(f"{identity.filename!a} {error}") from error
