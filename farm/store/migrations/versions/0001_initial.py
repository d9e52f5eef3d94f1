"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "artifact",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_artifact"),
    )
    op.create_table(
        "batch",
        sa.Column("id", _ID, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batch"),
    )
    op.create_table(
        "closing", sa.Column("label", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("label", name="pk_closing")
    )
    op.create_table(
        "owner_load",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("load_s", sa.Float(), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_owner_load"),
    )
    op.create_table(
        "queue",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_queue"),
    )
    op.create_table(
        "build",
        sa.Column("id", _ID, nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("nevra", sa.Text(), nullable=True),
        sa.Column("source_commit", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("arches", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("finished_at", _INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name="fk_build_batch_id_batch"),
        sa.PrimaryKeyConstraint("id", name="pk_build"),
    )
    op.create_index("ix_build_batch_id", "build", ["batch_id"], unique=False)
    op.create_index("ix_build_outcome_id", "build", ["outcome", "id"], unique=False)
    op.create_index("ix_build_status_id", "build", ["status", "id"], unique=False)
    op.create_table(
        "source_secret",
        sa.Column("build_id", _ID, autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["build.id"], name="fk_source_secret_build_id_build"),
        sa.PrimaryKeyConstraint("build_id", name="pk_source_secret"),
    )
    op.create_table(
        "step",
        sa.Column("id", _ID, nullable=False),
        sa.Column("build_id", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arch", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("urgency", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("is_skipped", sa.Boolean(), nullable=False),
        sa.Column("not_before_at", _INSTANT, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("troubles", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("trouble_hosts", sa.Text(), nullable=True),
        sa.Column("covers", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["build.id"], name="fk_step_build_id_build"),
        sa.PrimaryKeyConstraint("id", name="pk_step"),
        sa.UniqueConstraint("build_id", "kind", "arch", name="uq_step_build_id_kind_arch"),
    )
    op.create_index(
        "ix_step_due",
        "step",
        ["not_before_at"],
        unique=False,
        sqlite_where=sa.text("status = 'waiting' AND not_before_at IS NOT NULL"),
        postgresql_where=sa.text("status = 'waiting' AND not_before_at IS NOT NULL"),
    )
    op.create_index(
        "ix_step_ready",
        "step",
        ["queue", "urgency", "owner", "id"],
        unique=False,
        sqlite_where=sa.text("status = 'ready'"),
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.create_table(
        "attempt",
        sa.Column("id", _ID, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("excerpt", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("wall_s", sa.Integer(), nullable=False),
        sa.Column("dispatched_at", _INSTANT, nullable=False),
        sa.Column("offered_at", _INSTANT, nullable=True),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.Column("finished_at", _INSTANT, nullable=True),
        sa.Column("phases", sa.Text(), nullable=True),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name="fk_attempt_step_id_step"),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sa.UniqueConstraint("step_id", "number", name="uq_attempt_step_id_number"),
    )
    op.create_index(
        "ix_attempt_live",
        "attempt",
        ["step_id"],
        unique=False,
        sqlite_where=sa.text("status <> 'finished'"),
        postgresql_where=sa.text("status <> 'finished'"),
    )
    op.create_table(
        "attempt_artifact",
        sa.Column("attempt_id", _ID, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("nevra", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_attempt_artifact_attempt_id_attempt"),
        sa.ForeignKeyConstraint(["sha256"], ["artifact.sha256"], name="fk_attempt_artifact_sha256_artifact"),
        sa.PrimaryKeyConstraint("attempt_id", "position", name="pk_attempt_artifact"),
    )
    op.create_index("ix_attempt_artifact_sha256", "attempt_artifact", ["sha256"], unique=False)
