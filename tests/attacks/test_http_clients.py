"""Clients of the HTTP server that hold what others need: its connections, its threads, the database."""

import json
import logging
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from farm.model.actor import Role
from farm.server.connection import ConnectionBounds
from farm.service.bodies import BATCH_MAX
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served

_BOUNDS = ConnectionBounds(receive_s=1.0, send_s=1.0, connections_max=60)
_ORDER = {"git": "https://example.org/hello.git", "target": "demo", "arches": ["x86_64"]}


class Site:
    """A farm, and its server with close bounds."""

    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven = driven
        self.address = address
        self.secrets = {name: self._secret(name) for name in ("ann", "bob")}

    def _secret(self, actor: str) -> str:
        return self.driven.farm.new_token(name=actor, roles=[Role.MAINTAINER, Role.OPERATOR], bearer=actor).secret

    def __call__(self, actor: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.secrets[actor]}", "content-type": "application/json"}
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, f"{self.address}/api/v1/{path}", headers=headers, **more)

    def connect(self, sent: bytes) -> socket.socket:
        parts = urlsplit(self.address)
        made = socket.create_connection((parts.hostname, parts.port), timeout=60)
        made.sendall(sent)
        return made

    def post_head(self, actor: str | None) -> bytes:
        token = f"Authorization: Bearer {self.secrets[actor]}\r\n" if actor else ""
        head = f"POST /api/v1/builds HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\n"
        return f"{head}Content-Length: 1000\r\n\r\n{{".encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("held")) as driven, served(driven.settings, _BOUNDS) as address:
        yield Site(driven, address)


@pytest.mark.parametrize("held", ["nothing", "a part of the head", "a body without a token", "a body"])
def test_a_request_that_does_not_arrive_whole_is_cut_off(
    site: Site, held: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent = {
        "nothing": b"",
        "a part of the head": b"GET /healthz HTTP/1.1\r\nX-",
        "a body without a token": site.post_head(None),
        "a body": site.post_head("bob"),
    }[held]
    with caplog.at_level(logging.WARNING), closing(site.connect(sent)) as connection:
        while _received(connection):
            pass
        assert site("ann", "GET", "whoami").status_code == 200
    assert "Traceback" not in caplog.text


def test_an_answer_that_its_client_does_not_take_is_cut_off(site: Site, tmp_path: Path) -> None:
    content = tmp_path / "large"
    with content.open("wb") as file:
        file.truncate(64 * 2**20)
    store = site.driven.farm._service._on.artifacts  # type: ignore[attr-defined]
    from farm.model.artifact import ArtifactKind

    artifact = store.put(content, name="large", kind=ArtifactKind.LOG)
    head = f"GET /api/v1/artifacts/{artifact.sha256} HTTP/1.1\r\nHost: localhost\r\n"
    with closing(site.connect(f"{head}Authorization: Bearer {site.secrets['bob']}\r\n\r\n".encode())) as connection:
        threading.Event().wait(3 * _BOUNDS.send_s)
        got = 0
        while data := _received(connection):
            got += len(data)
    assert got < artifact.size_bytes


def test_idle_connections_do_not_keep_others_out(site: Site) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(site.connect(b""))) for _ in range(3 * _BOUNDS.connections_max)]
        assert site("ann", "GET", "whoami").status_code == 200
        assert _received(idle[0]) == b""


def test_one_actor_s_requests_do_not_take_all_threads(site: Site) -> None:
    """The requests of one wait for the database, which a transaction blocks; another reads."""
    site("ann", "GET", "whoami"), site("bob", "GET", "whoami")
    path = site.driven.settings.database.removeprefix("sqlite:///")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(site("bob", "POST", "builds", json=_ORDER).status_code))
        for _ in range(40)
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as blocking:
        blocking.execute("BEGIN IMMEDIATE")
        for thread in threads:
            thread.start()
        threading.Event().wait(1)
        try:
            assert site("ann", "GET", "builds").status_code == 200
            assert any(thread.is_alive() for thread in threads), "the reader waited for the transaction"
        finally:
            blocking.execute("ROLLBACK")
    for thread in threads:
        thread.join(60)
    assert (len(answers), 429 in answers) == (40, True)


def test_a_batch_has_a_bound(site: Site) -> None:
    before = len(site.driven.farm.builds(limit=1000))
    orders = [{"target": "demo", "git": "a:b"}] * (BATCH_MAX + 1)
    answer = site("bob", "POST", "batches", json={"builds": orders})
    assert (answer.status_code, str(BATCH_MAX) in answer.json()["detail"]) == (400, True)
    assert len(site.driven.farm.builds(limit=1000)) == before


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"target":"demo","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"limits":' + b'{"a":' * 100_000,
        b'{"target":"\xff"}',
        b"\xff\xfe{}",
        json.dumps({"target": "demo", "git": "~nobody-of-that-name:x", "priority": 10**400}).encode(),
        json.dumps({"target": "demo", "git": "~nobody-of-that-name:x", "arches": ["s390x"]}).encode(),
    ],
    ids=["lists", "unknown key", "objects", "not UTF-8", "UTF-16", "number", "a tilde"],
)
def test_a_body_that_is_no_order_is_the_client_s_error(
    site: Site, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = site("bob", "POST", "builds", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in caplog.text


def _received(connection: socket.socket) -> bytes:
    """Empty at the end of the connection, however the server ended it."""
    try:
        return connection.recv(2**16)
    except ConnectionResetError:
        return b""
