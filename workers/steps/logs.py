"""The logs step: publishes the logs and records of a build that did not succeed. The upload step publishes the logs of
a successful build in the same way.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from farm.errors import BadSource, LeaseLost, NotFound
from farm.model.artifact import Artifact
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome
from farm.model.work import LogFile, StepResult, Work
from farm.repositories import (
    RepositoryBackend,
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    open_repositories,
)
from farm.repositories.checks import is_file_name
from farm.steps.logs import LogsInput, LogsResult
from workers.core.context import Ended, StepContext
from workers.core.text import shown

#: Of one log or record.
LOG_MAX_BYTES = 2 * 2**30


def run(work: Work[LogsInput], context: StepContext) -> StepResult[LogsResult]:
    """Raises the back end's RepositoryTrouble and the store's trouble."""
    try:
        with context.phase("publish"):
            url = publish_logs(work, work.input.logs, open_repositories(context.settings), context)
    except BadSource as error:
        raise Ended(Outcome.FAILED, f"refused by the repository: {error}") from error
    return StepResult(outcome=Outcome.SUCCEEDED, phases=context.phases, output=LogsResult(url=url))


def publish_logs(work: Work[Any], logs: Sequence[LogFile], backend: RepositoryBackend, context: StepContext) -> str:
    """Returns the URL of the folder of the build; empty if there is nothing to publish. If an attempt has two files of
    one name, the later one counts."""
    if not logs:
        return ""
    name = RepositoryName(project=work.project, target=work.target.name, kind=RepositoryKind.LOGS)
    check_stop(context, name)
    with ExitStack() as stack:
        brought = (_log_file(work, log, context, stack) for log in logs)
        files = {file.name: file for file in brought if file is not None}
        url = backend.add_files(name, list(files.values()), stop=context.stop)
    context.log.note(f"{len(files)} logs and records are below {url}{work.build_id}/")
    return f"{url}{work.build_id}/"


def _log_file(work: Work[Any], log: LogFile, context: StepContext, stack: ExitStack) -> RepositoryFile | None:
    """The file to publish. None for a name that no log of the farm has, and for content that is not kept: a worker that
    reports such a log must not block the publication of packages."""
    sha256 = log.artifact.sha256
    attempt = AttemptLabel.parse_or_none(log.attempt)
    name = f"{work.build_id}/{attempt.attempt_name if attempt else log.attempt}/{log.artifact.name}"
    if attempt is None or not is_file_name(name):
        context.log.note(f"left out {shown(name)!r}, which is not the name of a log")
        return None
    try:
        path = stack.enter_context(context.store.local(sha256, stop=context.stop))
        check_size(log.artifact, path, LOG_MAX_BYTES)
    except (NotFound, BadSource) as error:
        context.log.note(f"left out {name}: {error}")
        return None
    batch = getattr(work.input, "batch", 0)
    labels = labels_of(work, attempt=log.attempt, arch=attempt.arch.value if attempt.arch else "", batch=batch)
    return RepositoryFile(path=path, sha256=sha256, name=name, labels=labels)


def check_size(artifact: Artifact, path: Path, most_bytes: int) -> None:
    """Raises BadSource for a file of another size than was reported, or a larger one: it would be read to its end."""
    size_bytes = path.stat().st_size
    if size_bytes != artifact.size_bytes:
        raise BadSource(f"{artifact.name!a} was reported with {artifact.size_bytes} bytes, and has {size_bytes}")
    if size_bytes > most_bytes:
        raise BadSource(f"{artifact.name!a} has {size_bytes} bytes, and at most {most_bytes} are published")


def labels_of(work: Work[Any], *, attempt: str, arch: str, batch: int) -> dict[str, str]:
    """The labels of a published file, by which a back end finds the files of a build or an attempt."""
    labels = {"build": str(work.build_id), "arch": arch, "attempt": attempt, "batch": str(batch)}
    return {key: value for key, value in labels.items() if value}


def check_stop(context: StepContext, name: RepositoryName) -> None:
    if context.stop.is_set():
        raise LeaseLost(f"attempt {context.attempt} was stopped before {name.path} was published")
