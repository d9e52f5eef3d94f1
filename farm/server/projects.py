"""Routes of projects, their members and their packages."""

from litestar import Controller, get, post
from litestar.params import JSONBody

from farm.model.project import Project, ProjectChange, ProjectEdit, ProjectPackage
from farm.server.parameters import ActorRequest, Name, Service
from farm.service.bodies import PREFIX, GrantOrder, NewPackageOrder, NewProjectOrder, ProjectOrder


class Projects(Controller):
    """The routes below `/projects`."""

    path = f"{PREFIX}/projects"
    tags = ("projects",)

    @get("/", sync_to_thread=True)
    def projects(self, service: Service, request: ActorRequest) -> tuple[Project, ...]:
        """The projects by name, without removed ones."""
        return service.projects.all(request.user)

    @post("/", sync_to_thread=True)
    def new(self, service: Service, request: ActorRequest, data: JSONBody[NewProjectOrder]) -> Project:
        """Make a project."""
        change = ProjectChange(
            title=data.title,
            targets=data.targets,
            builds_on=data.builds_on,
            root_packages=data.root_packages,
            is_private=data.is_private,
        )
        return service.projects.new(request.user, data.name, change)

    @get("/{project:str}", sync_to_thread=True)
    def project(self, service: Service, request: ActorRequest, project: Name) -> Project:
        """A project, also a removed one."""
        return service.projects.one(project, request.user)

    @post("/{project:str}/settings", sync_to_thread=True, status_code=200)
    def set(self, service: Service, request: ActorRequest, project: Name, data: JSONBody[ProjectOrder]) -> ProjectEdit:
        """Change the settings that are not null."""
        change = ProjectChange(
            title=data.title,
            targets=data.targets,
            builds_on=data.builds_on,
            root_packages=data.root_packages,
            is_private=data.is_private,
        )
        return service.projects.set(request.user, project, change)

    @post("/{project:str}/members", sync_to_thread=True, status_code=200)
    def grant(self, service: Service, request: ActorRequest, project: Name, data: JSONBody[GrantOrder]) -> ProjectEdit:
        """Give an actor a role in the project, or with a null role take it away."""
        if data.role is None:
            return service.projects.revoke(request.user, project, data.actor)
        return service.projects.grant(request.user, project, data.actor, data.role)

    @post("/{project:str}/remove", sync_to_thread=True, status_code=200)
    def remove(self, service: Service, request: ActorRequest, project: Name) -> ProjectEdit:
        """Hide a project, which takes no more builds."""
        return service.projects.remove(request.user, project)

    @post("/{project:str}/restore", sync_to_thread=True, status_code=200)
    def restore(self, service: Service, request: ActorRequest, project: Name) -> ProjectEdit:
        """Bring a removed project back."""
        return service.projects.restore(request.user, project)

    @get("/{project:str}/packages", sync_to_thread=True)
    def packages(self, service: Service, request: ActorRequest, project: Name) -> tuple[ProjectPackage, ...]:
        """The packages of a project by name."""
        return service.projects.packages(project, request.user)

    @post("/{project:str}/packages", sync_to_thread=True)
    def add_package(
        self, service: Service, request: ActorRequest, project: Name, data: JSONBody[NewPackageOrder]
    ) -> ProjectPackage:
        """Keep the arguments of a build under a name."""
        return service.projects.add_package(request.user, project, data.name, replaces=data.replaces, **data.arguments)

    @get("/{project:str}/packages/{package:str}", sync_to_thread=True)
    def package(self, service: Service, request: ActorRequest, project: Name, package: Name) -> ProjectPackage:
        """A package of a project."""
        return service.projects.package(project, package, request.user)

    @post("/{project:str}/packages/{package:str}/remove", sync_to_thread=True, status_code=200)
    def remove_package(self, service: Service, request: ActorRequest, project: Name, package: Name) -> ProjectPackage:
        """Remove a package from a project. The answer is the package that is gone."""
        return service.projects.remove_package(request.user, project, package)
