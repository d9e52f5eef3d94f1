"""Requests that a client may repeat: a POST with a key runs once, and each repetition gets the first answer."""

import asyncio
import hashlib
import re
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from litestar.types import ASGIApp, HTTPResponseBodyEvent, HTTPResponseStartEvent, Message, Receive, Scope, Send

from farm.errors import BadRequest, InProgress, KeyReused, TooLarge, TooManyRequests, WrongState
from farm.model.answer import KeptAnswer
from farm.service.bodies import KEY_HEADER
from farm.service.service import FarmService

KEPT = timedelta(hours=24)
#: A route with this option has an answer that is kept nowhere.
UNKEPT_OPTION = "answer_is_not_kept"
_KEY = re.compile(r"[!-~]{1,100}")
_REFUSED, _FAILED = 400, 500
#: A request that takes longer ended with its server.
_LONGEST = timedelta(minutes=10)


class Idempotency:
    """Stands behind the authentication: a key is its actor's own.

    An answer with a status of 500 or more, or 429, is not kept, and the key may be used again. Raises BadRequest,
    KeyReused, InProgress and WrongState.
    """

    def __init__(self, app: ASGIApp, *, service: FarmService, body_max_bytes: int) -> None:
        self._app = app
        self._service = service
        self._body_max = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        actor = scope.get("user")
        keys = [value for name, value in scope.get("headers", []) if name == KEY_HEADER.encode()]
        if actor is None or scope.get("method") != "POST" or not keys:
            await self._app(scope, receive, send)
            return
        key = keys[0].decode("latin-1")
        if len(keys) > 1 or not _KEY.fullmatch(key):
            raise BadRequest("the header Idempotency-Key has 1 to 100 printable ASCII characters, and stands once")
        body = await _read(receive, self._body_max)
        words = (key, scope["path"], scope.get("query_string", b"").decode("latin-1"))
        fingerprint = hashlib.sha256(b"\0".join([*(word.encode() for word in words), body])).hexdigest()
        found = await asyncio.to_thread(self._service.begin_key, actor.name, key, fingerprint=fingerprint, kept=KEPT)
        if found is not None:
            await _answer_again(found, fingerprint, send)
            return
        await self._run(scope, actor.name, key, _again(body, receive), send)

    async def _run(self, scope: Scope, actor: str, key: str, receive: Receive, send: Send) -> None:
        """Let the request run, and keep its answer."""
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            if answer.status is None or answer.status >= _FAILED or answer.status == TooManyRequests.http_status:
                await asyncio.to_thread(self._service.drop_key, actor, key)
            else:
                is_secret = answer.has_cookie or bool(getattr(scope["route_handler"], "opt", {}).get(UNKEPT_OPTION))
                await asyncio.to_thread(
                    self._service.keep_answer,
                    actor,
                    key,
                    status=answer.status,
                    media_type=answer.media_type,
                    answer=None if is_secret and answer.status < _REFUSED else zlib.compress(bytes(answer.body)),
                )
        await answer.finish()


class _Answer:
    """Passes an answer on, and has it afterwards. The last part is passed on when the answer has been kept."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._last: Message | None = None
        self.status: int | None = None
        self.media_type = ""
        self.has_cookie = False
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            names = {name.lower(): value for name, value in message["headers"]}
            self.media_type = names.get(b"content-type", b"").decode("latin-1")
            self.has_cookie = b"set-cookie" in names
        elif message["type"] == "http.response.body":
            self.body += message["body"]
            if not message.get("more_body", False):
                self._last = message
                return
        await self._send(message)

    async def finish(self) -> None:
        if self._last is not None:
            await self._send(self._last)


async def _read(receive: Receive, most: int) -> bytes:
    """The body. Raises BadRequest if its sender leaves before the end, TooLarge."""
    body = bytearray()
    while True:
        message = cast("dict[str, Any]", await receive())
        if message["type"] != "http.request":
            raise BadRequest("the connection ended before the body; send all of it, within half a minute")
        body += message.get("body", b"")
        if len(body) > most:
            raise TooLarge(f"the request has more than {most} bytes; send less at once")
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, and then what comes after it."""
    is_given = False

    async def receive_again() -> Any:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _answer_again(found: KeptAnswer, fingerprint: str, send: Send) -> None:
    if found.fingerprint != fingerprint:
        raise KeyReused(
            f"this Idempotency-Key was used at {found.at:%Y-%m-%d %H:%M} UTC for another request; use a new key"
        )
    if found.status is None and datetime.now(UTC) - found.at > _LONGEST:
        raise WrongState(
            f"the server ended while it carried out the request of {found.at:%Y-%m-%d %H:%M} UTC with this "
            "Idempotency-Key; look whether it was carried out, and use a new key if it was not"
        )
    if found.status is None:
        raise InProgress("the first request with this Idempotency-Key still runs; ask again in a second")
    if found.answer is None:
        raise WrongState(
            "the request with this Idempotency-Key was carried out, and its answer had a secret, which is not kept; "
            "revoke what it made, and use a new key"
        )
    headers = [(b"content-type", found.media_type.encode("latin-1"))] if found.media_type else []
    headers.append((b"idempotency-replayed", b"true"))
    start: HTTPResponseStartEvent = {"type": "http.response.start", "status": found.status, "headers": headers}
    body: HTTPResponseBodyEvent = {
        "type": "http.response.body",
        "body": zlib.decompress(found.answer),
        "more_body": False,
    }
    await send(start)
    await send(body)
