"""Pages of targets and of their repositories."""

from litestar import Controller, Response, get
from litestar.params import FromQuery

from farm.errors import FarmError
from farm.model.arch import Arch
from farm.model.target import Target
from farm.repositories import RepositoryKind, RepositoryName, RepositoryVersion
from farm.server.pages.render import PageRequest, page
from farm.server.parameters import MaybeId, MaybeText, Name, Service, Text
from farm.service.service import FarmService

_PACKAGES_SHOWN = 200


class RepositoryPages(Controller):
    """The paths below `/targets` and `/repositories`."""

    @get("/targets", sync_to_thread=True)
    def targets(self, request: PageRequest, service: Service) -> Response[bytes]:
        targets, problem = _targets(service)
        return page(request, "targets", title="Targets", at="targets", targets=targets, problem=problem)

    @get("/targets/{name:str}", sync_to_thread=True)
    def target(self, request: PageRequest, service: Service, name: Name) -> Response[bytes]:
        target = service.target(name)
        return page(request, "target", title=target.name, at="targets", target=target)

    @get("/repositories", sync_to_thread=True)
    def repositories(self, request: PageRequest, service: Service) -> Response[bytes]:
        targets, problem = _targets(service)
        published = service.insight.published()
        found = [
            (target, arch, published.get(_path(target, arch))) for target in targets.values() for arch in target.arches
        ]
        found.sort(key=lambda one: one[2] is None)  # repositories with packages come first
        return page(
            request, "repositories", title="Repositories", at="repositories", repositories=found, problem=problem
        )

    @get("/repositories/{target:str}", sync_to_thread=True)
    def repository(
        self,
        request: PageRequest,
        service: Service,
        target: Name,
        arch: FromQuery[Arch | None] = None,
        kind: Text = "os",
        version: MaybeId = None,
        q: MaybeText = None,
    ) -> Response[bytes]:
        described = service.repository(target, arch)
        name = service.repository_name(target, described.arch, kind=kind)
        versions = service.repository_versions(name)
        shown = version if version is not None else next((one.number for one in versions if one.is_current), 0)
        packages = service.insight.packages_of(name, shown)
        wanted = [one for one in packages if (q or "").lower() in one.filename.lower()]
        return page(
            request,
            "repository",
            title=f"{target} {described.arch}",
            at="repositories",
            target=service.target(target),
            repository=described,
            kind=kind,
            q=q,
            versions=_newest_first(versions),
            shown=shown,
            packages=wanted[:_PACKAGES_SHOWN],
            found=len(wanted),
            total=len(packages),
        )


def _path(target: Target, arch: Arch) -> str:
    name = RepositoryName(target=target.name, kind=RepositoryKind.BINARY, arch=arch, format=target.format)
    return name.path


def _newest_first(versions: tuple[RepositoryVersion, ...]) -> list[RepositoryVersion]:
    return sorted(versions, key=lambda one: -one.number)


def _targets(service: FarmService) -> tuple[dict[str, Target], str]:
    """The targets, and the error of the first file that is not valid."""
    try:
        return dict(sorted(service.targets().items())), ""
    except FarmError as error:
        return {}, str(error)
