"""The calls about projects that every client has."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, Unpack

from farm.model.actor import Role
from farm.model.project import Project, ProjectEdit, ProjectPackage
from farm.service.request import PackageArguments


class ProjectCalls(Protocol):
    """A private project does not exist for an actor who is neither a member nor an administrator."""

    @abstractmethod
    def projects(self) -> tuple[Project, ...]:
        """The projects by name, without removed ones."""

    @abstractmethod
    def project(self, name: str) -> Project:
        """Also a removed one. Raises NotFound, naming the projects that there are."""

    @abstractmethod
    def new_project(
        self,
        name: str,
        *,
        targets: Sequence[str],
        title: str = "",
        builds_on: Sequence[str] = (),
        root_packages: Sequence[str] = (),
        is_private: bool = False,
    ) -> Project:
        """Raises BadRequest, UnknownTarget, NotFound for an unknown project of `builds_on`, and WrongState for a name
        that a project has or had."""

    @abstractmethod
    def set_project(
        self,
        name: str,
        *,
        title: str | None = None,
        targets: Sequence[str] | None = None,
        builds_on: Sequence[str] | None = None,
        root_packages: Sequence[str] | None = None,
        is_private: bool | None = None,
    ) -> ProjectEdit:
        """Change the settings that are not None. Raises NotFound, BadRequest, also for a circle in `builds_on`,
        UnknownTarget, and WrongState for a removed project."""

    @abstractmethod
    def grant(self, project: str, actor: str, role: Role) -> ProjectEdit:
        """Make an actor a member, or give a member another role. Raises NotFound, WrongState, BadRequest."""

    @abstractmethod
    def revoke(self, project: str, actor: str) -> ProjectEdit:
        """Take a member's role away. Raises NotFound, also for an actor who is no member; WrongState."""

    @abstractmethod
    def remove_project(self, name: str) -> ProjectEdit:
        """Hide a project: it takes no more builds. Its builds, repositories, members and packages stay.

        `restore_project` undoes it. Raises NotFound, BadRequest for the default project, and WrongState while another
        project builds on it.
        """

    @abstractmethod
    def restore_project(self, name: str) -> ProjectEdit:
        """Raises NotFound, and WrongState for a project that is not removed, or that builds on a removed one."""

    @abstractmethod
    def packages(self, project: str) -> tuple[ProjectPackage, ...]:
        """The packages of a project by name. Raises NotFound."""

    @abstractmethod
    def package(self, project: str, name: str) -> ProjectPackage:
        """Raises NotFound."""

    @abstractmethod
    def add_package(
        self, project: str, name: str, *, replaces: bool = False, **asked: Unpack[PackageArguments]
    ) -> ProjectPackage:
        """Keep the arguments of a build under a name. Builds nothing.

        Raises NotFound, BadRequest, BadSource, UnknownArch; WrongState for a name that is there, unless it replaces it.
        """

    @abstractmethod
    def remove_package(self, project: str, name: str) -> ProjectPackage:
        """Returns the package that is gone; its builds and its place in repositories stay. Raises NotFound."""
