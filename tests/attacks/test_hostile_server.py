"""A server that a client logs in to, and that answers with no end, with escapes for its terminal, or with nonsense."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from farm.cli.main import app
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.errors import FarmError, FarmNotRunning

_EVIL = "\x1b[31mEVIL\x07\u202e"
_AT = "2026-01-01T00:00:00Z"
_TOKEN = {
    "id": 1,
    "name": _EVIL,
    "actor": _EVIL,
    "roles": ["admin"],
    "created_at": _AT,
    "created_by": _EVIL,
    "expires_at": _AT,
}
_PROBLEM = "application/problem+json"


class _Hostile(BaseHTTPRequestHandler):
    """Answers each request with the answer of its server."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, kind, parts = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        try:
            for part in parts:
                self.wfile.write(part)
        except OSError:
            pass  # the client has left

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _serves(answer: object, kind: str = "application/json", status: int = 200) -> Iterator[str]:
    parts = answer if hasattr(answer, "__next__") else [answer if isinstance(answer, bytes) else _json(answer)]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hostile) as server:
        server.answer = (status, kind, parts)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _farm(url: str) -> RemoteFarm:
    return RemoteFarm(HttpClient(url, "farm_1_" + "a" * 43))


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_without_end_is_cut(status: int) -> None:
    endless = (b" " * 2**16 for _ in range(2**14))
    with _serves(endless, _PROBLEM, status) as url:
        farm = RemoteFarm(HttpClient(url, "farm_1_a", answer_max_bytes=2**20))
        with closing(farm), pytest.raises(FarmNotRunning, match="answered more than 1048576 bytes"):
            farm.whoami()
    assert sum(1 for _ in endless) > 2**13


@pytest.mark.parametrize(("kind", "status"), [("application/json", 200), (_PROBLEM, 400)])
@pytest.mark.parametrize("body", [b"[" * 200_000, b'"\xff"', b'{"code":', b"null"])
def test_an_answer_that_is_no_farm_s_is_an_error_of_the_farm(kind: str, status: int, body: bytes) -> None:
    with _serves(body, kind, status) as url, closing(_farm(url)) as farm, pytest.raises(FarmError):
        farm.whoami()


def test_a_list_that_promises_more_and_has_nothing_ends() -> None:
    with _serves({"builds": [], "next": 1}) as url, closing(_farm(url)) as farm:
        assert farm.builds() == ()


def test_a_log_of_no_attempt_is_an_error_of_the_farm() -> None:
    with _serves(b"a log") as url, closing(_farm(url)) as farm, pytest.raises(FarmNotRunning):
        list(farm.log(1))


def test_no_answer_moves_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("farm_1_" + "a" * 43)
    answers = {
        "token new --role reader": {"token": _TOKEN, "secret": f"farm_1_{_EVIL}"},
        "token list": [_TOKEN],
        "whoami": {"name": _EVIL, "roles": ["admin"]},
    }
    for command, answer in answers.items():
        with _serves(answer) as url:
            env = {"FARM_URL": url, "FARM_TOKEN_FILE": str(file)}
            result = CliRunner().invoke(app, command.split(), env=env)
        assert (result.exit_code, "EVIL" in result.output) == (0, True), command
        assert not any(one in result.output for one in "\x1b\x07\u202e"), command


def test_localhost_is_the_address_of_farm_up_alone() -> None:
    """Another user of the machine may listen on ::1 with the same port."""
    assert HttpClient("http://localhost:1", "t")._connect().host == "127.0.0.1"
