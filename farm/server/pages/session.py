"""Sessions of people: a cookie that stands for a token of the farm, checked with each request."""

import asyncio
import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig
from litestar.types import ASGIApp, Message, Scope

from farm.errors import NotLoggedIn
from farm.model.actor import Actor
from farm.model.token import Token
from farm.server.entry import client_address
from farm.server.limits import RateLimits
from farm.server.pages.key import key_for
from farm.server.share import account_of, anonymous
from farm.service.service import FarmService
from farm.service.tokens import actor_of, fingerprint

#: Paths that everyone may read.
OPEN = ("^/login$", "^/static/")
_MAX_AGE_S = 30 * 86400
_TOKEN, _PROOF, _SAID = "token", "proof", "said"
_BEFORE = "farm.session_before"


class _SessionCookies(ClientSideSessionBackend):
    """Sets the cookie only where the session has changed. Otherwise the answer to a request from before a logout would
    bring the session back.
    """

    async def load_from_connection(self, connection: ASGIConnection) -> dict[str, Any]:  # type: ignore[type-arg]
        found: dict[str, Any] = {}
        with suppress(Exception):  # any text may be in a cookie
            found = await super().load_from_connection(connection)
        connection.scope[_BEFORE] = copy.deepcopy(found)  # type: ignore[literal-required]
        return found

    async def store_in_message(self, scope_session: Any, message: Message, connection: Any) -> None:
        if scope_session != connection.scope.get(_BEFORE):
            await super().store_in_message(scope_session, message, connection)


@dataclass
class SessionConfig(CookieBackendConfig):
    _backend_class = _SessionCookies


def session_config(key: bytes) -> SessionConfig:
    """HttpOnly and SameSite=Lax; farm.server.pages.shell adds Secure."""
    return SessionConfig(secret=key_for(key, "session"), key="farm-session", max_age=_MAX_AGE_S)


def begin(session: dict[str, Any], token: Token, secret: str) -> None:
    """Let a new session act as the bearer of this token."""
    session.clear()
    session[_TOKEN], session[_PROOF] = token.id, fingerprint(secret)


def say(session: dict[str, Any], words: str) -> None:
    """Show the words on the next page."""
    session[_SAID] = words[:500]


def said(scope: Scope) -> str:
    """The words to show now, once; none for a request without a session."""
    session: Any = scope.get("session")
    return str(session.pop(_SAID, "")) if isinstance(session, dict) else ""


class PageAuthentication(AbstractAuthenticationMiddleware):
    """Finds the actor of a request: `request.user`; `request.auth` is the session's token, None without one.

    Raises NotLoggedIn, TooManyRequests, and NotPermitted for an actor that may not read.
    """

    service: FarmService
    limits: RateLimits
    is_anonymous_allowed: bool

    def __init__(self, app: ASGIApp, *, service: FarmService, limits: RateLimits, is_anonymous_allowed: bool) -> None:
        super().__init__(app, exclude=list(OPEN))
        self.service = service
        self.limits = limits
        self.is_anonymous_allowed = is_anonymous_allowed

    async def authenticate_request(self, connection: ASGIConnection) -> AuthenticationResult:  # type: ignore[type-arg]
        session = connection.session
        number, proof = session.get(_TOKEN), session.get(_PROOF)
        address = client_address(connection)
        if isinstance(number, int) and isinstance(proof, str):
            actor, token = await asyncio.to_thread(self._bearer, number, proof, address)
            return AuthenticationResult(user=actor, auth=token)
        if self.is_anonymous_allowed:
            reader = anonymous(address)
            await asyncio.to_thread(self.limits.request, account_of(reader))
            return AuthenticationResult(user=reader, auth=None)
        raise NotLoggedIn("log in with a token of this farm; `farm token new --role ROLE` makes one")

    def _bearer(self, number: int, proof: str, address: str) -> tuple[Actor, Token]:
        token = self.service.session(number, proof)
        actor = actor_of(token, address)
        self.limits.request(actor.name)
        self.service.admit(actor)
        return actor, token
