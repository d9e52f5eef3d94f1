"""The ASGI application: its routes, its description, and the order in which a request passes through it."""

from contextlib import suppress

from litestar import Litestar, Response, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, Receive, Scope, Send

from farm.config import Settings
from farm.errors import FarmError, FarmNotRunning
from farm.model.version import VERSION
from farm.server.builds import Builds
from farm.server.entry import Authentication, CheckedHost
from farm.server.farm_routes import Accounts, Hosts, Repositories
from farm.server.idempotency import Idempotency
from farm.server.limits import RateLimits
from farm.server.live import LiveEvents, Streams
from farm.server.metrics import Metrics, TimedRequests, metrics
from farm.server.pages.shell import PageHeaders, make_pages
from farm.server.parameters import CheckedRequest, Service
from farm.server.problems import farm_error, http_error, unexpected
from farm.server.projects import Projects
from farm.server.repos import repository_file
from farm.server.share import BoundedRefusals, FairShare
from farm.server.uploads import UploadRoutes
from farm.service.bodies import PREFIX
from farm.service.service import FarmService

#: A batch of ten thousand builds.
BODY_MAX_BYTES = 8 * 2**20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@get("/healthz", sync_to_thread=False, tags=["health"])
def healthz() -> dict[str, str]:
    """Answers while the process serves requests."""
    return {"status": "ok", "version": VERSION}


@get("/readyz", sync_to_thread=True, tags=["health"])
def readyz(service: Service) -> Response[dict[str, bool]]:
    """Answers 200 if the database and the broker answer, else 503."""
    found = {"database": False, "broker": False}
    with suppress(FarmNotRunning):
        service.queue_counts()
        found["database"] = True
    with suppress(FarmNotRunning):
        service.ping()
        found["broker"] = True
    return Response(found, status_code=200 if all(found.values()) else FarmNotRunning.http_status)


def make_api(service: FarmService, live: Streams | None = None) -> Litestar:
    """The routes, without the check of the Host header."""
    streams = live or Streams(service)
    allowed = service.settings.server_anonymous
    limits, figures = RateLimits(service), Metrics(service)
    entry = DefineMiddleware(Authentication, service=service, limits=limits, is_anonymous_allowed=allowed)
    bounded = DefineMiddleware(BoundedRefusals, limits=limits)
    repeatable = DefineMiddleware(Idempotency, service=service, body_max_bytes=BODY_MAX_BYTES)
    return Litestar(
        [
            *(healthz, readyz, metrics, repository_file),
            *(Builds, LiveEvents, Repositories, Hosts, Accounts, Projects, UploadRoutes),
        ],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False, use_cache=True),
            "limits": Provide(lambda: limits, sync_to_thread=False, use_cache=True),
            "figures": Provide(lambda: figures, sync_to_thread=False, use_cache=True),
            "live": Provide(lambda: streams, sync_to_thread=False, use_cache=True),
        },
        middleware=[DefineMiddleware(TimedRequests, metrics=figures), entry, bounded, FairShare, repeatable],
        exception_handlers={FarmError: farm_error, HTTPException: http_error, Exception: unexpected},
        request_class=CheckedRequest,
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=_description(),
        logging_config=None,
        debug=False,
    )


def make_app(service: FarmService, live: Streams) -> ASGIApp:
    """The whole application: the API, and the pages on all other paths. The caller closes the service
    and the streams.

    Raises BadSettings for a key of sessions that cannot be used.
    """
    settings: Settings = service.settings
    return CheckedHost(Split(make_api(service, live), make_pages(service)), (*_LOOPBACK, *settings.server_names))


class Split:
    """Sends a request whose path begins like one of the API to it, with neither session nor cookie, and all others to
    the pages."""

    def __init__(self, api: Litestar, pages: Litestar) -> None:
        self._api = api
        self._pages = PageHeaders(pages)
        self._of_api = frozenset(_first(route.path) for route in api.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._api if _first(scope["path"]) in self._of_api else self._pages
        await app(scope, receive, send)


def _first(path: str) -> str:
    return path.split("/", 2)[1] if "/" in path else path


def _description() -> OpenAPIConfig:
    token = SecurityScheme(type="http", scheme="bearer", description="A token that `farm token new` printed.")
    return OpenAPIConfig(
        title="farm",
        version=VERSION,
        description="Builds packages of a distribution. docs/server.md says how to use it.",
        path=f"{PREFIX}/openapi.json",  # Litestar answers for all paths below it
        components=Components(security_schemes={"token": token}),
        security=[{"token": []}],
        render_plugins=[JsonRenderPlugin(path="/")],
        use_handler_docstrings=True,
    )
