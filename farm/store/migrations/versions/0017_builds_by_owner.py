"""An index for the builds of an owner."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_build_owner_id", "build", ["owner", "id"], unique=False)
