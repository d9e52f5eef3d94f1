"""The requests of a remote client: a connection to the farm's server, its token, and errors made of its answers.

On `http.client`, since the import of a larger client takes longer than a command.
"""

import http.client
import io
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from farm import errors
from farm.errors import BadRequest, FarmError, FarmNotRunning, InProgress, NotLoggedIn, StoreTrouble, TooManyRequests
from farm.model.text import clip, printable
from farm.service.bodies import KEY_HEADER, PREFIX

T = TypeVar("T")
_TIMEOUT_S = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SHOWN_MAX = 200
_FAILURES = (OSError, http.client.HTTPException)
_TOKEN_MAX = 200
#: A proxy's answers for a server that it does not reach, or that went away.
_PROXY_STATUSES = (502, 503, 504)
_CHUNK_BYTES = 2**16
#: A POST whose answer was lost is sent again for so long.
_PATIENCE_S = 30.0
_PAUSE_S = 0.5
#: More than a page of a list, or a part of a log, has.
_ANSWER_MAX = 256 * 2**20
Query = Mapping[str, str | int | None]


def check_url(url: str) -> str:
    """The same address, without a slash at its end. Raises BadRequest for one that no token may be sent to."""
    shown = printable(clip(url, _SHOWN_MAX))
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadRequest(f"{shown!r} is no address: {error}; give https://HOST") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadRequest(
            f"{shown!r} is no address of a server; give https://HOST, with its port and path if it has any"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise BadRequest(f"{shown!r} would show the token to the network; give https://{parts.hostname}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadRequest(f"{shown!r} has characters that no address has; give https://HOST")
    return url.rstrip("/")


def check_token(text: str) -> str:
    """The token in the text of a file. Raises NotLoggedIn for a text that can be none."""
    token = text.strip()
    if not token or len(token) > _TOKEN_MAX or not token.isascii() or not token.isprintable() or " " in token:
        raise NotLoggedIn("that text is no token of a farm; `farm token new` prints one, on a line")
    return token


class _Unanswered(Exception):
    """A request without an answer. `was_sent` is whether the server may have acted."""

    def __init__(self, why: Exception, *, was_sent: bool) -> None:
        super().__init__(str(why))
        self.why = why
        self.was_sent = was_sent


class HttpClient:
    """Requests to one server with one token. Safe to use from several threads.

    Every call raises FarmNotRunning when the server does not answer, and else the error that the server names.
    """

    def __init__(self, url: str, token: str, *, answer_max_bytes: int = _ANSWER_MAX) -> None:
        """`answer_max_bytes` bounds what is read into memory; it is no bound for `open`."""
        self._answer_max = answer_max_bytes
        self.url = check_url(url)
        self._parts = urlsplit(self.url)
        self._headers = {"Authorization": f"Bearer {check_token(token)}", "Accept": "application/json"}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def here(self, url: str) -> str:
        """An address of this server with the scheme and path by which this client reaches it: the server behind a proxy
        may not know them. Another address unchanged.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.netloc != self._parts.netloc:
            return url
        return f"{self.url}{parts.path}"

    def get(self, kind: type[T], /, *path: str | int, **query: str | int | None) -> T:
        """The JSON at this path, as a value of the kind."""
        data, _ = self.read(*path, **query)
        return self._decoded(data, kind)

    def post(self, kind: type[T], /, *path: str | int, body: object = None) -> T:
        """The JSON that answers this body. It is sent again after a lost connection; its key lets the server carry it
        out once.
        """
        headers = self._headers | {"Content-Type": "application/json", KEY_HEADER: secrets.token_hex(16)}
        data, is_first, until = msgspec.json.encode(body), True, time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._decoded(self._exchange("POST", self._target(path, {}), data, headers), kind)
            except _Unanswered as error:
                # A caller may repeat a request that was never sent.
                if time.monotonic() > until or (is_first and not error.was_sent):
                    raise self._unanswered(error.why) from error
            except InProgress:
                if time.monotonic() > until:
                    raise
            except TooManyRequests as error:
                _wait_for_turn(error, until)
            is_first = False
            time.sleep(_PAUSE_S)

    def patch(self, kind: type[T], /, *path: str | int, data: bytes, **query: str | int | None) -> T:
        """The JSON that answers these bytes. They are sent once."""
        headers = self._headers | {"Content-Type": "application/octet-stream"}
        try:
            return self._decoded(self._exchange("PATCH", self._target(path, query), data, headers), kind)
        except _Unanswered as error:
            raise self._unanswered(error.why) from error

    def _exchange(self, method: str, target: str, data: bytes, headers: Mapping[str, str]) -> bytes:
        """The body of the answer to a request on a connection of its own. Raises _Unanswered, and the error that the
        answer is."""
        connection = self._connect()
        was_sent = False
        try:
            connection.connect()
            was_sent = True
            connection.request(method, target, data, headers)
            with connection.getresponse() as response:  # it keeps the socket when the connection is closed
                answer = self._body(response)
        except _FAILURES as error:
            raise _Unanswered(error, was_sent=was_sent) from error
        finally:
            connection.close()
        if response.status in _PROXY_STATUSES and not _is_problem(response):
            raise _Unanswered(OSError(f"a proxy answered {response.status}"), was_sent=True)
        self._check(response, answer)
        return answer

    def read(self, *path: str | int, **query: str | int | None) -> tuple[bytes, Mapping[str, str]]:
        """The content at this path, and the headers of the answer by their names in lower case."""
        target, until = self._target(path, query), time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._read_once(target)
            except TooManyRequests as error:
                _wait_for_turn(error, until)

    def _read_once(self, target: str) -> tuple[bytes, Mapping[str, str]]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._read(connection, target)
            except _FAILURES:  # the server closes a connection that is idle for some seconds
                connection.close()
        connection = self._connect()
        try:
            return self._read(connection, target)
        except _FAILURES as error:
            connection.close()
            raise self._unanswered(error) from error

    def stream(self, *path: str | int, **query: str | int | None) -> Iterator[bytes]:
        """The content at this path as it comes. It ends when the server ends it, or the connection breaks."""
        with closing(self._connect()) as connection, ExitStack() as stack:
            try:
                connection.request("GET", self._target(path, query), headers=self._headers | {"Connection": "close"})
                response = stack.enter_context(connection.getresponse())
                if response.status >= http.client.MULTIPLE_CHOICES:
                    self._check(response, self._body(response))
            except _FAILURES as error:
                raise self._unanswered(error) from error
            with suppress(*_FAILURES):  # the caller finds out whether there is more
                while data := response.read1(_CHUNK_BYTES):
                    yield data

    def open(self, *path: str | int) -> BinaryIO:
        """The content at this path as a file, which the caller closes. Reading raises StoreTrouble."""
        connection = self._connect()
        try:
            connection.request("GET", self._target(path, {}), headers=self._headers | {"Connection": "close"})
            response = connection.getresponse()
            if response.status >= http.client.MULTIPLE_CHOICES:
                with response:
                    self._check(response, self._body(response))
        except _FAILURES as error:
            connection.close()
            raise self._unanswered(error) from error
        return cast("BinaryIO", io.BufferedReader(_Content(response, self.url)))

    def _read(self, connection: http.client.HTTPConnection, target: str) -> tuple[bytes, Mapping[str, str]]:
        connection.request("GET", target, headers=self._headers)
        with connection.getresponse() as response:
            data = self._body(response)
        if not response.will_close:
            with self._lock:
                self._idle.append(connection)
        self._check(response, data)
        return data, {name.lower(): value for name, value in response.getheaders()}

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """Raises FarmNotRunning for one that does not end, or could fill the memory."""
        if response.length is not None and response.length <= self._answer_max:
            return response.read()
        data = response.read(self._answer_max + 1) if response.length is None else b""
        if response.length is not None or len(data) > self._answer_max:
            response.close()
            raise FarmNotRunning(f"{self.url} answered more than {self._answer_max} bytes, and not as a farm does")
        return data

    def _connect(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._parts.port, timeout=_TIMEOUT_S, context=context)
        # The server of `farm up` is on 127.0.0.1. `localhost` can be ::1 too, where any user of the machine can listen.
        host = "127.0.0.1" if host == "localhost" else host
        return http.client.HTTPConnection(host, self._parts.port, timeout=_TIMEOUT_S)

    def _target(self, path: tuple[str | int, ...], query: Query) -> str:
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        words = "/".join(quote(str(word), safe="") for word in path)
        return f"{self._parts.path}{PREFIX}/{words}" + (f"?{asked}" if asked else "")

    def _check(self, response: http.client.HTTPResponse, data: bytes) -> None:
        """Raises the error that the answer is."""
        if response.status < http.client.MULTIPLE_CHOICES:
            return
        if _is_problem(response):
            error = _error_of(data)
            after = response.getheader("retry-after", "")
            if isinstance(error, TooManyRequests) and after.isascii() and after.isdigit():
                error.retry_after_s = float(after[:6])
            raise error
        if to := response.getheader("location"):
            shown = printable(clip(to, _SHOWN_MAX))
            raise FarmNotRunning(f"{self.url} sends its clients to {shown!r}; use that address if you trust it")
        raise FarmNotRunning(f"{self.url} answered {response.status}, and not as a farm does; check the address")

    def _decoded(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data or b"null", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FarmNotRunning(f"{self.url} answered what this version cannot read: {error}") from error

    def _unanswered(self, error: Exception) -> FarmNotRunning:
        why = str(error) or type(error).__name__
        return FarmNotRunning(f"the farm at {self.url} does not answer: {why}; check the address, and that it runs")


def _wait_for_turn(error: TooManyRequests, until: float) -> None:
    """Wait as long as the server says. Raises the error if that is longer than the client waits."""
    if time.monotonic() + error.retry_after_s > until:
        raise error
    time.sleep(error.retry_after_s)


def _is_problem(response: http.client.HTTPResponse) -> bool:
    return response.getheader("content-type", "").startswith("application/problem+json")


class _Content(io.RawIOBase):
    """The body of an answer."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response = response
        self._url = url

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._response.readinto(buffer)
        except _FAILURES as error:
            raise StoreTrouble(f"{self._url} broke off an artifact: {error}; try again") from error

    def close(self) -> None:
        self._response.close()
        super().close()


def _error_of(data: bytes) -> FarmError:
    """The error of the same class as on the server, with its message."""
    try:
        problem = json.loads(data)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return FarmError("the server's error cannot be read; its log has more")
    known = {one.code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, FarmError)}
    return known.get(code, FarmError)(detail)
