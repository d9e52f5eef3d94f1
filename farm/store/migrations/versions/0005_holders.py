"""The holder of an attempt is recorded as the digest of the token that its worker made."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Additive: a scheduler of the version before still works beside a newer one, and writes `token` as before.
    op.add_column("attempt", sa.Column("holder", sa.Text(), nullable=True))
