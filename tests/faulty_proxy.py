"""A reverse proxy on loopback that breaks what a test tells it to break: real sockets, real halves of answers.

Owns the faults between a client and a server, and a record of the requests. Knows nothing of Pulp.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_UPSTREAM_TIMEOUT_S = 120.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}
Answer = tuple[int, list[tuple[str, str]], bytes]
_KEPT: dict[tuple[str, int, str], Answer] = {}


class Fault(Enum):
    """The fault of one request."""

    NONE = auto()
    SERVER_ERROR = auto()  # answered 500 by the proxy; the server hears nothing of it
    BAD_GATEWAY = auto()  # 502, likewise
    UNAVAILABLE = auto()  # 503, likewise
    DROP_BEFORE = auto()  # the connection ends, the server hears nothing
    DROP_AFTER = auto()  # the server did it, and its answer is lost
    ERROR_AFTER = auto()  # the server did it, and a 502 comes back
    HANG = auto()  # no answer until the proxy is closed; the server hears nothing
    CUT = auto()  # half of the answer, then the connection ends


_ANSWERS = {Fault.SERVER_ERROR: 500, Fault.BAD_GATEWAY: 502, Fault.UNAVAILABLE: 503, Fault.ERROR_AFTER: 502}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One that came: `path` with its query; `body_bytes` is its length. `status` is the server's, 0 when not asked."""

    method: str
    path: str
    body_bytes: int
    status: int = 0
    fault: Fault = Fault.NONE


@dataclass(kw_only=True)
class _Rule:
    method: str
    path: re.Pattern[str]
    skip: int
    times: int
    fault: Fault
    came: Callable[[], None] | None = None
    answered: Callable[[], None] | None = None
    seen: int = field(default=0)

    def takes(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and self.path.search(path)):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


class FaultyProxy:
    """In front of the server at `upstream`, a base URL, for the time of a `with` block. Rules hold until they are
    used up; of several faults for one request, the first that was
    asked for happens."""

    def __init__(self, upstream: str, *, kept: str = "") -> None:
        """Answers to GET with 200 whose paths have the pattern `kept` are asked for once a process."""
        self._kept = re.compile(kept) if kept else None
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._requests: list[Request] = []
        self._is_down = False
        self._over = threading.Event()
        self.chance: Callable[[str, str], Fault] = lambda _method, _path: Fault.NONE
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # --- for tests ------------------------------------------------------------------------------------------------

    def break_(self, method: str, path: str, fault: Fault, *, skip: int = 0, times: int = 1) -> None:
        """Have the fault happen to `times` requests of that method and path (both patterns), after the first `skip`."""
        self._add(_Rule(method=method, path=re.compile(path), skip=skip, times=times, fault=fault))

    def when_it_came(self, method: str, path: str, call: Callable[[], None], *, skip: int = 0) -> None:
        """Call once, before the request is forwarded; the request waits for it."""
        self._add(_Rule(method=method, path=re.compile(path), skip=skip, times=1, fault=Fault.NONE, came=call))

    def when_it_was_answered(self, method: str, path: str, call: Callable[[], None], *, skip: int = 0) -> None:
        """Call once, after the server answered and before the client hears of it."""
        self._add(_Rule(method=method, path=re.compile(path), skip=skip, times=1, fault=Fault.NONE, answered=call))

    @contextmanager
    def down(self) -> Iterator[None]:
        """Every connection ends as soon as something is asked on it."""
        self._is_down = True
        try:
            yield
        finally:
            self._is_down = False

    def heal(self) -> None:
        """No rule holds any more."""
        with self._lock:
            self._rules.clear()
            self.chance = lambda _method, _path: Fault.NONE

    def requests(self, method: str = ".*", path: str = "") -> list[Request]:
        """The requests so far of that method and path (both are patterns)."""
        with self._lock:
            return [one for one in self._requests if re.fullmatch(method, one.method) and re.search(path, one.path)]

    def forget(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    # --- for the handler ------------------------------------------------------------------------------------------

    def due(self, method: str, path: str) -> tuple[Fault, list[Callable[[], None]], list[Callable[[], None]]]:
        """The fault of a request, and the functions to call when it comes and when it is answered."""
        with self._lock:
            taken = [rule for rule in self._rules if rule.takes(method, path)]
            came = [rule.came for rule in taken if rule.came is not None]
            answered = [rule.answered for rule in taken if rule.answered is not None]
            faults = [rule.fault for rule in taken if rule.fault is not Fault.NONE]
            if self._is_down:
                return Fault.DROP_BEFORE, came, answered
            return faults[0] if faults else self.chance(method, path), came, answered

    def note(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def hang(self) -> None:
        self._over.wait(_UPSTREAM_TIMEOUT_S)

    def forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        key = (*self._upstream, handler.path)
        is_kept = handler.command == "GET" and self._kept is not None and self._kept.search(handler.path)
        if is_kept and key in _KEPT:
            return _KEPT[key]
        answer = self._forward(handler, body)
        if is_kept and answer[0] == HTTPStatus.OK:
            _KEPT[key] = answer
        return answer

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        connection = HTTPConnection(*self._upstream, timeout=_UPSTREAM_TIMEOUT_S)
        try:
            # `Host` as the client gave it: behind a proxy, Pulp's links and its check of where a request comes from
            # go by it.
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(handler.command, handler.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            given = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
            return answer.status, given, answer.read()
        finally:
            connection.close()

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault, came, answered = self.owner.due(self.command, self.path)
        for call in came:
            call()
        match fault:
            case Fault.SERVER_ERROR | Fault.BAD_GATEWAY | Fault.UNAVAILABLE:
                self._note(fault, body, 0)
                self._answer(_ANSWERS[fault], [("Content-Type", "text/html")], b"<html>broken by a test</html>")
            case Fault.DROP_BEFORE:
                self._note(fault, body, 0)
                self._drop()
            case Fault.HANG:
                self.owner.hang()
                self._note(fault, body, 0)
                self._drop()
            case Fault.NONE | Fault.DROP_AFTER | Fault.ERROR_AFTER | Fault.CUT:
                self._pass_on(fault, answered, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - named by http.server

    def _note(self, fault: Fault, body: bytes, status: int) -> None:
        """Before the client has its answer, so that who has it finds the record."""
        seen = Request(method=self.command, path=self.path, body_bytes=len(body), status=status, fault=fault)
        self.owner.note(seen)

    def _pass_on(self, fault: Fault, answered: list[Callable[[], None]], body: bytes) -> None:
        try:
            status, headers, content = self.owner.forward(self, body)
        except (OSError, HTTPException):
            self._note(fault, body, 0)
            self._drop()  # as if there were no proxy: the server is not there
            return
        self._note(fault, body, status)
        for call in answered:
            call()
        match fault:
            case Fault.DROP_AFTER:
                self._drop()
            case Fault.ERROR_AFTER:
                self._answer(_ANSWERS[fault], [("Content-Type", "text/html")], b"<html>broken by a test</html>")
            case Fault.CUT:
                self._answer(status, headers, content, sent=len(content) // 2)
                self._drop()
            case _:
                self._answer(status, headers, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, sent: int | None = None) -> None:
        with suppress(OSError):  # the client may be gone
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:sent])

    def _drop(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing: the record has it."""
