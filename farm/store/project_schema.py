"""The tables of projects, their members and their packages. They are part of the metadata of schema.py."""

from typing import Any

import sqlalchemy as sa

from farm.store.schema import UtcTime, metadata


def _column(name: str, kind: Any, *, null: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, kind, nullable=null)


#: Projects, the default one among them. `targets`, `builds_on` and `root_packages` are JSON lists of names.
project = sa.Table(
    "project",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _column("title", sa.Text),
    _column("targets", sa.Text),
    _column("builds_on", sa.Text),
    _column("root_packages", sa.Text),
    _column("is_private", sa.Boolean),
    _column("created_at", UtcTime),
    _column("created_by", sa.Text),
    _column("removed_at", UtcTime, null=True),
    _column("removed_by", sa.Text, null=True),
)

project_member = sa.Table(
    "project_member",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("project.name"), primary_key=True),
    sa.Column("actor", sa.Text, primary_key=True),
    _column("role", sa.Text),
    _column("granted_at", UtcTime),
    _column("granted_by", sa.Text),
)

#: `source` is JSON without credentials; `arches`, `options` are JSON.
project_package = sa.Table(
    "project_package",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("project.name"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    _column("source", sa.Text),
    _column("arches", sa.Text),
    _column("options", sa.Text),
    _column("added_at", UtcTime),
    _column("added_by", sa.Text),
)
