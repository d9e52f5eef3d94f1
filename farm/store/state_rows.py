"""Builds as state: loads them from rows, and writes a transaction's changes back."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome, Status
from farm.state.changes import BuildState, Changes, LiveAttempt, StepState, Thing
from farm.state.graph import How, Need, Planned
from farm.steps.registry import find_step_type
from farm.store import bulk, columns, schema
from farm.store.query import Query
from farm.wire import digest_of

_BUILD = schema.build.c
_STEP = schema.step.c
_ATTEMPT = schema.attempt.c
_LOAD = Query(
    sa.select(
        *(
            _BUILD.id,
            _BUILD.batch_id,
            _BUILD.package,
            _BUILD.nevra,
            _BUILD.source_commit,
            _BUILD.source,
            _BUILD.target,
            _BUILD.format,
            _BUILD.arches,
        ),
        *(_BUILD.options, _BUILD.priority, _BUILD.owner, _BUILD.status, _BUILD.outcome, _BUILD.reason),
        *(_BUILD.finished_at, _BUILD.target_sha256, _BUILD.project),
        *(_STEP.id, _STEP.job_id, _STEP.kind, _STEP.arch, _STEP.queue, _STEP.status, _STEP.outcome, _STEP.reason),
        *(_STEP.is_skipped, _STEP.not_before_at, _STEP.attempts, _STEP.troubles, _STEP.trouble, _STEP.trouble_hosts),
        *(_STEP.deaths, _STEP.hand_backs, _STEP.covers, _STEP.output),
        *(
            _ATTEMPT.id,
            _ATTEMPT.number,
            _ATTEMPT.token,
            _ATTEMPT.holder,
            _ATTEMPT.status,
            _ATTEMPT.wall_s,
            _ATTEMPT.dispatched_at,
        ),
        *(_ATTEMPT.offered_at, _ATTEMPT.worker, _ATTEMPT.started_at),
    )
    .select_from(
        schema.build.join(schema.step, _STEP.job_id == _BUILD.id).outerjoin(
            schema.attempt, sa.and_(_ATTEMPT.step_id == _STEP.id, sa.text(schema.IS_LIVE))
        )
    )
    .where(_BUILD.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_STEP.id),
    of_list="ids",
)
_EDGE = schema.step_need.c
_NEEDS = Query(
    sa.select(
        *(_EDGE.job_id, _EDGE.kind, _EDGE.arch, _EDGE.needs_kind, _EDGE.needs_arch, _EDGE.how),
    ).where(_EDGE.job_id.in_(sa.bindparam("ids", expanding=True)), _EDGE.needs_job_id == _EDGE.job_id),
    of_list="ids",
)
# Locked in a statement of its own: a joined statement may read rows before it waits for a lock, and they become stale.
_LOCK = (
    sa.select(_BUILD.id).where(_BUILD.id.in_(sa.bindparam("ids", expanding=True))).order_by(_BUILD.id).with_for_update()
)
_BUILD_END, _STEP_END = 18, 36


def load(connection: sa.Connection, ids: Collection[int]) -> dict[int, BuildState]:
    """The builds with their steps and live attempts, locked until the transaction ends. Unknown ids are left out."""
    builds: dict[int, BuildState] = {}
    if not ids:
        return builds
    if connection.dialect.name != "sqlite":
        connection.execute(_LOCK, {"ids": list(ids)})
    for row in _LOAD.rows(connection, {"ids": ids}):
        build = builds.get(row[0])
        if build is None:
            build = builds[row[0]] = _build_state(row)
        build.steps.append(_step_state(row))
    for job_id, kind, arch, needs_kind, needs_arch, how in _NEEDS.rows(connection, {"ids": ids}):
        found = builds.get(job_id)
        step = found.find(kind, _arch(arch)) if found is not None else None
        if step is not None:
            step.needs = (*step.needs, Need(kind=needs_kind, arch=_arch(needs_arch), how=How(how)))
    return builds


def _arch(text: str) -> Arch | None:
    return Arch(text) if text else None


def _build_state(row: Any) -> BuildState:
    (id_, batch_id, package, nevra, commit, source, target, form) = row[:8]
    (arches, options, priority, owner) = row[8:12]
    status, outcome, reason, done, target_sha256, project = row[12:_BUILD_END]
    return BuildState(
        id=id_,
        batch_id=batch_id,
        package=package,
        nevra=nevra,
        source_commit=commit,
        source=columns.decode_source(source),
        target=target,
        format=form,
        arches=columns.decode_arches(arches),
        options=columns.decode_options(options),
        priority=priority,
        owner=owner,
        status=Status(status),
        outcome=columns.decode_outcome(outcome),
        reason=reason,
        finished_at=done,
        target_sha256=target_sha256,
        project=project,
    )


def _step_state(row: Any) -> StepState:
    (id_, job_id, kind, arch, queue, status, outcome, reason, skipped, later, attempts, troubles, trouble, hosts) = row[
        _BUILD_END : _STEP_END - 4
    ]
    deaths, hand_backs, covers, output = row[_STEP_END - 4 : _STEP_END]
    step_type = find_step_type(kind)  # none for a step of an extension that is not there any more
    return StepState(
        id=id_,
        job_id=job_id,
        kind=kind,
        arch=Arch(arch) if arch else None,
        queue=queue,
        status=Status(status),
        counts=step_type is None or step_type.counts,
        outcome=columns.decode_outcome(outcome),
        reason=reason,
        is_skipped=skipped,
        not_before_at=later,
        attempts=attempts,
        troubles=troubles,
        deaths=deaths,
        hand_backs=hand_backs,
        trouble=trouble,
        trouble_hosts=columns.decode_names(hosts) if hosts else (),
        covers=columns.decode_arches(covers) if covers else (),
        output=output,
        live=_live_attempt(row[_STEP_END:]),
    )


def _live_attempt(row: Any) -> LiveAttempt | None:
    id_, number, token, holder, status, wall_s, dispatched_at, offered_at, worker, started_at = row
    if id_ is None:
        return None
    return LiveAttempt(
        id=id_,
        number=number,
        # An attempt that a scheduler of an older version sent still counts.
        holder=holder or (digest_of(token) if token else None),
        status=Status(status),
        wall_s=wall_s,
        dispatched_at=dispatched_at,
        offered_at=offered_at,
        worker=worker,
        started_at=started_at,
    )


# --- writing ----------------------------------------------------------------------------------------------------

_JSON_FIELDS = frozenset({"trouble_hosts", "covers", "phases"})


def flush(connection: sa.Connection, changes: Changes) -> None:
    """Write the changes, in one statement for each kind of change."""
    shapes: dict[tuple[sa.Table, tuple[str, ...]], list[dict[str, Any]]] = defaultdict(list)
    for thing, values in changes.dirty.values():
        if thing.id is not None and values:
            shapes[_table(thing), tuple(sorted(values))].append(_parameters(thing.id, values))
    for (table, names), parameters in shapes.items():
        bulk.update(connection, table, names, parameters)
    bulk.delete(connection, schema.attempt, changes.dropped_attempts)
    if changes.new_steps:
        insert_steps(connection, [(step, changes.builds[step.job_id]) for step in changes.new_steps])
    if changes.new_needs:
        insert_needs(connection, changes.new_needs)
    if changes.new_attempts:
        bulk.insert(connection, schema.attempt, [_attempt_row(*pair) for pair in changes.new_attempts])
    if changes.artifacts:
        insert_artifacts(connection, changes.artifacts)


def insert_steps(connection: sa.Connection, steps: Iterable[tuple[StepState, BuildState]]) -> None:
    bulk.insert(
        connection,
        schema.step,
        [
            new_step_row(step.job_id, step, step.status, priority=build.priority, owner=build.owner)
            | {
                "outcome": step.outcome.value if step.outcome else None,
                "reason": step.reason,
                "is_skipped": step.is_skipped,
                "covers": columns.to_text(step.covers) if step.covers else None,
            }
            for step, build in steps
        ],
    )


def insert_needs(connection: sa.Connection, needs: Iterable[tuple[StepState, Need]]) -> None:
    """Write edges from a step to another one of its job."""
    bulk.insert(connection, schema.step_need, [need_row(step.job_id, step, need) for step, need in needs])


def new_step_row(
    job_id: int, step: StepState | Planned, status: Status, *, priority: int, owner: str
) -> dict[str, Any]:
    """The row of a step that has had no attempt."""
    return {
        "job_id": job_id,
        "kind": step.kind,
        "arch": step.arch.value if step.arch else "",
        "queue": step.queue,
        "urgency": -priority,
        "owner": owner,
        "status": status.value,
        "is_skipped": False,
        "attempts": 0,
        "troubles": 0,
    }


def need_row(job_id: int, step: StepState | Planned, need: Need) -> dict[str, Any]:
    """The row of an edge from a step to another one of its job."""
    return {
        "job_id": job_id,
        "kind": step.kind,
        "arch": step.arch.value if step.arch else "",
        "needs_job_id": job_id,
        "needs_kind": need.kind,
        "needs_arch": need.arch.value if need.arch else "",
        "how": need.how.value,
    }


def _table(thing: Thing) -> sa.Table:
    match thing:
        case BuildState():
            return schema.build
        case StepState():
            return schema.step
        case LiveAttempt():
            return schema.attempt


def _parameters(row_id: int, values: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {"id": row_id}
    for name, value in values.items():
        if isinstance(value, (Status, Outcome)):
            value = value.value  # noqa: PLW2901 - a driver should be given plain text
        elif name in _JSON_FIELDS:
            value = columns.to_text(value) if value else None  # noqa: PLW2901
        parameters[name] = value
    return parameters


def _attempt_row(step: StepState, attempt: LiveAttempt) -> dict[str, Any]:
    return {
        "step_id": step.id,
        "number": attempt.number,
        "token": "",
        "status": attempt.status.value,
        "wall_s": attempt.wall_s,
        "dispatched_at": attempt.dispatched_at,
        "offered_at": attempt.offered_at,
    }


def insert_artifacts(connection: sa.Connection, stored: list[tuple[int, tuple[Artifact, ...]]]) -> None:
    files = sorted({(item.sha256, item.size_bytes) for _, items in stored for item in items})
    if not files:
        return
    # Both databases spell it alike; SQLAlchemy offers it only per dialect.
    connection.execute(
        sa.text("INSERT INTO artifact (sha256, size_bytes) VALUES (:sha256, :size_bytes) ON CONFLICT DO NOTHING"),
        [{"sha256": sha256, "size_bytes": size} for sha256, size in files],
    )
    bulk.insert(
        connection,
        schema.attempt_artifact,
        [
            {
                "attempt_id": attempt_id,
                "position": position,
                "name": item.name,
                "kind": item.kind.value,
                "sha256": item.sha256,
                "nevra": item.identity,
                "size_bytes": item.size_bytes,
            }
            for attempt_id, items in stored
            for position, item in enumerate(items)
        ],
    )
