"""The entry of each request: the check of its Host header, and the actor that its token stands for."""

import asyncio
from base64 import b64decode
from collections.abc import Collection
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import BadRequest, NotLoggedIn, NotPermitted
from farm.model.actor import Actor
from farm.model.text import clip, printable
from farm.model.token import Token
from farm.server.limits import RateLimits
from farm.server.problems import PROBLEM_JSON, body_of, problem_of
from farm.server.repos import REPOS
from farm.server.share import account_of, anonymous
from farm.service.bodies import PREFIX
from farm.service.service import FarmService
from farm.service.tokens import actor_of

#: Read by everyone: they have nothing of the farm's content.
OPEN_PATHS = ("/healthz", "/readyz", f"{PREFIX}/openapi.json")
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_SHOWN_MAX = 100


class CheckedHost:
    """Refuses a request for a host that is not this server, and adds headers to each answer.

    Without the check, a page that a person looks at could reach a farm on that person's machine by a name of its own.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in _HEADERS if one[0] not in given)]
            await send(message)

        if scope["type"] == ScopeType.HTTP and self._is_for_this(scope):
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == ScopeType.HTTP:
            await _refuse(scope, send_with_headers)

    def _is_for_this(self, scope: Scope) -> bool:
        named = [value for name, value in scope["headers"] if name == b"host"]
        return len(named) == 1 and _host_of(named[0]) in self._hosts


def _host_of(header: bytes) -> str:
    try:
        return (urlsplit(f"//{header.decode('ascii')}").hostname or "").lower()
    except ValueError:  # UnicodeDecodeError too
        return ""


async def _refuse(scope: Scope, send: Send) -> None:
    named = b", ".join(value for name, value in scope["headers"] if name == b"host")
    shown = clip(printable(named), _SHOWN_MAX)
    error = BadRequest(f"this server is not {shown!r}; use its address, or add the name to FARM_SERVER_HOSTS")
    problem = problem_of(error, field="Host")
    headers = [(b"content-type", PROBLEM_JSON.encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body_of(problem), "more_body": False})


class Authentication(AbstractAuthenticationMiddleware):
    """Finds the actor of a request, `request.user`, and its token, `request.auth`.

    Raises NotLoggedIn, and NotPermitted for one that may not read.
    """

    service: FarmService
    limits: RateLimits
    is_anonymous_allowed: bool

    def __init__(self, app: ASGIApp, *, service: FarmService, limits: RateLimits, is_anonymous_allowed: bool) -> None:
        super().__init__(app, exclude=[f"^{path}$" for path in OPEN_PATHS])
        self.service = service
        self.limits = limits
        self.is_anonymous_allowed = is_anonymous_allowed

    async def authenticate_request(self, connection: ASGIConnection) -> AuthenticationResult:  # type: ignore[type-arg]
        given = connection.headers.getall("authorization", [])
        address = client_address(connection)
        # A package manager asks for thousands of small files at once.
        is_of_repository = connection.scope["path"].startswith(f"{REPOS}/")
        if not given and self.is_anonymous_allowed:
            if connection.scope.get("method") not in ("GET", "HEAD"):  # before its body is read
                raise NotPermitted("a client without a token may read alone; send `Authorization: Bearer TOKEN`")
            reader = anonymous(address)
            if not is_of_repository:
                await asyncio.to_thread(self.limits.request, account_of(reader))
            return AuthenticationResult(user=reader, auth=None)
        scheme, _, secret = (given[0] if len(given) == 1 else "").partition(" ")
        if scheme.lower() == "basic" and is_of_repository:
            scheme, secret = "bearer", _password(secret)
        if scheme.lower() != "bearer":
            raise NotLoggedIn(
                "the request has no token; send `Authorization: Bearer TOKEN` (`farm token new` makes one)"
            )
        try:
            actor, token = await asyncio.to_thread(
                self._actor, secret.strip(), address, is_limited=not is_of_repository
            )
        except NotLoggedIn:
            await self.limits.failed_login(address)
            raise
        return AuthenticationResult(user=actor, auth=token)

    def _actor(self, secret: str, address: str, *, is_limited: bool) -> tuple[Actor, Token]:
        self.limits.login(address, secret)
        token = self.service.bearer(secret)
        actor = actor_of(token, address)
        self.limits.note_login(secret)
        if is_limited:
            self.limits.request(actor.name)
        self.service.admit(actor)
        return actor, token


def client_address(connection: ASGIConnection) -> str:  # type: ignore[type-arg]
    """The client's address; that of a proxy, unless FARM_SERVER_PROXIES has it."""
    return connection.client.host if connection.client else "unknown"


def _password(given: str) -> str:
    """The password of Basic credentials; empty if they are none. A package manager has a token there."""
    try:
        return b64decode(given.strip(), validate=True).decode().partition(":")[2]
    except ValueError:  # UnicodeDecodeError too
        return ""
