"""Crowds of builds, written straight into the tables: a million finished ones in a minute, or many that wait.

The rows are as the farm leaves them, but for what nothing here measures: their attempts stored no artifacts.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

from farm import queues
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.steps.registry import build_workflow, step_type
from farm.store import columns, schema
from farm.store.database import open_database
from farm.store.transaction import transaction
from tests.fake_workers import output_of
from tests.messages import KINDS

#: Builds of one batch.
BATCH = 1000
OWNERS = 50
_SOURCE = Source(kind=SourceKind.GIT, url="https://example.org/crowd.git", ref="main")
_NUMBERS = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count) "
_TENTH_FAILED = f"CASE WHEN n % 10 = 0 THEN '{Outcome.FAILED}' ELSE '{Outcome.SUCCEEDED}' END"
_STEPS = {
    "fetch": ("", queues.SOURCE),
    "srpm": ("", queues.SOURCE),
    "build": (Arch.X86_64.value, queues.build_queue(Arch.X86_64)),
    "upload": (Arch.X86_64.value, queues.PUBLISH),
}

_ADD_BATCHES = "INSERT INTO batch (id, owner, created_at) " + _NUMBERS + "SELECT :base + n, 'crowd', :at FROM number"
_ADD_JOBS = "INSERT INTO job (id, kind) " + _NUMBERS + "SELECT :base + n, 'build' FROM number"
_ADD_EDGES = (
    "INSERT INTO step_need (job_id, kind, arch, needs_job_id, needs_kind, needs_arch, how) " + _NUMBERS + ""
    "SELECT :base + n, '{kind}', '{arch}', :base + n, '{needs}', '{needs_arch}', '{how}' FROM number"
)
_ADD_BUILDS = (
    "INSERT INTO build (id, batch_id, package, source, target, format, arches, options, priority, owner, status,"
    " outcome, reason, nevra, created_at, finished_at) "
    + _NUMBERS
    + "SELECT :base + n, :batch + (n - 1) / :batch_size + 1,"
    " 'crowd-' || n, :source, 'demo', 'rpm', :arches, :options, 0, 'user-' || (n % :owners), '{status}',"
    " {outcome}, NULL, {nevra}, :at, {finished_at} FROM number"
)
_ADD_STEPS = (
    "INSERT INTO step (id, job_id, kind, arch, queue, urgency, owner, status, outcome, is_skipped, attempts,"
    " troubles, output) " + _NUMBERS + "SELECT :base_step + (n - 1) * {kinds} + {place}, :base + n, '{kind}', '{arch}',"
    " '{queue}', 0, 'user-' || (n % :owners), '{status}', {outcome}, {is_skipped}, {attempts}, 0, {output} FROM number"
)
_DIGEST = "0123456789abcdef" * 4
_ADD_ATTEMPTS = (
    "INSERT INTO attempt (id, step_id, number, token, holder, status, outcome, worker, wall_s, dispatched_at,"
    f" offered_at, started_at, finished_at) SELECT step.id, step.id, 1, '', '{_DIGEST}', 'finished', step.outcome,"
    " 'build@builder1', 3600, :at, :at, :at, :at FROM step WHERE step.job_id > :base AND step.attempts = 1"
)


def add_finished(url: str, count: int) -> None:
    """So many builds that are over: four steps each, one attempt a step; every tenth failed in `build`."""
    _add(url, count, is_finished=True)


def add_waiting(url: str, count: int) -> None:
    """So many builds of fifty people whose `fetch` is ready."""
    _add(url, count, is_finished=False)


def _add(url: str, count: int, *, is_finished: bool) -> None:
    engine = open_database(url, create=True)
    try:
        with transaction(engine, is_writing=True) as connection:
            _fill(connection, count, is_finished=is_finished)
            if connection.dialect.name == "postgresql":
                _count_on(connection)
        if engine.dialect.name == "postgresql":  # by itself it would do this some minutes later; SQLite never does
            with engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")
    finally:
        engine.dispose()


def _fill(connection: sa.Connection, count: int, *, is_finished: bool) -> None:
    values = {
        "count": count,
        "base": _last(connection, schema.build),
        "base_step": _last(connection, schema.step),
        "batch": _last(connection, schema.batch),
        "batch_size": BATCH,
        "owners": OWNERS,
        "at": datetime.now(UTC),
        "source": columns.to_text(_SOURCE),
        "arches": columns.to_text((Arch.X86_64,)),
        "options": columns.to_text(BuildOptions()),
    }
    _run(connection, _ADD_BATCHES, values | {"count": -(-count // BATCH), "base": values["batch"]})
    how = {"status": Status.READY, "outcome": "NULL", "nevra": "NULL", "finished_at": "NULL"}
    if is_finished:
        how = {"status": Status.FINISHED, "outcome": _TENTH_FAILED, "finished_at": ":at"}
        how["nevra"] = "'crowd-' || n || '-1-1.src'"
    _run(connection, _ADD_JOBS, values)
    _run(connection, _ADD_BUILDS.format(**how), values)
    kinds = KINDS if is_finished else tuple(planned.kind for planned in build_workflow().first())
    for place, kind in enumerate(kinds, start=1):
        insert = _step_insert(kind, place, len(kinds), is_finished=is_finished)
        _run(connection, insert, values | {"output": columns.to_text(output_of(kind))})
        for needs, how in step_type(kind).needs:
            edge = {"kind": kind, "arch": _STEPS[kind][0], "needs": needs, "needs_arch": _STEPS[needs][0], "how": how}
            _run(connection, _ADD_EDGES.format(**edge), values)
    if is_finished:
        _run(connection, _ADD_ATTEMPTS, values)


def _step_insert(kind: str, place: int, kinds: int, *, is_finished: bool) -> str:
    arch, queue = _STEPS[kind]
    how = {"status": Status.READY if kind == "fetch" else Status.WAITING, "outcome": "NULL", "output": "NULL"}
    how |= {"is_skipped": "false", "attempts": "0"}
    if is_finished:
        how |= {"status": Status.FINISHED, "attempts": "1", "output": ":output"}
        how["outcome"] = _TENTH_FAILED if kind == "build" else f"'{Outcome.SUCCEEDED}'"
        if kind == "upload":
            how["outcome"] = f"CASE WHEN n % 10 = 0 THEN '{Outcome.CANCELLED}' ELSE '{Outcome.SUCCEEDED}' END"
            how["is_skipped"] = "n % 10 = 0"
            how["attempts"] = "CASE WHEN n % 10 = 0 THEN 0 ELSE 1 END"
    return _ADD_STEPS.format(kind=kind, arch=arch, queue=queue, place=place, kinds=kinds, **how)


def _last(connection: sa.Connection, table: sa.Table) -> int:
    return connection.scalar(sa.select(sa.func.max(table.c.id))) or 0


def _run(connection: sa.Connection, statement: str, values: dict[str, object]) -> None:
    text = sa.text(statement)
    named = set(text._bindparams)
    if "at" in named:
        text = text.bindparams(sa.bindparam("at", type_=schema.UtcTime()))
    connection.execute(text, {name: value for name, value in values.items() if name in named})


def _count_on(connection: sa.Connection) -> None:
    """PostgreSQL's sequences do not see ids that were given."""
    for table in (schema.batch, schema.job, schema.step, schema.attempt):
        name = table.name
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))"
        )
