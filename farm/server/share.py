"""A bound on the requests of one actor that run at once, so that the threads of the server are left for others."""

import asyncio
from collections import Counter

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import TooManyRequests

#: The threads of the server: those of authentication and of handlers.
THREADS = 16
#: Fewer than THREADS, and than the connections of the pool of the database.
_OF_ONE_ACTOR = 4
#: More waiting requests of one actor would take the connections of others.
_WAITING_MAX = 32


class FairShare:
    """Lets this number of one actor's requests run; the others wait. Stands behind the authentication.

    A request counts until its answer begins, so downloads do not. Raises TooManyRequests when too many wait.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shares: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        actor = scope.get("user")
        if actor is None:  # a path that takes no token
            await self._app(scope, receive, send)
            return
        share = self._shares.setdefault(actor.name, asyncio.Semaphore(_OF_ONE_ACTOR))
        if self._waiting[actor.name] >= _WAITING_MAX:
            raise TooManyRequests(f"{_WAITING_MAX} requests of {actor.name} wait already; send fewer at once")
        self._waiting[actor.name] += 1
        try:
            await share.acquire()
        finally:
            self._waiting[actor.name] -= 1
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
