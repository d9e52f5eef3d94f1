"""A build knows the package format of its target; older builds are all of RPM. In the outputs of steps, the identity of
a package has a key that fits every format."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("build", sa.Column("format", sa.Text(), nullable=False, server_default="rpm"))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("build", "format", server_default=None)
    # Within a text of the JSON the key's quotes would be escaped.
    op.execute("""UPDATE step SET output = replace(output, '"nevra":', '"identity":') WHERE output LIKE '%"nevra":%'""")
