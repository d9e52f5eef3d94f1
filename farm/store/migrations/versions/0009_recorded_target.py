"""The target that a build was asked for with, by the sha256 of its record in the artifact store."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Additive: older builds have no record, and take the target's file as it is when they run.
    op.add_column("build", sa.Column("target_sha256", sa.Text(), nullable=True))
