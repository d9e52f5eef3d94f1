"""Pages of people: login and logout, their own builds, tokens, and the audit log."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import QueryParameter
from litestar.response import Redirect

from farm.errors import BadRequest, NotLoggedIn, NotPermitted
from farm.model.actor import Role
from farm.model.history import BuildQuery
from farm.model.token import EXPIRES_DEFAULT, EXPIRES_MAX, Token
from farm.server.entry import client_address
from farm.server.limits import RateLimits
from farm.server.pages import session
from farm.server.pages.forms import Fields, Form, local_path
from farm.server.pages.render import PageRequest, page
from farm.server.parameters import Id, Limits, MaybeId, MaybeText, Service
from farm.service.audit import parse_since
from farm.service.permissions import Verb
from farm.service.service import FarmService
from farm.service.tokens import actor_of

_SHOWN = 50
_Word = Annotated[str | None, QueryParameter(max_length=300)]
_DAYS_MAX = EXPIRES_MAX.days


class AccountPages(Controller):
    """Login, logout, `/me`, `/tokens` and `/audit`."""

    @get("/login", sync_to_thread=True)
    def login_page(self, request: PageRequest, next: MaybeText = None) -> Response[bytes]:  # noqa: A002 - its name in the address
        return _login(request, local_path(next or "/"))

    @post("/login", status_code=200)
    async def login(self, request: PageRequest, service: Service, limits: Limits, data: Fields) -> Response[Any]:
        form, address = Form(data), client_address(request)
        secret, after = form.text("token"), local_path(form.text("next") or "/")
        try:
            token = await asyncio.to_thread(_admitted, service, limits, secret, address)
        except NotLoggedIn as error:
            await limits.failed_login(address)
            return _login(request, after, str(error), status=error.http_status)
        except NotPermitted as error:
            return _login(request, after, str(error), status=error.http_status)
        session.begin(request.session, token, secret)
        return Redirect(after, status_code=303)

    @post("/logout", sync_to_thread=False, status_code=303)
    def logout(self, request: PageRequest) -> Redirect:
        request.session.clear()
        return Redirect("/login", status_code=303)

    @get("/me", sync_to_thread=True)
    def mine(self, request: PageRequest, service: Service, before: MaybeId = None) -> Response[bytes]:
        name = request.user.name
        builds, more = service.insight.find_builds(request.user, BuildQuery(owner=name), limit=_SHOWN, before=before)
        return page(request, "mine", title="My work", at="me", builds=builds, more=more, before=before)

    @get("/tokens", sync_to_thread=True)
    def tokens(self, request: PageRequest, service: Service) -> Response[bytes]:
        return _tokens(request, service)

    @post("/tokens", sync_to_thread=True, status_code=200)
    def new_token(self, request: PageRequest, service: Service, data: Fields) -> Response[bytes]:
        form = Form(data)
        try:
            days = form.number("days", EXPIRES_DEFAULT.days) or 0
            made = service.new_token(
                request.user,
                name=form.text("name"),
                roles=[_role(word) for word in form.many("role")],
                bearer=form.maybe("bearer"),
                expires=timedelta(days=max(-1, min(days, _DAYS_MAX + 1))),
            )
        except BadRequest as error:
            return _tokens(request, service, problem=str(error), form=form, status=error.http_status)
        return _tokens(request, service, made=made)

    @post("/tokens/{token_id:int}/revoke", sync_to_thread=True, status_code=303)
    def revoke(self, request: PageRequest, service: Service, token_id: Id) -> Redirect:
        service.revoke_token(request.user, token_id)
        session.say(request.session, f"Token {token_id} is revoked.")
        return Redirect("/tokens", status_code=303)

    @get("/audit", sync_to_thread=True)
    def audit(
        self,
        request: PageRequest,
        service: Service,
        by: _Word = None,
        verb: _Word = None,
        since: _Word = None,
        before: MaybeId = None,
    ) -> Response[bytes]:
        at = parse_since(since) if since else None
        found = service.audit(request.user, by=by or None, verb=verb or None, since=at, limit=_SHOWN, before=before)
        return page(
            request,
            "audit",
            title="Audit log",
            at="audit",
            records=found,
            more=found[-1].id if len(found) == _SHOWN else None,
            before=before,
            given={"by": by, "verb": verb, "since": since},
            verbs=sorted(one.word for one in Verb if one.changes),
        )


def _admitted(service: FarmService, limits: RateLimits, secret: str, address: str) -> Token:
    """Raises NotLoggedIn, NotPermitted, and TooManyRequests after too many wrong tokens from this address."""
    limits.login(address, secret)
    token = service.bearer(secret)
    limits.note_login(secret)
    service.admit(actor_of(token, address))
    return token


def _role(word: str) -> Role:
    try:
        return Role(word)
    except ValueError as error:
        raise BadRequest(f"{word[:80]!r} is not a role; the roles are {', '.join(Role)}") from error


def _login(request: PageRequest, after: str, problem: str = "", status: int = 200) -> Response[bytes]:
    return page(request, "login", title="Log in", after=after, problem=problem, status=status)


def _tokens(request: PageRequest, service: FarmService, status: int = 200, **values: Any) -> Response[bytes]:
    given = {"made": None, "problem": "", "form": Form({})} | values
    tokens = sorted(service.tokens(request.user), key=lambda one: -one.id)
    return page(
        request,
        "tokens",
        title="Tokens",
        at="tokens",
        status=status,
        tokens=tokens[:_SHOWN_TOKENS],
        left_out=max(0, len(tokens) - _SHOWN_TOKENS),
        now=datetime.now(UTC),
        roles=list(Role),
        **given,
    )


_SHOWN_TOKENS = 200
