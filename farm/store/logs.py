"""Which logs and records go up with an upload step: all that the attempts stored which led to it."""

from collections import defaultdict
from collections.abc import Collection

import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import StepKind
from farm.model.work import LogFile
from farm.store import schema
from farm.store.state import BuildState, StepState, label_of

_STEP = schema.step.c
_ATTEMPT = schema.attempt.c
_FOUND = schema.attempt_artifact.c
_STORED = (
    sa.select(
        *(_STEP.build_id, _STEP.kind, _STEP.arch, _ATTEMPT.number),
        *(_FOUND.name, _FOUND.kind, _FOUND.sha256, schema.artifact.c.size_bytes),
    )
    .select_from(
        schema.step.join(schema.attempt, _ATTEMPT.step_id == _STEP.id)
        .join(schema.attempt_artifact, _FOUND.attempt_id == _ATTEMPT.id)
        .join(schema.artifact, _FOUND.sha256 == schema.artifact.c.sha256)
    )
    .where(
        _STEP.build_id.in_(sa.bindparam("ids", expanding=True)),
        _STEP.kind.in_([StepKind.FETCH.value, StepKind.SRPM.value, StepKind.BUILD.value]),
        _FOUND.kind.in_([ArtifactKind.LOG.value, ArtifactKind.RECORD.value]),
    )
    .order_by(_STEP.id, _ATTEMPT.number, _FOUND.position)
)


def logs_for(
    connection: sa.Connection, uploads: Collection[tuple[BuildState, StepState]]
) -> dict[str, tuple[LogFile, ...]]:
    """By the upload's label: of its build's `fetch` and `srpm`, and of the `build` step of its own arch, all tries."""
    if not uploads:
        return {}
    stored: dict[tuple[int, str], list[LogFile]] = defaultdict(list)
    for build_id, kind, arch, number, name, sort, sha256, size_bytes in connection.execute(
        _STORED, {"ids": sorted({build.id for build, _ in uploads})}
    ):
        label = label_of(build_id, StepKind(kind), Arch(arch) if arch else None, number)
        artifact = Artifact(name=name, kind=ArtifactKind(sort), sha256=sha256, size_bytes=size_bytes)
        stored[build_id, arch].append(LogFile(attempt=label, artifact=artifact))
    return {
        step.label: (*stored[build.id, ""], *(stored[build.id, step.arch.value] if step.arch else ()))
        for build, step in uploads
    }
