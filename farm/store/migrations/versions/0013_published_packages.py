"""The packages that uploads brought to the repositories, and the builds whose packages replaced them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "published_package",
        sa.Column("id", _ID, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("arch", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("build_id", _ID, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replaced_by", _ID, nullable=True),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_published_package"),
        sa.ForeignKeyConstraint(["build_id"], ["build.id"], name="fk_published_package_build_id_build"),
        sa.ForeignKeyConstraint(["replaced_by"], ["build.id"], name="fk_published_package_replaced_by_build"),
    )
    for columns in (["target", "identity", "arch"], ["build_id"], ["replaced_by"]):
        op.create_index(f"ix_published_package_{'_'.join(columns)}", "published_package", columns)
