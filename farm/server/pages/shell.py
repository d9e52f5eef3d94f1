"""The application of the pages: its routes, errors as pages, and the headers of each answer."""

from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.config.csrf import CSRFConfig
from litestar.datastructures import FormMultiDict
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.response import Redirect
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import BadRequest, FarmError, NotFound, NotLoggedIn
from farm.server.limits import RateLimits
from farm.server.pages import session
from farm.server.pages.accounts import AccountPages
from farm.server.pages.build import BuildPages
from farm.server.pages.builds import ListPages
from farm.server.pages.hosts import HostPages
from farm.server.pages.key import key_for, server_key
from farm.server.pages.logs import LogPages
from farm.server.pages.overview import OverviewPages
from farm.server.pages.render import ENGINE, STATIC, STATIC_VERSION, page
from farm.server.pages.repositories import RepositoryPages
from farm.server.parameters import CheckedRequest, Name
from farm.server.problems import farm_error, http_error, problem_of, unexpected
from farm.server.share import BoundedRefusals, FairShare
from farm.service.bodies import Problem
from farm.service.service import FarmService

_FORM_MAX_BYTES = 2**18
_FORM = "application/x-www-form-urlencoded"
_LOOPBACK = (b"localhost", b"127.0.0.1", b"[::1]")
#: No page has a script or a style of its own, and none is shown inside another site.
_POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class _PageRequest(CheckedRequest):
    """A request whose texts are such that Litestar's check of forms can compare them."""

    @property
    def cookies(self) -> dict[str, str]:
        return {name: value for name, value in super().cookies.items() if value.isascii()}

    async def form(self) -> FormMultiDict:
        """Raises BadRequest for a form that no page sends."""
        if self.content_type[0] != _FORM:
            raise BadRequest(f"a form is sent as {_FORM}; use the page's own")
        try:
            found = await super().form()
        except UnicodeError as error:
            raise BadRequest("the form is not UTF-8; use the page's own") from error
        if not str(found.get("_csrf_token", "")).isascii():
            raise BadRequest("the form is not one of this server's pages; load the page again")
        return found


@get("/static/{version:str}/{name:str}", sync_to_thread=False)
def static(version: Name, name: Name) -> Response[bytes]:
    """The stylesheet, the scripts and the symbols."""
    if name not in STATIC:
        raise NotFound(f"there is no file {name[:80]!r}")
    data, kind = STATIC[name]
    kept = "public, max-age=31536000, immutable" if version == STATIC_VERSION else "no-cache"
    return Response(data, media_type=kind, headers={"cache-control": kept})


def make_pages(service: FarmService) -> Litestar:
    """The routes of the pages. Raises BadSettings without a usable key."""
    key = server_key(service.settings)
    allowed, limits = service.settings.server_anonymous, RateLimits(service)
    entry = DefineMiddleware(session.PageAuthentication, service=service, limits=limits, is_anonymous_allowed=allowed)
    bounded = DefineMiddleware(BoundedRefusals, limits=limits)
    return Litestar(
        [static, AccountPages, OverviewPages, ListPages, BuildPages, LogPages, HostPages, RepositoryPages],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False, use_cache=True),
            "limits": Provide(lambda: limits, sync_to_thread=False, use_cache=True),
        },
        middleware=[session.session_config(key).middleware, entry, bounded, FairShare],
        csrf_config=CSRFConfig(
            secret=key_for(key, "forms").hex(), cookie_name="farm-form", cookie_httponly=True, cookie_samesite="lax"
        ),
        exception_handlers={FarmError: _farm_error, HTTPException: _http_error, Exception: _unexpected},
        request_class=_PageRequest,
        request_max_body_size=_FORM_MAX_BYTES,
        openapi_config=None,
        template_config=None,
        logging_config=None,
        debug=False,
    )


class PageHeaders:
    """Adds the policies of a page to each answer, and Secure to each cookie unless the client is on this machine.

    The server itself speaks plain HTTP, and docs/server.md has a proxy with TLS before it for everything else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A form of a page has its token in itself.
        scope["headers"] = [one for one in scope["headers"] if one[0] != b"x-csrftoken"]
        is_secure = scope["scheme"] == "https" or not _is_of_loopback(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in _HEADERS}
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in own]
                message["headers"] = [*((n, _cookie(n, v, is_secure)) for n, v in kept), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_of_loopback(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").lower()
    name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
    return name in _LOOPBACK and headers.get(b"x-forwarded-proto", b"http") != b"https"


def _cookie(name: bytes, value: bytes, is_secure: bool) -> bytes:
    if name.lower() == b"set-cookie" and is_secure and b"; secure" not in value.lower():
        return value + b"; Secure"
    return value


# --- errors -----------------------------------------------------------------------------------------------------


def _farm_error(request: Request[Any, Any, Any], error: FarmError) -> Response[Any]:
    if isinstance(error, NotLoggedIn):
        return _to_login(request, error)
    return _as_page(request, problem_of(error), farm_error(request, error))


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    answer = http_error(request, error)
    if error.status_code == 403:
        problem = problem_of(
            BadRequest("the form is too old, or of another site; go back, load the page again, repeat")
        )
        return _as_page(request, _with_status(problem, 403), answer)
    return _as_page(request, _with_status(problem_of(BadRequest(_detail(error, request))), error.status_code), answer)


def _detail(error: HTTPException, request: Request[Any, Any, Any]) -> str:
    if error.status_code == 404:
        return f"there is no page {request.scope['path'][:200]}; the navigation has the pages that there are"
    if error.status_code == 413:
        return "the form is too large; send less"
    extra = error.extra if isinstance(error.extra, list) else []
    first = next((one for one in extra if isinstance(one, dict)), {})
    return f"{first.get('key', 'the request')}: {first.get('message') or error.detail}; correct it"


def _with_status(problem: Problem, status: int) -> Problem:
    titles = {404: "This page does not exist", 403: "This form was not accepted"}
    return Problem(
        type=problem.type,
        title=titles.get(status, problem.title),
        status=status,
        detail=problem.detail,
        code=problem.code,
    )


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    answer = unexpected(request, error)
    problem = Problem(
        type="", title="The farm has a fault", status=500, detail="the server's log has it; please report it", code=""
    )
    return _as_page(request, problem, answer)


def _wants_page(request: Request[Any, Any, Any]) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _as_page(request: Request[Any, Any, Any], problem: Problem, answer: Response[bytes]) -> Response[Any]:
    """A page for a browser, and the same answer as of the API for every other client."""
    if not _wants_page(request):
        return answer
    return page(request, "error", title=problem.title, status=problem.status, problem=problem)


def _to_login(request: Request[Any, Any, Any], error: NotLoggedIn) -> Response[Any]:
    if "session" in request.scope:
        request.session.clear()
    if not _wants_page(request):
        return farm_error(request, error)
    query = f"?{request.url.query}" if request.url.query else ""
    after = f"{request.scope['path']}{query}" if request.method == "GET" else "/"
    address: Any = ENGINE.engine.globals["url"]
    return Redirect(address("login", next=None if after == "/" else after), status_code=303)
