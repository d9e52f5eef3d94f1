"""Directory repositories for package managers, at `/repos/…`: the same files as a web server over the folder has."""

from dataclasses import replace
from typing import Annotated, Any

from litestar import HttpMethod, Response, route
from litestar.params import PathParameter

from farm.config import DIRECTORY
from farm.errors import NotFound
from farm.model.place import DEFAULT_PROJECT
from farm.repositories import RepositoryVersion
from farm.repositories.published import PublishedFile, find_published, missing, project_of, public_url
from farm.server.files import Content, answer
from farm.server.parameters import ActorRequest, Service
from farm.service.repository import Repository, Rollback
from farm.service.service import FarmService

REPOS = "/repos"
_FOREVER = "max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


@route(
    f"{REPOS}/{{path:path}}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    sync_to_thread=True,
    media_type="application/octet-stream",
    tags=["repositories"],
    status_code=200,
)
def repository_file(service: Service, request: ActorRequest, path: Annotated[str, PathParameter()]) -> Response[Any]:
    """A file of a directory repository: metadata, or a package. A part of it with `Range`.

    A token is also taken as the password of HTTP's Basic scheme, which package managers send.
    """
    if service.settings.repositories != DIRECTORY:
        raise NotFound("this farm's repositories are not served here; `farm repo TARGET` shows their addresses")
    name = str(path).removeprefix("/")
    project = project_of(name)
    if project != DEFAULT_PROJECT and not service.projects.places.sees(request.user, project):
        raise missing(name)
    found = find_published(service.settings.repositories_dir, name)
    is_open = project == DEFAULT_PROJECT or service.projects.places.sees(None, project)
    whom = "public" if service.settings.server_anonymous and is_open else "private"
    kept = _FOREVER if found.sha256 is not None else _ASK_FIRST
    content = Content(
        size_bytes=found.size_bytes,
        tag=found.tag,
        read=lambda offset, size: _read(found, offset, size),
        sha256=found.sha256,
        headers={"cache-control": f"{whom}, {kept}"},
    )
    return answer(request, content)


def _read(found: PublishedFile, offset: int, size: int) -> bytes:
    with found.path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


class Addresses:
    """The addresses of repositories as the client of a request reaches them."""

    def __init__(self, service: FarmService, request: ActorRequest) -> None:
        self._root = service.settings.repositories_dir
        self._address = f"{str(request.base_url).rstrip('/')}{REPOS}"

    def _url(self, url: str) -> str:
        return public_url(url, self._root, self._address)

    def repository(self, found: Repository) -> Repository:
        return replace(
            found,
            baseurl=self._url(found.baseurl),
            debug_url=self._url(found.debug_url),
            source_url=self._url(found.source_url),
        )

    def version(self, found: RepositoryVersion) -> RepositoryVersion:
        return replace(found, url=self._url(found.url))

    def rollback(self, done: Rollback) -> Rollback:
        return replace(done, before=self.version(done.before), after=self.version(done.after))
