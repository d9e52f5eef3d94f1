"""Owners of package names. A name that a build published before belongs to the owner of the first such build."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "package_owner",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("target", "kind", "name", name="pk_package_owner"),
    )
    op.execute(
        "INSERT INTO package_owner (target, kind, name, owner, build_id, claimed_at)"
        " SELECT build.target, 'source', build.package, build.owner, build.id, build.created_at FROM build"
        " JOIN (SELECT MIN(id) AS id FROM build WHERE outcome = 'succeeded' GROUP BY target, package) AS first"
        " ON first.id = build.id"
    )
