"""Indexes for lists of one target's builds: without them a target with few builds was searched in a million."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for columns in (["target", "id"], ["target", "status", "id"], ["target", "outcome", "id"]):
        op.create_index(f"ix_build_{'_'.join(columns)}", "build", columns, unique=False)
