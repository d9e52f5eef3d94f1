"""Projects in SQL, with their members and packages.

Owns the tables `project`, `project_member` and `project_package`. Not which actor may change what (farm.service).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm.errors import NotFound, WrongState
from farm.model.actor import Role
from farm.model.project import Member, Project, ProjectEdit, ProjectPackage
from farm.state.text import clean
from farm.store import columns, project_schema
from farm.store.database import Database, write_alone

_PROJECT = project_schema.project.c
_MEMBER = project_schema.project_member.c
_PACKAGE = project_schema.project_package.c


@dataclass(frozen=True, kw_only=True)
class Membership:
    """A project as one actor meets it; `role` is None for an actor who is no member."""

    is_private: bool
    is_removed: bool
    role: Role | None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The settings of a project that decide what is in the roots of its builds."""

    builds_on: tuple[str, ...] = ()
    root_packages: tuple[str, ...] = ()


class ProjectStore(Database):
    """The part of the store for projects. Changes of projects take turns, so that each sees the ones before."""

    def add_project(self, project: Project) -> Project:
        """Raises WrongState for a name that a project has or had."""
        with self.writing() as connection:
            write_alone(connection, project_schema.project)
            if (taken := _projects(connection, project.name)) and taken[0].removed_at is not None:
                raise WrongState(
                    f"the project {project.name} was removed, and has builds and repositories of that name; "
                    f"`farm project restore {project.name}` brings it back, or choose another name"
                )
            if taken:
                raise WrongState(f"there is a project {project.name} already; `farm project show {project.name}`")
            connection.execute(project_schema.project.insert().values(**_row(project)))
        return project

    def project(self, name: str) -> Project:
        """Also a removed one. Raises NotFound."""
        with self.reading() as connection:
            return _one(connection, name)

    def projects(self) -> tuple[Project, ...]:
        """The projects that are not removed, by name."""
        with self.reading() as connection:
            return _projects(connection)

    def change_project(self, name: str, change: Callable[[Project, Mapping[str, Project]], Project]) -> ProjectEdit:
        """Write the project that `change` makes of it and of all that are not removed; members stay as they are.

        Raises NotFound, and what `change` raises.
        """
        with self.writing() as connection:
            write_alone(connection, project_schema.project)
            others = {one.name: one for one in _projects(connection)}
            before = _one(connection, name)
            row = _row(change(before, others))
            connection.execute(project_schema.project.update().where(_PROJECT.name == name).values(**row))
            return ProjectEdit(before=before, after=_one(connection, name))

    def set_member(self, project: str, actor: str, role: Role | None, *, by: str, now: datetime) -> ProjectEdit:
        """Give an actor a role in a project, or with None take its role away. Raises NotFound."""
        is_this = sa.and_(_MEMBER.project == project, _MEMBER.actor == actor)
        with self.writing() as connection:
            write_alone(connection, project_schema.project_member)
            before = _one(connection, project)
            connection.execute(project_schema.project_member.delete().where(is_this))
            if role is not None:
                values = {"project": project, "actor": actor, "role": role.value, "granted_at": now}
                connection.execute(project_schema.project_member.insert().values(**values, granted_by=clean(by)))
            return ProjectEdit(before=before, after=_one(connection, project))

    def membership(self, project: str, actor: str) -> Membership | None:
        """None for a name that no project has."""
        query = (
            sa.select(_PROJECT.is_private, _PROJECT.removed_at, _MEMBER.role)
            .select_from(project_schema.project.outerjoin(project_schema.project_member, _joined(actor)))
            .where(_PROJECT.name == project)
        )
        with self.reading() as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            return None
        role = Role(found.role) if found.role is not None else None
        return Membership(is_private=found.is_private, is_removed=found.removed_at is not None, role=role)

    def memberships(self, actor: str) -> list[tuple[str, Role]]:
        """The projects of which the actor is a member, and the role in each; by name, without removed ones."""
        query = (
            sa.select(_MEMBER.project, _MEMBER.role)
            .select_from(project_schema.project.join(project_schema.project_member, _joined(actor)))
            .where(_PROJECT.removed_at.is_(None))
            .order_by(_MEMBER.project)
        )
        with self.reading() as connection:
            return [(row.project, Role(row.role)) for row in connection.execute(query)]

    def hidden_from(self, actor: str) -> frozenset[str]:
        """The private projects of which the actor is no member, removed ones among them."""
        query = (
            sa.select(_PROJECT.name)
            .select_from(project_schema.project.outerjoin(project_schema.project_member, _joined(actor)))
            .where(_PROJECT.is_private, _MEMBER.role.is_(None))
        )
        with self.reading() as connection:
            return frozenset(connection.scalars(query))

    def surroundings(self, project: str) -> Surroundings:
        """The settings for the roots of a project's builds; also of a removed one. Other removed projects are left out.

        Raises NotFound.
        """
        with self.reading() as connection:
            query = sa.select(_PROJECT.builds_on, _PROJECT.root_packages).where(_PROJECT.name == project)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound(f"there is no project {project} any more; enqueue the build in another one")
            wanted = columns.decode_names(row.builds_on)
            there: frozenset[str] = frozenset()
            if wanted:
                is_there = sa.and_(_PROJECT.name.in_(wanted), _PROJECT.removed_at.is_(None))
                there = frozenset(connection.scalars(sa.select(_PROJECT.name).where(is_there)))
        return Surroundings(
            builds_on=tuple(one for one in wanted if one in there),
            root_packages=columns.decode_names(row.root_packages),
        )

    # --- packages -----------------------------------------------------------------------------------------------

    def packages(self, project: str) -> tuple[ProjectPackage, ...]:
        """By name."""
        query = sa.select(project_schema.project_package).where(_PACKAGE.project == project).order_by(_PACKAGE.name)
        with self.reading() as connection:
            return tuple(_package(row) for row in connection.execute(query))

    def package(self, project: str, name: str) -> ProjectPackage:
        """Raises NotFound."""
        with self.reading() as connection:
            return _package_of(connection, project, name)

    def add_package(self, package: ProjectPackage, *, replaces: bool) -> None:
        """Raises WrongState for a name that the project has, unless it replaces that package."""
        is_this = sa.and_(_PACKAGE.project == package.project, _PACKAGE.name == package.name)
        with self.writing() as connection:
            write_alone(connection, project_schema.project_package)
            is_there = connection.scalar(sa.select(_PACKAGE.name).where(is_this)) is not None
            if is_there and not replaces:
                raise WrongState(
                    f"the project {package.project} has a package {package.name} already; add --replace to change it"
                )
            connection.execute(project_schema.project_package.delete().where(is_this))
            connection.execute(project_schema.project_package.insert().values(**_package_row(package)))

    def remove_package(self, project: str, name: str) -> ProjectPackage:
        """Returns the package that is gone. Raises NotFound."""
        with self.writing() as connection:
            gone = _package_of(connection, project, name)
            is_this = sa.and_(_PACKAGE.project == project, _PACKAGE.name == name)
            connection.execute(project_schema.project_package.delete().where(is_this))
        return gone


def _joined(actor: str) -> sa.ColumnElement[bool]:
    return sa.and_(_MEMBER.project == _PROJECT.name, _MEMBER.actor == actor)


def _one(connection: sa.Connection, name: str) -> Project:
    found = _projects(connection, name)
    if not found:
        raise NotFound(f"there is no project {name}; `farm project list` shows the projects")
    return found[0]


def _projects(connection: sa.Connection, name: str | None = None) -> tuple[Project, ...]:
    """The project of this name, also if it is removed; without a name all that are not removed."""
    chosen = _PROJECT.removed_at.is_(None) if name is None else _PROJECT.name == name
    members: dict[str, list[Any]] = defaultdict(list)
    asked = sa.select(project_schema.project_member).order_by(_MEMBER.actor)
    for row in connection.execute(asked if name is None else asked.where(_MEMBER.project == name)):
        members[row.project].append(row)
    rows = connection.execute(sa.select(project_schema.project).where(chosen).order_by(_PROJECT.name))
    return tuple(_project(row, members[row.name]) for row in rows)


def _project(row: Any, members: Iterable[Any]) -> Project:
    return Project(
        name=row.name,
        title=row.title,
        targets=columns.decode_names(row.targets),
        builds_on=columns.decode_names(row.builds_on),
        root_packages=columns.decode_names(row.root_packages),
        is_private=row.is_private,
        members=tuple(Member(actor=one.actor, role=Role(one.role)) for one in members),
        created_at=row.created_at,
        created_by=row.created_by,
        removed_at=row.removed_at,
        removed_by=row.removed_by,
    )


def _row(project: Project) -> dict[str, Any]:
    return {
        "name": project.name,
        "title": clean(project.title),
        "targets": columns.to_text(project.targets),
        "builds_on": columns.to_text(project.builds_on),
        "root_packages": columns.to_text(project.root_packages),
        "is_private": project.is_private,
        "created_at": project.created_at,
        "created_by": clean(project.created_by),
        "removed_at": project.removed_at,
        "removed_by": clean(project.removed_by) if project.removed_by is not None else None,
    }


def _package_of(connection: sa.Connection, project: str, name: str) -> ProjectPackage:
    query = sa.select(project_schema.project_package).where(_PACKAGE.project == project, _PACKAGE.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(
            f"the project {project} has no package {name!a}; `farm package list {project}` shows its packages"
        )
    return _package(row)


def _package(row: Any) -> ProjectPackage:
    return ProjectPackage(
        project=row.project,
        name=row.name,
        source=columns.decode_source(row.source),
        arches=columns.decode_arches(row.arches),
        options=columns.decode_options(row.options),
        added_at=row.added_at,
        added_by=row.added_by,
    )


def _package_row(package: ProjectPackage) -> dict[str, Any]:
    return {
        "project": package.project,
        "name": package.name,
        "source": columns.to_text(package.source),
        "arches": columns.to_text(package.arches),
        "options": columns.to_text(package.options),
        "added_at": package.added_at,
        "added_by": clean(package.added_by),
    }
