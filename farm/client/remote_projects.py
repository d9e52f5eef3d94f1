"""The calls about projects at a farm's server."""

from collections.abc import Sequence
from typing import Protocol, Unpack

from farm.client.http import HttpClient
from farm.client.projects import ProjectCalls
from farm.model.actor import Role
from farm.model.project import Project, ProjectEdit, ProjectPackage
from farm.service.bodies import GrantOrder, NewPackageOrder, NewProjectOrder, ProjectOrder
from farm.service.orders import package_order
from farm.service.request import PackageArguments


class RemoteProjects(ProjectCalls, Protocol):
    """The calls for the actor of a token."""

    _http: HttpClient

    def projects(self) -> tuple[Project, ...]:
        return tuple(self._http.get(list[Project], "projects"))

    def project(self, name: str) -> Project:
        return self._http.get(Project, "projects", name)

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
        body = NewProjectOrder(
            name=name,
            title=title,
            targets=tuple(targets),
            builds_on=tuple(builds_on),
            root_packages=tuple(root_packages),
            is_private=is_private,
        )
        return self._http.post(Project, "projects", body=body)

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
        body = ProjectOrder(
            title=title,
            targets=tuple(targets) if targets is not None else None,
            builds_on=tuple(builds_on) if builds_on is not None else None,
            root_packages=tuple(root_packages) if root_packages is not None else None,
            is_private=is_private,
        )
        return self._http.post(ProjectEdit, "projects", name, "settings", body=body)

    def grant(self, project: str, actor: str, role: Role) -> ProjectEdit:
        return self._http.post(ProjectEdit, "projects", project, "members", body=GrantOrder(actor=actor, role=role))

    def revoke(self, project: str, actor: str) -> ProjectEdit:
        return self._http.post(ProjectEdit, "projects", project, "members", body=GrantOrder(actor=actor, role=None))

    def remove_project(self, name: str) -> ProjectEdit:
        return self._http.post(ProjectEdit, "projects", name, "remove")

    def restore_project(self, name: str) -> ProjectEdit:
        return self._http.post(ProjectEdit, "projects", name, "restore")

    def packages(self, project: str) -> tuple[ProjectPackage, ...]:
        return tuple(self._http.get(list[ProjectPackage], "projects", project, "packages"))

    def package(self, project: str, name: str) -> ProjectPackage:
        return self._http.get(ProjectPackage, "projects", project, "packages", name)

    def add_package(
        self, project: str, name: str, *, replaces: bool = False, **asked: Unpack[PackageArguments]
    ) -> ProjectPackage:
        body = package_order(asked, NewPackageOrder, name=name, replaces=replaces)
        return self._http.post(ProjectPackage, "projects", project, "packages", body=body)

    def remove_package(self, project: str, name: str) -> ProjectPackage:
        return self._http.post(ProjectPackage, "projects", project, "packages", name, "remove")
