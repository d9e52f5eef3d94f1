"""A step counts how often workers handed it back. An attempt's file has the size that the attempt reported: a file of
the same digest that another attempt reported may have a wrong one."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Additive: a scheduler of the version before still works beside a newer one.
    op.add_column("step", sa.Column("hand_backs", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempt_artifact", sa.Column("size_bytes", sa.BigInteger(), nullable=True))
