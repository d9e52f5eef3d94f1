"""The calls about projects of the client on the farm's machine."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, Unpack

from farm.client.projects import ProjectCalls
from farm.model.actor import Actor, Role
from farm.model.project import Project, ProjectChange, ProjectEdit, ProjectPackage
from farm.service.request import PackageArguments
from farm.service.service import FarmService


def change_of(
    *,
    title: str | None,
    targets: Sequence[str] | None,
    builds_on: Sequence[str] | None,
    root_packages: Sequence[str] | None,
    is_private: bool | None,
) -> ProjectChange:
    return ProjectChange(
        title=title,
        targets=tuple(targets) if targets is not None else None,
        builds_on=tuple(builds_on) if builds_on is not None else None,
        root_packages=tuple(root_packages) if root_packages is not None else None,
        is_private=is_private,
    )


class LocalProjects(ProjectCalls, Protocol):
    """The calls, for an actor on the farm's machine."""

    _service: FarmService

    @property
    @abstractmethod
    def actor(self) -> Actor: ...

    def projects(self) -> tuple[Project, ...]:
        return self._service.projects.all(self._asker)

    def project(self, name: str) -> Project:
        return self._service.projects.one(name, self._asker)

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
        change = change_of(
            title=title, targets=targets, builds_on=builds_on, root_packages=root_packages, is_private=is_private
        )
        return self._service.projects.new(self.actor, name, change)

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
        change = change_of(
            title=title, targets=targets, builds_on=builds_on, root_packages=root_packages, is_private=is_private
        )
        return self._service.projects.set(self.actor, name, change)

    def grant(self, project: str, actor: str, role: Role) -> ProjectEdit:
        return self._service.projects.grant(self.actor, project, actor, role)

    def revoke(self, project: str, actor: str) -> ProjectEdit:
        return self._service.projects.revoke(self.actor, project, actor)

    def remove_project(self, name: str) -> ProjectEdit:
        return self._service.projects.remove(self.actor, name)

    def restore_project(self, name: str) -> ProjectEdit:
        return self._service.projects.restore(self.actor, name)

    def packages(self, project: str) -> tuple[ProjectPackage, ...]:
        return self._service.projects.packages(project, self._asker)

    def package(self, project: str, name: str) -> ProjectPackage:
        return self._service.projects.package(project, name, self._asker)

    def add_package(
        self, project: str, name: str, *, replaces: bool = False, **asked: Unpack[PackageArguments]
    ) -> ProjectPackage:
        return self._service.projects.add_package(self.actor, project, name, replaces=replaces, **asked)

    def remove_package(self, project: str, name: str) -> ProjectPackage:
        return self._service.projects.remove_package(self.actor, project, name)

    @property
    @abstractmethod
    def _viewer(self) -> Actor: ...

    @property
    def _asker(self) -> Actor:
        self._service.admit(self._viewer)
        return self._viewer
