"""A project: a named place where builds of one purpose go, with its members and its packages."""

import re
from dataclasses import dataclass, field
from datetime import datetime

from farm.model.actor import Role
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.source import Source

#: The project of builds that name none. Its repositories have the shortest addresses.
DEFAULT_PROJECT = "main"
#: A project's name is a part of paths and of URLs.
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
#: The name of a package in a project.
PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
#: The roles that a member can have.
MEMBER_ROLES = (Role.PACKAGER, Role.MAINTAINER)


def place_of(project: str, target: str) -> str:
    """The target's name; in a project other than the default one with the project before it. No target's name begins
    with `~`, so places of two projects are never the same.

    >>> place_of("main", "demo"), place_of("perl", "demo")
    ('demo', '~perl/demo')
    """
    return target if project == DEFAULT_PROJECT else f"~{project}/{target}"


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
