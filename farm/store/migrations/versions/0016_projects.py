"""Projects, with members and packages. All builds so far are of the default project. A token may be for one project."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    project = op.create_table(
        "project",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("builds_on", sa.Text(), nullable=False),
        sa.Column("root_packages", sa.Text(), nullable=False),
        sa.Column("is_private", sa.Boolean(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("removed_at", _INSTANT, nullable=True),
        sa.Column("removed_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_project"),
    )
    op.bulk_insert(
        project,
        [
            {
                "name": "main",
                "title": "The default project",
                "targets": "[]",
                "builds_on": "[]",
                "root_packages": "[]",
                "is_private": False,
                "created_at": datetime.now(UTC),
                "created_by": "farm",
            }
        ],
    )
    op.create_table(
        "project_member",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("granted_at", _INSTANT, nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.name"], name="fk_project_member_project_project"),
        sa.PrimaryKeyConstraint("project", "actor", name="pk_project_member"),
    )
    op.create_table(
        "project_package",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("arches", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("added_at", _INSTANT, nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.name"], name="fk_project_package_project_project"),
        sa.PrimaryKeyConstraint("project", "name", name="pk_project_package"),
    )
    op.add_column("build", sa.Column("project", sa.Text(), nullable=False, server_default="main"))
    for columns in (["project", "id"], ["project", "status", "id"], ["project", "outcome", "id"], ["package", "id"]):
        op.create_index(f"ix_build_{'_'.join(columns)}", "build", columns, unique=False)
    op.add_column("token", sa.Column("project", sa.Text(), nullable=True))
