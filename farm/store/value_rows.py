"""Makes the values that clients are given from rows. Writes nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Attempt, Build, Replacement, Step
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome, Status
from farm.store import columns, schema

_ID_CHARS = 12


def build_value(
    row: Any,
    steps: Iterable[Step],
    warnings: tuple[str, ...] = (),
    *,
    replaces: tuple[Replacement, ...] = (),
    replaced: tuple[Replacement, ...] = (),
) -> Build:
    """From a row of `build`."""
    return Build(
        id=row.id,
        batch_id=row.batch_id,
        package=row.package,
        nevra=row.nevra,
        commit=row.source_commit,
        source=columns.decode_source(row.source),
        target=row.target,
        target_sha256=row.target_sha256,
        arches=columns.decode_arches(row.arches),
        options=columns.decode_options(row.options),
        priority=row.priority,
        owner=row.owner,
        status=Status(row.status),
        outcome=columns.decode_outcome(row.outcome),
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        steps=tuple(steps),
        warnings=warnings,
        replaces=replaces,
        replaced=replaced,
        project=row.project,
    )


def attempt_value(step: Any, row: Any, artifacts: tuple[Artifact, ...]) -> Attempt:
    """From a row of `attempt` and the row of its step."""
    return Attempt(
        label=str(AttemptLabel.of_row(step.job_id, step.kind, step.arch, row.number)),
        number=row.number,
        status=Status(row.status),
        outcome=columns.decode_outcome(row.outcome),
        reason=row.reason,
        excerpt=row.excerpt,
        worker=row.worker,
        dispatched_at=row.dispatched_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        phases=columns.decode_phases(row.phases) if row.phases else (),
        peak_memory_bytes=row.peak_memory_bytes,
        artifacts=artifacts,
    )


def artifacts_of(connection: sa.Connection, attempt_ids: list[int]) -> Iterator[tuple[int, Artifact]]:
    """(attempt, artifact) in the order in which each attempt named them."""
    found = schema.attempt_artifact.c
    query = (
        sa.select(found.attempt_id, found.name, found.kind, found.sha256, schema.ARTIFACT_SIZE, found.nevra)
        .select_from(schema.attempt_artifact.join(schema.artifact, found.sha256 == schema.artifact.c.sha256))
        .where(found.attempt_id.in_(attempt_ids))
        .order_by(found.attempt_id, found.position)
    )
    for attempt_id, name, kind, sha256, size, identity in connection.execute(query):
        yield (
            attempt_id,
            Artifact(name=name, kind=ArtifactKind(kind), sha256=sha256, size_bytes=size, identity=identity),
        )


def warnings_of(connection: sa.Connection, row: Any) -> tuple[str, ...]:
    """The warnings about a row of `build`: its name, version and release were built before from another commit."""
    if row.nevra is None or row.source_commit is None:
        return ()
    column = schema.build.c
    query = (
        sa.select(column.id, column.source_commit)
        .where(column.target == row.target, column.nevra == row.nevra, column.id < row.id)
        .where(column.project == row.project)
        .where(column.source_commit != row.source_commit, column.outcome == Outcome.SUCCEEDED.value)
        .order_by(column.id.desc())
        .limit(1)
    )
    before = connection.execute(query).one_or_none()
    if before is None:
        return ()
    commit = before.source_commit[:_ID_CHARS]
    what = f"{row.nevra} was built before, by build {before.id} from commit {commit}"
    return (f"{what}; give each commit a release of its own, by hand or with %autorelease",)
