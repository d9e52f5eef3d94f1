"""A project: a named place where builds of one purpose go, with its members and its packages."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from farm.model.actor import Role
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.source import Source

#: A project's name is a part of paths and of URLs.
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
#: The name of a package in a project.
PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
#: The roles that a member can have.
MEMBER_ROLES = (Role.PACKAGER, Role.MAINTAINER)


@dataclass(frozen=True, kw_only=True)
class Member:
    """An actor with a role in a project."""

    actor: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class Project:
    """`targets` are those that it builds for; the default project, with none, builds for all. Its roots see its own
    repositories, then those of `builds_on` in this order. `root_packages` are names of packages that the roots
    themselves get from the project's own repository, where they otherwise come from the target.

    `is_private` hides it from all but its members. A removed project has `removed_at`, and takes no builds.
    """

    name: str
    title: str = ""
    targets: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()
    root_packages: tuple[str, ...] = ()
    is_private: bool = False
    members: tuple[Member, ...] = ()
    created_at: datetime
    created_by: str
    removed_at: datetime | None = None
    removed_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProjectChange:
    """New values for settings of a project; None for a setting that stays as it is."""

    title: str | None = None
    targets: tuple[str, ...] | None = None
    builds_on: tuple[str, ...] | None = None
    root_packages: tuple[str, ...] | None = None
    is_private: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        return {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class ProjectEdit:
    """A change of a project or of its members: the project as it was, which says how to undo it, and as it is."""

    before: Project
    after: Project


@dataclass(frozen=True, kw_only=True)
class ProjectPackage:
    """A package of a project: the arguments with which it is built. The source has a URL, or a path of the farm's
    machine, and no credentials. No arches means all arches of the target.
    """

    project: str
    name: str
    source: Source
    arches: tuple[Arch, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    added_at: datetime
    added_by: str
