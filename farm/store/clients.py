"""The operations of clients on builds: enqueue, look, cancel, retry. Each is one transaction, without Redis."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa

from farm.errors import NotFound, WrongState
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Attempt, Batch, Build, BuildRequest, Step
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, without_credentials
from farm.state import machine
from farm.state.changes import BuildState, Changes
from farm.state.retrying import choose
from farm.state.text import clean
from farm.steps.registry import build_workflow, find_step_type
from farm.store import columns, project_schema, schema, state_rows, value_rows, waiting
from farm.store.database import Database
from farm.store.in_flight import release
from farm.store.owners import cancelled_claims, claim
from farm.store.published import replacements

_log = logging.getLogger(__name__)
_INSERT_JOBS = schema.job.insert().returning(schema.job.c.id, sort_by_parameter_order=True)
_CHUNK = 5000  # builds per statement
_STEP = schema.step.c
# Without a step's output, which is most of its row and is shown to no client.
_SHOWN_STEPS = sa.select(
    *(_STEP.id, _STEP.job_id, _STEP.kind, _STEP.arch, _STEP.queue, _STEP.urgency, _STEP.status, _STEP.outcome),
    *(_STEP.reason, _STEP.is_skipped, _STEP.not_before_at, _STEP.trouble),
).order_by(_STEP.id)


class BuildFilter(TypedDict, total=False):
    """The builds of a list: with this status, outcome, target, project and package, and older than the build
    `before`; None for each that does not matter."""

    status: Status | None
    outcome: Outcome | None
    target: str | None
    project: str | None
    package: str | None
    before: int | None


class ClientStore(Database):
    """The half of the store that clients call."""

    def add_batch(
        self, requests: Sequence[BuildRequest], *, owner: str, targets: Mapping[str, str] = MappingProxyType({})
    ) -> Batch:
        """Write a batch, with the first steps of its builds. Wake the scheduler afterwards.

        Each request names its arches. Credentials in a source's URL are kept apart from the build. `targets` has the
        digest of each target's record by the target's name; builds for a target without one take its file as it is
        when they run.
        """
        now = datetime.now(UTC)
        with self.writing() as connection:
            insert = schema.batch.insert().returning(schema.batch.c.id)
            batch_id = connection.execute(insert, {"owner": owner, "created_at": now}).scalar_one()
            for start in range(0, len(requests), _CHUNK):
                chunk = requests[start : start + _CHUNK]
                _add(connection, chunk, targets, batch_id=batch_id, owner=owner, now=now)
            return _batch(connection, batch_id)

    def batch(self, batch_id: int) -> Batch:
        """Raises NotFound."""
        with self.reading() as connection:
            return _batch(connection, batch_id)

    def project_of(self, build_id: int) -> str:
        """Raises NotFound."""
        with self.reading() as connection:
            query = sa.select(schema.build.c.project).where(schema.build.c.id == build_id)
            found: str | None = connection.scalar(query)
        if found is None:
            raise no_build(build_id)
        return found

    def build(self, build_id: int) -> Build:
        """A build with its steps, their attempts and the artifacts that those stored. Raises NotFound."""
        with self.reading() as connection:
            row = connection.execute(sa.select(schema.build).where(schema.build.c.id == build_id)).one_or_none()
            if row is None:
                raise no_build(build_id)
            return _values(connection, [row], is_whole=True)[0]

    def builds(
        self, *, limit: int = 50, hidden: Collection[str] = (), **chosen: Unpack[BuildFilter]
    ) -> tuple[Build, ...]:
        """The newest builds first, with their steps but without attempts; those before a build, if it is given. Builds
        of `hidden` projects are left out."""
        if chosen.get("outcome") is not None and chosen.get("status") not in (None, Status.FINISHED):
            return ()  # an unfinished build has no outcome
        with self.reading() as connection:
            if hidden:
                return _values(connection, _of_seen(connection, chosen, hidden, limit))
            return _values(connection, connection.execute(_chosen(chosen, limit)).all())

    def changed_since(self, since: datetime, *, limit: int) -> list[int]:
        """The builds that run, or were enqueued or ended after that time, by number; no more than `limit`."""
        column = schema.build.c
        with self.reading() as connection:
            ended = sa.select(column.id).where(column.finished_at > since).limit(limit)
            running = sa.select(column.id).where(column.status == Status.RUNNING.value).limit(limit)
            newest = sa.select(column.id, column.created_at).order_by(column.id.desc()).limit(limit)
            found = {*connection.scalars(ended), *connection.scalars(running)}
            found |= {row.id for row in connection.execute(newest) if row.created_at > since}
        return sorted(found)[:limit]

    def builds_numbered(self, build_ids: Sequence[int]) -> tuple[Build, ...]:
        """These builds in this order, with their steps but without attempts; unknown numbers are left out."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(schema.build).where(schema.build.c.id.in_(build_ids))).all()
            found = {build.id: build for build in _values(connection, rows)}
        return tuple(found[one] for one in build_ids if one in found)

    def queue_counts(self) -> dict[str, tuple[int, int]]:
        """By queue with work in it: how many steps are ready, and how many its workers have."""
        with self.reading() as connection:
            return waiting.counts(connection)

    def cancel(self, build_id: int, *, by: str) -> tuple[str, ...]:
        """End every step that is not over. Returns the labels of attempts whose leases the caller has to close.

        Raises NotFound, and WrongState when the build is over.
        """
        with self.writing() as connection:
            build = _one(connection, build_id)
            if build.status is Status.FINISHED:
                raise WrongState(f"build {build_id} is over already: {build.outcome}")
            changes = Changes(now=datetime.now(UTC), builds={build_id: build})
            # The worker of an upload is told of the cancel later, and may publish until then.
            changes.claims += cancelled_claims(build)
            machine.cancel(changes, build, by=by)
            state_rows.flush(connection, changes)
            claim(connection, changes.claims, changes.now)
            release(connection, changes)
            _note_closing(connection, changes.closes)
        return tuple(changes.closes)

    def retry(self, build_id: int, *, step: str | None = None, arch: Arch | None = None, by: str) -> tuple[Step, ...]:
        """Run steps again with the recorded inputs, and the steps after them; returns the steps that are ready now.

        By default these are the steps that did not succeed. A step named by the caller may have succeeded. Raises
        NotFound, and WrongState when a step still runs or there is none to run again. Wake the scheduler afterwards.
        """
        with self.writing() as connection:
            build = _one(connection, build_id)
            chosen = choose(build, kind=step, arch=arch)
            changes = Changes(now=datetime.now(UTC), builds={build_id: build})
            machine.run_again(changes, build, chosen)
            state_rows.flush(connection, changes)
        names = [one.name for one in chosen]
        _log.info("%s runs %s of build %d again", by, names, build_id, extra={"action": "retry", "build": build_id})
        return tuple(Step(kind=one.kind, arch=one.arch, status=one.status) for one in chosen)


# --- writing a batch --------------------------------------------------------------------------------------------


def _add(
    connection: sa.Connection,
    requests: Sequence[BuildRequest],
    targets: Mapping[str, str],
    *,
    batch_id: int,
    owner: str,
    now: datetime,
) -> None:
    """Insert builds, their secrets and their first steps."""
    shown = [_without_secret(request.source) for request in requests]
    parameters = [
        _build_row(request, source, targets) | {"batch_id": batch_id, "owner": owner, "created_at": now}
        for request, source in zip(requests, shown, strict=True)
    ]
    ids = connection.scalars(_INSERT_JOBS, [{"kind": "build"}] * len(parameters)).all()
    connection.execute(
        schema.build.insert(), [{"id": id_} | values for id_, values in zip(ids, parameters, strict=True)]
    )
    secrets = [
        {"build_id": build_id, "url": request.source.url}
        for build_id, request, source in zip(ids, requests, shown, strict=True)
        if request.source.url != source.url
    ]
    if secrets:
        connection.execute(schema.source_secret.insert(), secrets)
    _add_first_steps(connection, list(zip(ids, requests, strict=True)), owner=owner)


def _add_first_steps(connection: sa.Connection, builds: Sequence[tuple[int, BuildRequest]], *, owner: str) -> None:
    """Insert the workflow's steps that run once, and the edges between them. A step that needs no other is ready."""
    first = [(one, Status.WAITING if one.needs else Status.READY) for one in build_workflow().first()]
    steps = [
        state_rows.new_step_row(build_id, planned, status, priority=request.priority, owner=owner)
        for build_id, request in builds
        for planned, status in first
    ]
    edges = [
        state_rows.need_row(build_id, planned, need)
        for build_id, _ in builds
        for planned, _ in first
        for need in planned.needs
    ]
    if steps:
        connection.execute(schema.step.insert(), steps)
    if edges:
        connection.execute(schema.step_need.insert(), edges)


def _build_row(request: BuildRequest, source: Source, targets: Mapping[str, str]) -> dict[str, Any]:
    return {
        "project": request.project,
        "package": clean(request.package or source.guessed_name),
        "source": columns.to_text(source),
        "target": request.target,
        "format": request.format,
        "target_sha256": targets.get(request.target),
        "arches": columns.to_text(request.arches),
        "options": columns.to_text(request.options),
        "priority": request.priority,
        "status": Status.READY.value,
    }


def _without_secret(source: Source) -> Source:
    return replace(source, url=without_credentials(source.url)) if source.url else source


# --- reading ----------------------------------------------------------------------------------------------------


def _one(connection: sa.Connection, build_id: int) -> BuildState:
    build = state_rows.load(connection, [build_id]).get(build_id)
    if build is None:
        raise no_build(build_id)
    return build


def no_build(build_id: int) -> NotFound:
    """The error for a build that does not exist, or that its asker may not see."""
    return NotFound(f"there is no build {build_id}; `farm list` shows the builds")


def no_batch(batch_id: int) -> NotFound:
    """The same for a batch."""
    return NotFound(f"there is no batch {batch_id}; `farm list` shows the builds")


def _chosen(chosen: BuildFilter, limit: int, project: str | None = None) -> sa.Select[Any]:
    """The newest builds that were chosen, of this project if one is given."""
    column = schema.build.c
    query = sa.select(schema.build).order_by(column.id.desc()).limit(limit)
    status, outcome, before = chosen.get("status"), chosen.get("outcome"), chosen.get("before")
    if before is not None:
        query = query.where(column.id < before)
    if status is not None and outcome is None:
        query = query.where(column.status == status.value)
    wanted = {
        "outcome": outcome.value if outcome is not None else None,
        "target": chosen.get("target"),
        "project": project or chosen.get("project"),
        "package": chosen.get("package"),
    }
    return query.where(*(column[name] == value for name, value in wanted.items() if value is not None))


def _of_seen(connection: sa.Connection, chosen: BuildFilter, hidden: Collection[str], limit: int) -> list[Any]:
    """The same without hidden projects: a question for each of the others, so that many hidden builds cost nothing."""
    names = [one for one in connection.scalars(sa.select(project_schema.project.c.name)) if one not in hidden]
    found = [row for name in names for row in connection.execute(_chosen(chosen, limit, name))]
    return sorted(found, key=lambda row: row.id, reverse=True)[:limit]


def _batch(connection: sa.Connection, batch_id: int) -> Batch:
    row = connection.execute(sa.select(schema.batch).where(schema.batch.c.id == batch_id)).one_or_none()
    if row is None:
        raise no_batch(batch_id)
    query = sa.select(schema.build).where(schema.build.c.batch_id == batch_id).order_by(schema.build.c.id)
    found = connection.execute(query).all()
    return Batch(id=row.id, owner=row.owner, created_at=row.created_at, builds=_values(connection, found))


def _values(connection: sa.Connection, found: Sequence[Any], *, is_whole: bool = False) -> tuple[Build, ...]:
    """Builds with their steps; with `is_whole` also attempts, artifacts and places in queues, which cost more."""
    steps: dict[int, list[Any]] = defaultdict(list)
    for start in range(0, len(found), _CHUNK):
        ids = [row.id for row in found[start : start + _CHUNK]]
        for step in connection.execute(_SHOWN_STEPS.where(_STEP.job_id.in_(ids))):
            steps[step.job_id].append(step)
    replaced = replacements(connection, [row.id for row in found])
    queues = waiting.queues_seen(connection)
    unmet = {step.job_id for group in steps.values() for step in group if step.status == Status.WAITING.value}
    needs = waiting.needs_of(connection, sorted(unmet)) if unmet else {}
    attempts = _attempts(connection, [step for group in steps.values() for step in group]) if is_whole else {}
    builds = []
    for row in found:
        siblings = {(step.kind, step.arch): step for step in steps[row.id]}
        values = []
        for step in sorted(steps[row.id], key=partial(_in_order, columns.decode_arches(row.arches))):
            place = waiting.position(connection, step) if is_whole and step.status == Status.READY.value else None
            before = needs.get((step.job_id, step.kind, step.arch), ())
            needed = [siblings[one] for one in before if one in siblings]
            waits_for = waiting.waits_for(step, needed, queues, place)
            values.append(_step_value(step, waits_for, tuple(attempts.get(step.id, ()))))
        warnings = value_rows.warnings_of(connection, row) if is_whole else ()
        of_others, own = replaced.of_others(row.id), replaced.own(row.id)
        builds.append(value_rows.build_value(row, values, warnings, replaces=of_others, replaced=own))
    return tuple(builds)


def _in_order(arches: Sequence[str], step: Any) -> int:
    """Steps that run once first, then arch by arch as the request named them."""
    return arches.index(step.arch) if step.arch in arches else -1 if not step.arch else len(arches)


def _step_value(row: Any, waits_for: str | None, attempts: tuple[Attempt, ...]) -> Step:
    kind = find_step_type(row.kind)  # None for a step type of an extension that is no longer installed
    return Step(
        kind=row.kind,
        arch=Arch(row.arch) if row.arch else None,
        status=Status(row.status),
        outcome=Outcome(row.outcome) if row.outcome else None,
        reason=row.reason,
        waits_for=waits_for,
        counts=kind is None or kind.counts,
        attempts=attempts,
    )


def _attempts(connection: sa.Connection, steps: list[Any]) -> dict[int, list[Attempt]]:
    by_id = {step.id: step for step in steps}
    column = schema.attempt.c
    query = sa.select(schema.attempt).where(column.step_id.in_(list(by_id))).order_by(column.step_id, column.number)
    found = connection.execute(query).all()
    artifacts: dict[int, list[Artifact]] = defaultdict(list)
    for attempt_id, artifact in value_rows.artifacts_of(connection, [row.id for row in found]):
        artifacts[attempt_id].append(artifact)
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for row in found:
        attempts[row.step_id].append(value_rows.attempt_value(by_id[row.step_id], row, tuple(artifacts[row.id])))
    return attempts


def _note_closing(connection: sa.Connection, labels: Sequence[str]) -> None:
    """Record them for the scheduler, in case the caller ends before it closes them."""
    if labels:
        connection.execute(schema.closing.insert(), [{"label": label} for label in labels])
