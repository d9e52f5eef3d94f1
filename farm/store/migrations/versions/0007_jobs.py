"""Steps belong to jobs, the edges between steps are rows, and publishing logs is a step type of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: An upload of the version before that published logs alone.
_LOGS_ONLY = "kind = 'upload' AND is_skipped AND (outcome IS NULL OR outcome NOT IN ('cancelled', 'excluded'))"
_PREFIX = "logs and records only: "


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "job",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.execute("INSERT INTO job (id, kind) SELECT id, 'build' FROM build")
    if is_postgresql:
        op.execute("SELECT setval(pg_get_serial_sequence('job', 'id'), (SELECT MAX(id) FROM job))")
        op.execute("ALTER TABLE build ALTER COLUMN id DROP DEFAULT")
        op.execute("DROP SEQUENCE IF EXISTS build_id_seq")
    with op.batch_alter_table("build") as build:
        build.create_foreign_key("fk_build_id_job", "job", ["id"], ["id"])
    with op.batch_alter_table("step") as step:
        step.drop_constraint("fk_step_build_id_build", type_="foreignkey")
        step.drop_constraint("uq_step_build_id_kind_arch", type_="unique")
        step.alter_column("build_id", new_column_name="job_id")
    with op.batch_alter_table("step") as step:  # constraints on a column under its new name need a batch of their own
        step.create_foreign_key("fk_step_job_id_job", "job", ["job_id"], ["id"])
        step.create_unique_constraint("uq_step_job_id_kind_arch", ["job_id", "kind", "arch"])
    op.create_table(
        "step_need",
        sa.Column("job_id", _ID, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arch", sa.Text(), nullable=False),
        sa.Column("needs_job_id", _ID, autoincrement=False, nullable=False),
        sa.Column("needs_kind", sa.Text(), nullable=False),
        sa.Column("needs_arch", sa.Text(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_step_need_job_id_job"),
        sa.ForeignKeyConstraint(["needs_job_id"], ["job.id"], name="fk_step_need_needs_job_id_job"),
        sa.PrimaryKeyConstraint(
            *("job_id", "kind", "arch", "needs_job_id", "needs_kind", "needs_arch"), name="pk_step_need"
        ),
    )
    _move_logs()
    _write_edges()
    # An excluded step was marked as skipped too; from now on only its outcome says that it was excluded.
    op.execute("UPDATE step SET is_skipped = FALSE WHERE outcome = 'excluded'")


def _move_logs() -> None:
    """Uploads of logs alone become steps of the type `logs`, with their attempts. The upload step of an arch stays
    beside it, as a step that never had its turn.

    A running upload is started again under its new label; the scheduler closes the lease of the old attempt.
    """
    live = f"FROM attempt JOIN step ON step.id = attempt.step_id WHERE attempt.status <> 'finished' AND {_with_table()}"
    op.execute(
        "INSERT INTO closing (label) SELECT step.job_id || '.upload.' ||"
        f" CASE step.arch WHEN '' THEN '' ELSE step.arch || '.' END || attempt.number {live}"
    )
    op.execute(f"DELETE FROM attempt WHERE id IN (SELECT attempt.id {live})")
    status = "CASE WHEN status IN ('finished', 'waiting') THEN status ELSE 'ready' END"
    same = "job_id, arch, queue, urgency, owner, outcome, reason, not_before_at, attempts, troubles, deaths, trouble,"
    op.execute(
        f"INSERT INTO step (kind, status, is_skipped, {same} trouble_hosts, output)"
        f" SELECT 'logs', {status}, FALSE, {same} trouble_hosts, NULL FROM step WHERE {_LOGS_ONLY} AND arch <> ''"
    )
    op.execute(
        "UPDATE attempt SET step_id = (SELECT logs.id FROM step JOIN step AS logs ON logs.job_id = step.job_id"
        " AND logs.arch = step.arch AND logs.kind = 'logs' WHERE step.id = attempt.step_id)"
        f" WHERE step_id IN (SELECT id FROM step WHERE {_LOGS_ONLY} AND arch <> '')"
    )
    reason = f"CASE WHEN reason LIKE '{_PREFIX}%' THEN substr(reason, {len(_PREFIX) + 1}) ELSE 'the build failed' END"
    op.execute(
        f"UPDATE step SET status = 'finished', outcome = 'cancelled', reason = {reason}, not_before_at = NULL,"
        f" output = NULL, troubles = 0, deaths = 0, trouble = NULL, trouble_hosts = NULL"
        f" WHERE {_LOGS_ONLY} AND arch <> ''"
    )
    op.execute(
        f"UPDATE step SET kind = 'logs', is_skipped = FALSE, output = NULL, status = {status} WHERE {_LOGS_ONLY}"
    )


def _with_table() -> str:
    return _LOGS_ONLY.replace("kind", "step.kind").replace("outcome", "step.outcome").replace("is_sk", "step.is_sk")


def _write_edges() -> None:
    _edge("srpm", "fetch", "''", "chain")
    _edge("build", "srpm", "''", "success")
    _edge("upload", "build", "arch", "chain")
    _edge("upload", "srpm", "''", "success")
    # The logs of a step that runs once: the edge to `srpm` leads on to `fetch`.
    _edge("logs", "srpm", "''", "end", where="arch = ''")
    _edge("logs", "build", "arch", "end", where="arch <> ''")


def _edge(kind: str, needs: str, arch: str, how: str, *, where: str = "TRUE") -> None:
    op.execute(
        "INSERT INTO step_need (job_id, kind, arch, needs_job_id, needs_kind, needs_arch, how)"
        f" SELECT job_id, kind, arch, job_id, '{needs}', {arch}, '{how}' FROM step WHERE kind = '{kind}' AND {where}"
    )
