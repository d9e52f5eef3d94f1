"""Clients of the HTTP server that take what others need for long, or keep what they had: disk, connections, rights."""

import asyncio
import hashlib
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from farm.config import Settings
from farm.errors import TooManyRequests
from farm.model.actor import Actor, Role
from farm.model.artifact import ArtifactKind
from farm.server import limits, live, share
from farm.server.connection import ConnectionBounds
from farm.service import events, uploads
from farm.store.uploads import Quota
from tests.driven_farm import DrivenFarm, driven_farm
from tests.packages import make_srpm
from tests.served import served, token_for

_BOUNDS = ConnectionBounds(receive_s=20.0, send_s=20.0, connections_max=40)
_ORDER = {"git": "https://example.org/hello.git", "target": "demo", "arches": ["x86_64"]}
_ROLES = {"ann": Role.PACKAGER, "bob": Role.PACKAGER, "eve": Role.READER}


class Site:
    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven = driven
        self.address = address
        self.parts = driven.settings.data / "uploads"
        self.tokens = {name: self.token(name) for name in _ROLES}

    def token(self, name: str) -> str:
        return token_for(self.driven.store, Actor(name=name, roles=frozenset({_ROLES[name]})))

    def __call__(self, actor: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens[actor]}"} if actor else {}
        headers |= more.pop("headers", {})
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, f"{self.address}/api/v1/{path}", headers=headers, **more)

    def begin(self, actor: str, content: bytes, **other: Any) -> dict[str, Any]:
        order = {"filename": "a-1-1.src.rpm", "size_bytes": len(content), "target": "demo"}
        order |= {"sha256": hashlib.sha256(content).hexdigest()} | other
        answer = self(actor, "POST", "uploads", json=order)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def send(self, actor: str, upload: dict[str, Any], content: bytes) -> None:
        answer = self(actor, "PATCH", f"uploads/{upload['id']}?offset=0", content=content)
        assert answer.status_code == 200, answer.text

    def rows(self, query: str) -> list[Any]:
        path = self.driven.settings.database.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("shares")) as driven:
        settings = Settings.from_env({**driven.env, "FARM_SERVER_ANONYMOUS": "1"})
        with served(settings, _BOUNDS) as address:
            yield Site(driven, address)


# --- uploads ----------------------------------------------------------------------------------------------------


def test_an_upload_begins_without_the_bytes_of_another_with_its_number(site: Site) -> None:
    first = site.begin("ann", b"a" * 6000)
    site.send("ann", first, b"x" * 5000)
    second = site.begin("ann", b"b" * 6000)
    third = site.begin("ann", b"a" * 6000, size_bytes=7000)
    assert list(site.parts.iterdir()) == [], "the parts of an upload that another one replaced take the disk"
    for one in (second, third):
        assert site("ann", "DELETE", f"uploads/{one['id']}").status_code == 204
    begun = site.begin("bob", b"v" * 1000)
    assert (begun["id"], begun["offset"]) == (first["id"], 0)
    site.send("bob", begun, b"v" * 1000)
    assert site("bob", "DELETE", f"uploads/{begun['id']}").status_code == 204


def test_a_part_that_comes_while_its_upload_is_deleted_is_kept_nowhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = site.begin("ann", b"a" * 6000)
    is_read, is_deleted = threading.Event(), threading.Event()
    real = uploads.Uploads._open

    def open_late(self: uploads.Uploads, upload: Any) -> Any:
        is_read.set()
        assert is_deleted.wait(30)
        return real(self, upload)

    monkeypatch.setattr(uploads.Uploads, "_open", open_late)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(site, "ann", "PATCH", f"uploads/{begun['id']}?offset=0", content=b"x" * 5000)
        assert is_read.wait(30)
        assert site("ann", "DELETE", f"uploads/{begun['id']}").status_code == 204
        is_deleted.set()
        assert sent.result().status_code == 404
    assert list(site.parts.iterdir()) == []


def test_finished_uploads_count_until_they_expire(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = make_srpm("hello-noarch", tmp_path).read_bytes()
    begun = site.begin("bob", content)
    site.send("bob", begun, content)
    assert site("bob", "POST", f"uploads/{begun['id']}/finish").json()["is_finished"] is True
    assert site("bob", "DELETE", f"uploads/{begun['id']}").status_code == 409
    order = {"filename": "a-1-1.src.rpm", "size_bytes": len(content) + 1, "sha256": begun["sha256"], "target": "demo"}
    assert site("bob", "POST", "uploads", json=order).status_code == 409, "it would take the place of the finished one"
    monkeypatch.setattr(uploads, "FINISHED", Quota(10, len(content) + 100))
    answer = site("bob", "POST", "uploads", json=order | {"size_bytes": 101, "sha256": "0" * 64})
    assert (answer.status_code, "1 finished uploads" in answer.json()["detail"]) == (409, True)
    assert site("bob", "POST", "uploads", json=order | {"size_bytes": len(content)}).json()["is_finished"] is True


def test_parts_leave_room_on_the_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = site.begin("ann", b"c" * 6000)
    monkeypatch.setattr(uploads, "_FREE_SHARE", 1.0)
    answer = site("ann", "PATCH", f"uploads/{begun['id']}?offset=0", content=b"c" * 6000)
    assert (answer.status_code, "nearly full" in answer.json()["detail"]) == (503, True)


# --- rights -----------------------------------------------------------------------------------------------------


def test_open_streams_end_after_their_token_is_revoked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_CHECK_EVERY_S", 0.0)
    monkeypatch.setattr(live, "_BEAT_S", 0.1)
    secret = site.token("eve")
    got: list[str] = []

    def read() -> None:
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("GET", f"{site.address}/api/v1/events", headers={"authorization": f"Bearer {secret}"}) as it,
        ):
            got.extend(it.iter_lines())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(1)
    assert reader.is_alive(), "a stream stays open while its token is valid"
    site.driven.farm.revoke_token(int(secret.split("_")[1]))
    reader.join(20)
    assert not reader.is_alive()


# --- connections ------------------------------------------------------------------------------------------------


def _connect(site: Site, sent: str) -> socket.socket:
    parts = urlsplit(site.address)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(60)
    made.connect((parts.hostname, parts.port))
    made.sendall(sent.encode())
    return made


def test_downloads_that_are_not_taken_do_not_keep_others_out(site: Site, tmp_path: Path) -> None:
    content = tmp_path / "large"
    with content.open("wb") as file:
        file.truncate(64 * 2**20)
    store = site.driven.farm._service._on.artifacts  # type: ignore[attr-defined]
    stored = store.put(content, name="large", kind=ArtifactKind.LOG)
    head = f"GET /api/v1/artifacts/{stored.sha256} HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        for _ in range(_BOUNDS.connections_max):
            made = stack.enter_context(
                closing(_connect(site, f"{head}Authorization: Bearer {site.tokens['eve']}\r\n\r\n"))
            )
            assert made.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.5)  # until the server waits for all of them
        for _ in range(3):
            assert site("ann", "GET", "whoami").status_code == 200


def test_held_back_answers_to_wrong_tokens_are_few(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LOGINS_WINDOW_S", 10**7)
    service: Any = type("Counts", (), {"settings": site.driven.settings, "count_rate": lambda *_, **__: (59, 1.0)})()

    async def attack() -> list[Any]:
        made = limits.RateLimits(service)
        addresses = [f"2001:db8::{number:x}" for number in range(1000)] + ["192.0.2.1"] * 100
        tasks = [asyncio.ensure_future(made.failed_login(address)) for address in addresses]
        done, held = await asyncio.wait(tasks, timeout=1.0)
        for task in held:
            task.cancel()
        await asyncio.wait(tasks)
        return [task.exception() for task in done]

    found = asyncio.run(attack())
    assert len(found) >= 1000
    assert all(isinstance(one, TooManyRequests) for one in found)


def test_listeners_who_ask_for_earlier_events_leave_threads_for_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come and leave at once; the reading of what they asked for goes on."""
    at_once, most, is_over = 0, 0, threading.Event()

    def read_long(*_: Any) -> list[Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        is_over.wait(20)
        at_once -= 1
        return []

    monkeypatch.setattr(events, "missed", read_long)
    head = f"GET /api/v1/events?after=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.tokens['eve']}"
    try:
        for _ in range(share.THREADS + 4):
            with closing(_connect(site, f"{head}\r\n\r\n")) as made:
                assert made.recv(12) == b"HTTP/1.1 200"
                time.sleep(0.05)
        started_at = time.monotonic()
        assert site("ann", "GET", "whoami").status_code == 200
        assert (most, time.monotonic() - started_at < 15) == (1, True)
    finally:
        is_over.set()


# --- shares of clients without a token, and refusals ------------------------------------------------------------


def test_clients_without_a_token_share_nothing_with_other_addresses() -> None:
    async def attack() -> list[str]:
        let_in: list[str] = []

        async def app(scope: Any, _receive: Any, _send: Any) -> None:
            let_in.append(scope["user"].origin)
            await asyncio.sleep(0.5)

        fair = share.FairShare(app)

        async def ask(address: str) -> None:
            scope: Any = {"user": share.anonymous(address)}
            await fair(scope, None, None)  # type: ignore[arg-type]

        many = [asyncio.ensure_future(ask("192.0.2.1")) for _ in range(100)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(ask("192.0.2.2"), 5)
        for task in many:
            task.cancel()
        await asyncio.wait(many)
        assert not fair._shares, "what was counted of an address is forgotten"
        return let_in

    assert "192.0.2.2" in asyncio.run(attack())


def test_refused_changes_do_not_fill_the_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_REFUSALS_WINDOW_S", 10**7)
    monkeypatch.setattr(limits, "_REFUSALS_MAX", 5)
    codes = [
        site("eve", "POST", "builds", json=_ORDER, headers={"idempotency-key": f"{number}"}).status_code
        for number in range(9)
    ]
    assert codes == [403] * 5 + [429] * 4
    for table in ("audit", "idempotency"):
        assert site.rows(f"select count(*) from {table} where actor = 'eve'") == [(5,)]
    assert site("eve", "GET", "whoami").status_code == 200
    assert site("ann", "POST", "builds", json=_ORDER).status_code == 201
