"""Hosts that are given no work, workers lost by a step, and why a queue's workers do not count."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Additive, and with defaults: a scheduler of the version before still works beside a newer one.
    op.add_column("step", sa.Column("deaths", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("queue", sa.Column("note", sa.Text(), nullable=True))
    op.create_table(
        "host",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hands_back", sa.Boolean(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_host"),
    )
