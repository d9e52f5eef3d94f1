"""The proxy that breaks requests for other tests makes exactly the faults that a test sets."""

import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.faulty_proxy import Fault, FaultyProxy


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(body.decode())
        self.send_response(201)
        self.send_header("Content-Length", str(len(body) * 2))
        self.end_headers()
        self.wfile.write(body * 2)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def proxy(seen: list[str]) -> Iterator[FaultyProxy]:
    class Listening(Handler):
        pass

    Listening.seen = seen
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}") as made:
            yield made
        server.shutdown()
        thread.join()


def post(proxy: FaultyProxy, text: str) -> httpx.Response:
    return httpx.post(f"{proxy.url}/things/", content=text, timeout=10)


def test_requests_without_a_fault_pass_through_and_are_recorded(proxy: FaultyProxy, seen: list[str]) -> None:
    answer = post(proxy, "hello")
    assert (answer.status_code, answer.text, seen) == (201, "hellohello", ["hello"])
    (request,) = proxy.requests("POST", "/things/$")
    assert (request.body_bytes, request.status, request.fault) == (5, 201, Fault.NONE)


@pytest.mark.parametrize(("fault", "reaches"), [(Fault.DROP_BEFORE, 0), (Fault.DROP_AFTER, 1), (Fault.CUT, 1)])
def test_a_dropped_connection_is_dropped_before_or_after_the_server_did_it(
    proxy: FaultyProxy, seen: list[str], fault: Fault, reaches: int
) -> None:
    proxy.break_("POST", "/things/", fault)
    with pytest.raises(httpx.TransportError):
        post(proxy, "hello")
    assert len(seen) == reaches
    assert post(proxy, "again").status_code == 201


@pytest.mark.parametrize(
    ("fault", "status", "reaches"),
    [(Fault.SERVER_ERROR, 500, 0), (Fault.UNAVAILABLE, 503, 0), (Fault.ERROR_AFTER, 502, 1)],
)
def test_an_error_comes_as_often_as_it_was_asked_for_after_those_that_are_skipped(
    proxy: FaultyProxy, seen: list[str], fault: Fault, status: int, reaches: int
) -> None:
    proxy.break_("POST", "/things/", fault, skip=1, times=2)
    assert [post(proxy, "x").status_code for _ in range(4)] == [201, status, status, 201]
    assert len(seen) == 2 + 2 * reaches


def test_calls_come_before_the_server_hears_and_before_the_client_does(proxy: FaultyProxy, seen: list[str]) -> None:
    order: list[str] = []
    proxy.when_it_came("POST", "/things/", lambda: order.append(f"came, server has {len(seen)}"))
    proxy.when_it_was_answered("POST", "/things/", lambda: order.append(f"answered, server has {len(seen)}"))
    post(proxy, "x")
    post(proxy, "y")
    assert order == ["came, server has 0", "answered, server has 1"]


def test_down_is_down_until_it_is_over(proxy: FaultyProxy, seen: list[str]) -> None:
    with proxy.down(), pytest.raises(httpx.TransportError):
        post(proxy, "x")
    assert post(proxy, "y").status_code == 201
    assert seen == ["y"]
