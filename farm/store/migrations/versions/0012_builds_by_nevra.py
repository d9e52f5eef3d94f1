"""An index for the builds of one name, version and release in a target."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    name = "ix_build_target_nevra"
    op.create_index(name, "build", name.split("_")[2:], unique=False)
