"""Bounds on the requests of one account: those that run at once, so that the threads of the server are left for others,
and those that are refused, so that the database is not filled with records of them.
"""

import asyncio
from collections import Counter

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import FarmError, TooManyRequests
from farm.model.actor import Actor, Role
from farm.server.limits import RateLimits

#: The threads of the server: those of authentication and of handlers.
THREADS = 16
#: Fewer than THREADS, and than the connections of the pool of the database.
_OF_ONE_ACTOR = 4
#: More waiting requests of one actor would take the connections of others.
_WAITING_MAX = 32


_ANONYMOUS = "anonymous"
_READING = ("GET", "HEAD")
_REFUSED, _FAILED = 400, 500


def anonymous(address: str) -> Actor:
    """A client without a token, where the farm allows that."""
    return Actor(name=_ANONYMOUS, roles=frozenset({Role.READER}), origin=address)


def account_of(actor: Actor) -> str:
    """The name under which requests are counted: clients without a token share none, but that of their address."""
    return f"{_ANONYMOUS} at {actor.origin}" if actor.name == _ANONYMOUS else actor.name


class BoundedRefusals:
    """Counts the requests for a change that are refused. Stands behind the authentication. Raises TooManyRequests."""

    def __init__(self, app: ASGIApp, *, limits: RateLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        actor = scope.get("user")
        if actor is None or scope.get("method") in _READING:
            await self._app(scope, receive, send)
            return
        await asyncio.to_thread(self._limits.refusals, account_of(actor))
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        except FarmError as error:
            status = error.http_status
            raise
        finally:
            if _REFUSED <= status < _FAILED and status != TooManyRequests.http_status:
                await asyncio.to_thread(self._limits.refusals, account_of(actor), 1)


class FairShare:
    """Lets this number of one actor's requests run; the others wait. Stands behind the authentication.

    A request counts until its answer begins, so downloads do not. Raises TooManyRequests when too many wait.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shares: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        actor = scope.get("user")
        if actor is None:  # a path that takes no token
            await self._app(scope, receive, send)
            return
        who = account_of(actor)
        self._open[who] += 1
        try:
            await self._shared(who, scope, receive, send)
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who], self._shares[who], self._waiting[who]

    async def _shared(self, who: str, scope: Scope, receive: Receive, send: Send) -> None:
        share = self._shares.setdefault(who, asyncio.Semaphore(_OF_ONE_ACTOR))
        if self._waiting[who] >= _WAITING_MAX:
            raise TooManyRequests(f"{_WAITING_MAX} requests of {who} wait already; send fewer at once")
        self._waiting[who] += 1
        try:
            await share.acquire()
        finally:
            self._waiting[who] -= 1
        is_held = True

        async def send_without_share(message: Message) -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                share.release()
            await send(message)

        try:
            await self._app(scope, receive, send_without_share)
        finally:
            if is_held:
                share.release()
