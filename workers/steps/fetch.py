"""The fetch step: makes a tar of recipe and sources from a git ref, or checks a source package.

The only step with network. Owns the order of actions; workers.sources fetches, and the package format asks the recipe
for its sources in a root without network. Outside of that root nothing runs or unpacks the files that it fetches.
"""

import re
from pathlib import Path

from farm.errors import NotFound
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.work import StepResult, Work
from farm.steps.fetch import FetchInput, FetchResult
from workers.core.context import Ended, StepContext, over_disk
from workers.core.text import shown
from workers.formats.base import BadPackage, CheckedSource, GatherRequest, WorkerFormat
from workers.formats.registry import format_of
from workers.sources import giturl, tarball
from workers.sources.egress import EgressPolicy
from workers.sources.gateway import Gateway
from workers.sources.git import Mirror
from workers.sources.tree import Tree
from workers.sources.wanted import Missing, Wanted, hide, is_fetchable

_STEM_CHARS = 200  # the part of the recipe's name in the archive's name, which must not be too long for a file
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_+~^-]+")


def run(work: Work[FetchInput], context: StepContext) -> StepResult[FetchResult]:
    """Fetch the source and store it.

    Raises Ended for a fault of the package or the asker, NetworkTrouble and other trouble for a failure that may not
    happen on another host or at another time, and LeaseLost when `context.stop` is set.
    """
    output = _fetch(work, work.input.source, context)
    return StepResult(outcome=Outcome.SUCCEEDED, artifacts=(output.archive,), output=output)


def _fetch(work: Work[FetchInput], source: Source, context: StepContext) -> FetchResult:
    match source.kind:
        case SourceKind.GIT:
            return _from_git(work, source, context)
        case SourceKind.SRPM:
            form = format_of(work.target)
            if source.sha256:
                return _from_store(source, form, context)
            return _from_url(source, form, context, _egress(work, context))


def _from_git(work: Work[FetchInput], source: Source, context: StepContext) -> FetchResult:
    with Gateway(_egress(work, context), context.workdir) as out:
        return _through(out, work, source, context)


def _egress(work: Work[FetchInput], context: StepContext) -> EgressPolicy:
    return EgressPolicy.of((*context.settings.networks, *work.target.allow_networks))


def _through(out: Gateway, work: Work[FetchInput], source: Source, context: StepContext) -> FetchResult:
    if not out.is_sealed:
        context.log.note("this worker may not make a network namespace: only git's own settings point to the gateway")
    mirror = Mirror(giturl.parse(source.url or "").read_by(source.reader_uid), context, out)
    with context.phase("git"):
        commit = mirror.commit(source.ref)
        context.log.note(f"{source.ref or 'HEAD'} of {mirror.url.shown} is commit {commit.id}")
        tree = Tree(mirror, commit, context)
    with context.phase("sources"):
        asked = work.input.arch or work.target.arches[0]
        arches = tuple(dict.fromkeys((asked, *work.input.arches)))
        request = GatherRequest(source=source, target=work.target, options=work.options, arches=arches)
        gathered = format_of(work.target).gather(tree, request, context)
    with context.phase("pack"):
        path = context.workdir / "source.tar"
        tarball.write(path, gathered.members, at=commit.at, context=context)
        stem = _NOT_PLAIN.sub("_", gathered.stem).strip("_") or "source"
        name = f"{stem[:_STEM_CHARS]}-{commit.id[:12]}.tar"
        archive = context.store.put(path, name=name, kind=ArtifactKind.SOURCE, move=True, stop=context.stop)
        context.log.note(f"stored {name}: {len(gathered.members)} files, {archive.size_bytes} bytes")
    return FetchResult(archive=archive, spec=gathered.recipe, commit=commit.id, commit_at=commit.at)


def _from_store(source: Source, form: WorkerFormat, context: StepContext) -> FetchResult:
    """Check the artifact that the client stored. It is the result, and is not copied."""
    sha256 = source.sha256 or ""
    name = shown(source.filename or f"the {form.source_word}")
    try:
        with context.store.local(sha256, stop=context.stop) as path:
            identity = _checked(path, name, form, context).identity
            size_bytes = path.stat().st_size
    except NotFound as error:
        raise Ended(Outcome.FAILED, f"{name} is not in the artifact store ({shown(sha256)}); send it again") from error
    archive = Artifact(
        name=identity.filename,
        kind=ArtifactKind.SRPM,
        sha256=sha256,
        size_bytes=size_bytes,
        identity=str(identity),
    )
    return FetchResult(archive=archive)


def _from_url(source: Source, form: WorkerFormat, context: StepContext, egress: EgressPolicy) -> FetchResult:
    url, word = source.url or "", form.source_word
    if not is_fetchable(url):
        raise Ended(Outcome.FAILED, f"{hide(url)!r} is not an http or https URL; a {word} comes from one")
    name = hide(url).rpartition("/")[2] or f"the {word}"
    from workers.sources import download

    with context.phase("download"):
        found = download.fetch([Wanted(name=name, urls=(url,))], context, egress)[name]
    if isinstance(found, Missing):
        raise Ended(Outcome.FAILED, found.reason)
    identity = _checked(found, hide(url), form, context).identity
    archive = context.store.put(
        found,
        name=identity.filename,
        kind=ArtifactKind.SRPM,
        identity=str(identity),
        move=True,
        stop=context.stop,
    )
    return FetchResult(archive=archive)


def _checked(path: Path, name: str, form: WorkerFormat, context: StepContext) -> CheckedSource:
    if path.stat().st_size > context.limits.disk_bytes:
        limit = context.limits.disk_bytes
        raise over_disk(f"{name} is larger than the step's disk limit of {limit} bytes")
    try:
        package = form.check_source(path, stop=context.stop)
    except BadPackage as error:
        raise Ended(Outcome.FAILED, f"{name} {error}") from error
    verified = ", ".join(package.verified) or "nothing: it carries no digests"
    context.log.note(f"{name} is {package.identity}; verified: {verified}")
    return package
