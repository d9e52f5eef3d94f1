"""The farm's tables. Owns names, types and indexes; not the queries, and not how a database gets there (migrate.py).

Three indexes keep the scheduler's queries cheap however many steps wait: ready steps in the order in which they are
dispatched, steps that become due at a time, and attempts that are not finished. They are partial, so finished steps
cost them nothing. Queries must repeat an index's condition word for word (`IS_READY` and so on): with a bound
parameter in it a database cannot know that the index applies.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from farm.model.place import DEFAULT_PROJECT

#: The newest migration. A test compares it with the migrations, and the migrations with this metadata.
REVISION = "0017"


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An instant: aware UTC when written and when read, whatever the database keeps."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        return _sqlite_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        return _of_sqlite_text if dialect.name == "sqlite" else super().result_processor(dialect, coltype)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None


# SQLAlchemy's own way to the same text takes five times as long, and a build has some twenty times.
def _sqlite_text(value: datetime | None) -> str | None:
    if value is None:
        return None
    text = (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat(" ", "microseconds")
    return text.removesuffix("+00:00")


def _of_sqlite_text(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if value is not None else None


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite assigns ids by itself only for INTEGER; PostgreSQL should have room for more than 2^31 attempts.
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _column(name: str, kind: Any, *args: Any, null: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, kind, *args, nullable=null)


batch = sa.Table(
    "batch",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("owner", sa.Text),
    _column("created_at", UtcTime),
)

#: The owner of steps: a build, and later other kinds of jobs. A build's id is that of its job.
job = sa.Table(
    "job",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("kind", sa.Text),
)

#: `source` is JSON without credentials; `arches`, `options` are JSON.
build = sa.Table(
    "build",
    metadata,
    sa.Column("id", _Id, sa.ForeignKey("job.id"), primary_key=True, autoincrement=False),
    _column("batch_id", _Id, sa.ForeignKey("batch.id")),
    sa.Column("project", sa.Text, nullable=False, server_default=DEFAULT_PROJECT),
    _column("package", sa.Text),
    _column("nevra", sa.Text, null=True),
    _column("source_commit", sa.Text, null=True),
    _column("source", sa.Text),
    _column("target", sa.Text),
    _column("format", sa.Text),
    _column("target_sha256", sa.Text, null=True),
    _column("arches", sa.Text),
    _column("options", sa.Text),
    _column("priority", sa.Integer),
    _column("owner", sa.Text),
    _column("status", sa.Text),
    _column("outcome", sa.Text, null=True),
    _column("reason", sa.Text, null=True),
    _column("created_at", UtcTime),
    _column("finished_at", UtcTime, null=True),
    sa.Index(None, "batch_id"),
    sa.Index(None, "status", "id"),
    sa.Index(None, "outcome", "id"),
    sa.Index(None, "target", "id"),
    sa.Index(None, "target", "status", "id"),
    sa.Index(None, "target", "outcome", "id"),
    sa.Index(None, "target", "nevra"),
    sa.Index(None, "finished_at"),
    sa.Index(None, "project", "id"),
    sa.Index(None, "project", "status", "id"),
    sa.Index(None, "project", "outcome", "id"),
    *(sa.Index(None, name, "id") for name in ("package", "owner")),
)

#: The URL of a source that has credentials in it. Only dispatch reads it, when it makes the fetch step's work.
source_secret = sa.Table(
    "source_secret",
    metadata,
    sa.Column("build_id", _Id, sa.ForeignKey("build.id"), primary_key=True, autoincrement=False),
    _column("url", sa.Text),
)

IS_READY = "step.status = 'ready'"
IS_DUE_LATER = "step.status = 'waiting' AND step.not_before_at IS NOT NULL"

#: `arch` is empty for steps that run once. `urgency` is the build's priority negated, so that the index ascends all
#: the way. `attempts` counts the attempts ever made, so that no label is used twice. `trouble` is the last trouble's
#: message, `trouble_hosts` JSON. `deaths` counts the workers that were lost while they ran it,
#: `hand_backs` how often a worker handed it back.
#: `output` is the JSON of a successful attempt's output. `covers` (JSON) are the arches that this step's packages are
#: for, if they are more than its own. `is_skipped` marks a step that never had its turn, since a step that it needs did
#: not succeed.
step = sa.Table(
    "step",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("job_id", _Id, sa.ForeignKey("job.id")),
    _column("kind", sa.Text),
    _column("arch", sa.Text),
    _column("queue", sa.Text),
    _column("urgency", sa.Integer),
    _column("owner", sa.Text),
    _column("status", sa.Text),
    _column("outcome", sa.Text, null=True),
    _column("reason", sa.Text, null=True),
    _column("is_skipped", sa.Boolean),
    _column("not_before_at", UtcTime, null=True),
    _column("attempts", sa.Integer),
    _column("troubles", sa.Integer),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.Column("hand_backs", sa.Integer, nullable=False, server_default="0"),
    _column("trouble", sa.Text, null=True),
    _column("trouble_hosts", sa.Text, null=True),
    _column("covers", sa.Text, null=True),
    _column("output", sa.Text, null=True),
    sa.UniqueConstraint("job_id", "kind", "arch"),
)
# Migrations make the indexes, with these conditions. The keywords `sqlite_where` and `postgresql_where` would import
# the dialects of both databases, and PostgreSQL's dialect takes a fifth of the import of SQLAlchemy.
sa.Index(
    "ix_step_ready",
    step.c.queue,
    step.c.urgency,
    step.c.owner,
    step.c.id,
    info={"where": "status = 'ready'"},
)
sa.Index("ix_step_due", step.c.not_before_at, info={"where": "status = 'waiting' AND not_before_at IS NOT NULL"})

#: The graph: the step (`job_id`, `kind`, `arch`) needs the step (`needs_job_id`, `needs_kind`, `needs_arch`), which may
#: be of another job, and may not exist yet. `how` is a farm.state.graph.How.
step_need = sa.Table(
    "step_need",
    metadata,
    sa.Column("job_id", _Id, sa.ForeignKey("job.id"), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("arch", sa.Text, primary_key=True),
    sa.Column("needs_job_id", _Id, sa.ForeignKey("job.id"), primary_key=True, autoincrement=False),
    sa.Column("needs_kind", sa.Text, primary_key=True),
    sa.Column("needs_arch", sa.Text, primary_key=True),
    _column("how", sa.Text),
)

IS_LIVE = "attempt.status <> 'finished'"

#: `offered_at` is the time from which it could be claimed: NULL while an earlier step of its chain still runs. `holder`
#: is the digest of the token with which its worker holds the lease; it is set when the attempt is seen running. `token`
#: is empty, except for attempts that a scheduler of a version before 0005 made, which gave the token to the worker.
attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("step_id", _Id, sa.ForeignKey("step.id")),
    _column("number", sa.Integer),
    _column("token", sa.Text),
    _column("holder", sa.Text, null=True),
    _column("status", sa.Text),
    _column("outcome", sa.Text, null=True),
    _column("reason", sa.Text, null=True),
    _column("excerpt", sa.Text, null=True),
    _column("worker", sa.Text, null=True),
    _column("wall_s", sa.Integer),
    _column("dispatched_at", UtcTime),
    _column("offered_at", UtcTime, null=True),
    _column("started_at", UtcTime, null=True),
    _column("finished_at", UtcTime, null=True),
    _column("phases", sa.Text, null=True),
    _column("peak_memory_bytes", sa.BigInteger, null=True),
    sa.UniqueConstraint("step_id", "number"),
)
sa.Index("ix_attempt_live", attempt.c.step_id, info={"where": "status <> 'finished'"})

#: Every file that an attempt stored, by digest, with the size that the first report of it said. That report may be
#: wrong, so each attempt's own is in `attempt_artifact`.
artifact = sa.Table(
    "artifact",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    _column("size_bytes", sa.BigInteger),
)

attempt_artifact = sa.Table(
    "attempt_artifact",
    metadata,
    sa.Column("attempt_id", _Id, sa.ForeignKey("attempt.id"), primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    _column("name", sa.Text),
    _column("kind", sa.Text),
    _column("sha256", sa.Text, sa.ForeignKey("artifact.sha256")),
    _column("nevra", sa.Text, null=True),
    _column("size_bytes", sa.BigInteger, null=True),
    sa.Index(None, "sha256"),
)
#: The size of an attempt's file. Rows of before 0011 have it in `artifact` alone.
ARTIFACT_SIZE = sa.func.coalesce(attempt_artifact.c.size_bytes, artifact.c.size_bytes)

#: Labels of attempts that were ended in SQL, and whose leases the scheduler has yet to close in Redis.
closing = sa.Table("closing", metadata, sa.Column("label", sa.Text, primary_key=True))

#: The queues as the scheduler last saw them, for people who ask why a step waits. `note` says why workers of the queue
#: do not count.
queue = sa.Table(
    "queue",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _column("slots", sa.Integer),
    _column("busy", sa.Integer),
    _column("note", sa.Text, null=True),
)

#: Hosts that are given no work, by a person's wish or after trouble. `until_at` is the time when that ends
#: by itself; with `hands_back` the attempts on the host are run elsewhere. `times` counts quarantines in a row.
host = sa.Table(
    "host",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _column("hold", sa.Text),
    _column("reason", sa.Text),
    _column("held_by", sa.Text),
    _column("held_at", UtcTime),
    _column("until_at", UtcTime, null=True),
    _column("hands_back", sa.Boolean),
    _column("times", sa.Integer),
)

#: The newest version of each of the farm's own repositories, by its path (`demo/x86_64/os`), as the back end said it.
repository = sa.Table(
    "repository",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    _column("version", sa.BigInteger),
    _column("url", sa.Text),
    _column("updated_at", UtcTime),
)

#: The owner of each package name in a place (farm.model.place): the first to publish it. `kind`: `source`, `binary`.
package_owner = sa.Table(
    "package_owner",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    _column("owner", sa.Text),
    _column("build_id", sa.BigInteger),
    _column("claimed_at", UtcTime),
)

#: New names that an upload publishes at the moment, by place, with the owner of its build (farm.store.in_flight).
name_in_flight = sa.Table(
    "name_in_flight",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("step_id", sa.BigInteger, primary_key=True, autoincrement=False),
    _column("owner", sa.Text),
    sa.Index(None, "step_id"),
)

#: Each package that an upload brought to a repository of a place: of an arch, or for an empty `arch` of the sources.
#: `identity` is its name, version and arch. `replaced_by` is the build whose package of the same identity and another
#: content replaced it, perhaps its own build. A package that is published again has a new row.
published_package = sa.Table(
    "published_package",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("target", sa.Text),
    _column("arch", sa.Text),
    _column("identity", sa.Text),
    _column("sha256", sa.Text),
    _column("build_id", _Id, sa.ForeignKey("build.id")),
    _column("published_at", UtcTime),
    _column("replaced_by", _Id, sa.ForeignKey("build.id"), null=True),
    _column("replaced_at", UtcTime, null=True),
    sa.Index(None, "target", "identity", "arch"),
    sa.Index(None, "build_id"),
    sa.Index(None, "replaced_by"),
)

#: Slot-seconds that an owner's attempts used, decayed as of `at`.
owner_load = sa.Table(
    "owner_load",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    _column("load_s", sa.Float),
    _column("at", UtcTime),
)

#: Access tokens. `sha256` is the hash of the secret, which is kept nowhere; `roles` is JSON, and for `project` alone.
token = sa.Table(
    "token",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("name", sa.Text),
    _column("actor", sa.Text),
    _column("roles", sa.Text),
    _column("sha256", sa.Text),
    _column("created_at", UtcTime),
    _column("created_by", sa.Text),
    _column("expires_at", UtcTime),
    _column("last_used_at", UtcTime, null=True),
    _column("revoked_at", UtcTime, null=True),
    _column("revoked_by", sa.Text, null=True),
    _column("project", sa.Text, null=True),
)

#: Acts that changed something, or were to change it (farm.model.audit). Migration 0015 has the database refuse to
#: change a row.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("at", UtcTime),
    _column("actor", sa.Text),
    _column("origin", sa.Text),
    _column("verb", sa.Text),
    _column("subject", sa.Text),
    _column("detail", sa.Text),
    _column("outcome", sa.Text),
    sa.Index(None, "at", "id"),
    sa.Index(None, "actor", "id"),
    sa.Index(None, "verb", "id"),
    sa.Index(None, "actor", "verb", "id"),
)

#: Source packages that clients send in parts (farm.service.uploads). The client said `sha256` and `size_bytes`.
upload = sa.Table(
    "upload",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _column("actor", sa.Text),
    _column("filename", sa.Text),
    _column("size_bytes", sa.BigInteger),
    _column("sha256", sa.Text),
    _column("target", sa.Text),
    _column("is_finished", sa.Boolean),
    _column("expires_at", UtcTime),
    sa.UniqueConstraint("actor", "sha256"),
    sa.Index(None, "expires_at"),
)

#: The POST requests that clients gave a key, by actor and key. `fingerprint` is the hash of the key and the request;
#: `status` and `answer` are those of the answer, null while the request runs. `answer` is
#: compressed, and null for one that has a secret.
idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("actor", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    _column("fingerprint", sa.Text),
    _column("at", UtcTime),
    _column("status", sa.Integer, null=True),
    _column("media_type", sa.Text, null=True),
    _column("answer", sa.LargeBinary, null=True),
    sa.Index(None, "at"),
)
