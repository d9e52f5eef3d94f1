"""Logs of attempts: the logs that a step publishes, and logs that the scheduler keeps for attempts that stored none."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from farm.model.artifact import Artifact, ArtifactKind
from farm.model.label import AttemptLabel
from farm.model.outcome import Status
from farm.model.work import LogFile
from farm.state.changes import BuildState, StepState
from farm.store import schema, state_rows
from farm.store.database import Database

#: So many logs and records of each step are published, the newest ones. A step has three or four for each attempt,
#: and a worker may report any number.
LOGS_OF_A_STEP = 100
_STEP = schema.step.c
_ATTEMPT = schema.attempt.c
_FOUND = schema.attempt_artifact.c
_STORED = (
    sa.select(
        *(_STEP.job_id, _STEP.kind, _STEP.arch, _ATTEMPT.number),
        *(_FOUND.name, _FOUND.kind, _FOUND.sha256, schema.ARTIFACT_SIZE),
    )
    .select_from(
        schema.step.join(schema.attempt, _ATTEMPT.step_id == _STEP.id)
        .join(schema.attempt_artifact, _FOUND.attempt_id == _ATTEMPT.id)
        .join(schema.artifact, _FOUND.sha256 == schema.artifact.c.sha256)
    )
    .where(
        _STEP.job_id.in_(sa.bindparam("ids", expanding=True)),
        _FOUND.kind.in_([ArtifactKind.LOG.value, ArtifactKind.RECORD.value]),
    )
    .order_by(_STEP.id, _ATTEMPT.number, _FOUND.position)
)


# Attempts that are over and stored nothing.
_SILENT = (
    sa.select(*(_ATTEMPT.id, _STEP.job_id, _STEP.kind, _STEP.arch, _ATTEMPT.number))
    .select_from(schema.attempt.join(schema.step, _ATTEMPT.step_id == _STEP.id))
    .where(
        _ATTEMPT.status == Status.FINISHED.value,
        ~sa.exists().where(_FOUND.attempt_id == _ATTEMPT.id),
    )
)


class LogStore(Database):
    """The part of the store for logs that no worker reported."""

    def silent(self, *, most: int) -> tuple[str, ...]:
        """Labels of attempts that ended without storing anything, of the newest `most` attempts."""
        with self.reading() as connection:
            newest = sa.select(_ATTEMPT.id).order_by(_ATTEMPT.id.desc()).limit(most)
            found = connection.execute(_SILENT.where(_ATTEMPT.id.in_(newest)))
            return tuple(_label(row) for row in found)

    def is_silent(self, label: str) -> bool:
        """Whether this is an attempt that ended without storing anything."""
        attempt = AttemptLabel.parse_or_none(label)
        if attempt is None:
            return False
        with self.reading() as connection:
            found = connection.execute(_SILENT.where(_STEP.job_id == attempt.job_id))
            return any(_label(row) == label for row in found)

    def keep_log(self, label: str, artifact: Artifact) -> bool:
        """Record the log of an attempt that ended without storing anything. False for any other attempt."""
        attempt = AttemptLabel.parse_or_none(label)
        if attempt is None:
            return False
        with self.writing() as connection:
            found = connection.execute(_SILENT.where(_STEP.job_id == attempt.job_id))
            ids = [row.id for row in found if _label(row) == label]
            if ids:
                state_rows.insert_artifacts(connection, [(ids[0], (artifact,))])
            return bool(ids)


def _label(row: Any) -> str:
    return str(AttemptLabel.of_row(row.job_id, row.kind, row.arch, row.number))


def logs_for(
    connection: sa.Connection, publishing: Collection[tuple[BuildState, StepState]]
) -> dict[str, tuple[LogFile, ...]]:
    """The logs of all attempts that led to each publishing step, by that step's label."""
    if not publishing:
        return {}
    stored: dict[tuple[int, str, str], list[LogFile]] = defaultdict(list)
    for job_id, kind, arch, number, name, sort, sha256, size_bytes in connection.execute(
        _STORED, {"ids": sorted({build.id for build, _ in publishing})}
    ):
        label = str(AttemptLabel.of_row(job_id, kind, arch, number))
        artifact = Artifact(name=name, kind=ArtifactKind(sort), sha256=sha256, size_bytes=size_bytes)
        stored[job_id, kind, arch].append(LogFile(attempt=label, artifact=artifact))
    return {
        step.label: tuple(
            log
            for other in reversed(build.ancestors(step))
            for log in stored[build.id, other.kind, other.arch.value if other.arch else ""][-LOGS_OF_A_STEP:]
        )
        for build, step in publishing
    }
