"""A POST with a key is carried out once, whatever its client repeats."""

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.errors import FarmNotRunning, NotPermitted
from farm.model.actor import Actor, Role
from farm.service.service import FarmService
from farm.store.store import Store
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served, token_for

ORDER = {"git": "https://example.org/hello.git", "target": "demo", "arches": ["x86_64"]}
ANN = Actor(name="ann", roles=frozenset({Role.ADMIN}))
BOB = Actor(name="bob", roles=frozenset({Role.READER}))


class Site:
    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven = driven
        self.address = address
        self.tokens = {actor.name: token_for(driven.store, actor) for actor in (ANN, BOB)}
        self.client = httpx.Client(base_url=f"{address}/api/v1", trust_env=False, timeout=60)

    def post(self, key: str, path: str = "/builds", body: object = ORDER, actor: Actor = ANN) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens[actor.name]}", "idempotency-key": key}
        return self.client.post(path, json=body, headers=headers)

    @property
    def builds(self) -> int:
        return len(self.driven.farm.builds(limit=1000))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("keys")) as driven, served(driven.settings) as address:
        made = Site(driven, address)
        with made.client:
            yield made


def test_a_repetition_gets_the_first_answer(site: Site) -> None:
    first, before = site.post("one"), site.builds
    again = site.post("one")
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert site.builds == before
    assert site.post("two").json()["id"] != first.json()["id"]


def test_a_refusal_is_an_answer_too(site: Site) -> None:
    wrong = {**ORDER, "target": "dmeo"}
    first = site.post("refused", body=wrong)
    assert (first.status_code, site.post("refused", body=wrong).content) == (404, first.content)


def test_a_key_for_another_request_is_refused_in_words(site: Site) -> None:
    site.post("three")
    for path, body in (("/builds", {**ORDER, "ref": "v2"}), ("/requests", ORDER)):
        answer = site.post("three", path, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "key-reused")
        assert "use a new key" in answer.json()["detail"]


def test_a_key_is_its_actors_own(site: Site) -> None:
    site.post("shared")
    answer = site.post("shared", actor=BOB)
    assert (answer.status_code, answer.json()["code"]) == (403, "not-permitted")


@pytest.mark.parametrize("key", ["", "x" * 101, "a b", "a\tb"])
def test_a_key_that_can_be_none_is_refused(site: Site, key: str) -> None:
    answer = site.post(key)
    assert (answer.status_code, "Idempotency-Key" in answer.json()["detail"]) == (400, True)


def test_an_answer_with_a_secret_is_not_kept(site: Site) -> None:
    order = {"name": "x", "roles": ["reader"]}
    first, before = site.post("secret", "/tokens", order), len(site.driven.farm.tokens())
    again = site.post("secret", "/tokens", order)
    assert (first.status_code, again.status_code) == (201, 409)
    assert "not kept" in again.json()["detail"]
    assert len(site.driven.farm.tokens()) == before
    secret = first.json()["secret"].split("_", 2)[2].encode()
    for path in site.driven.settings.data.glob("farm.db*"):
        assert secret not in path.read_bytes()


def test_one_of_many_at_once_is_carried_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, began, enqueue = threading.Event(), threading.Event(), FarmService.enqueue

    def wait_and_enqueue(*given: Any, **more: Any) -> Any:
        began.set()
        assert may_go_on.wait(60)
        return enqueue(*given, **more)

    monkeypatch.setattr(FarmService, "enqueue", wait_and_enqueue)
    before = site.builds
    with ThreadPoolExecutor() as pool:
        first = pool.submit(site.post, "many")
        assert began.wait(60)
        for answer in [site.post("many") for _ in range(3)]:
            assert (answer.status_code, answer.json()["code"]) == (409, "in-progress")
        may_go_on.set()
        assert first.result().status_code == 201
    assert site.post("many").json() == first.result().json()
    assert site.builds == before + 1


def test_after_a_fault_of_the_farm_the_key_may_be_used_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FarmNotRunning("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "add_batch", fail)
        assert site.post("fault").status_code == 503
    assert site.post("fault").status_code == 201


# --- the client -------------------------------------------------------------------------------------------------


@contextmanager
def lossy(address: str, lost: int, instead: int | None = None) -> Iterator[str]:
    """A proxy that passes requests on, and in place of the first answers to a POST closes the connection, or answers
    with the status `instead`."""
    left = [lost]

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            far = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
            far.request(self.command, self.path, body, dict(self.headers))
            answer = far.getresponse()
            data = answer.read()
            far.close()
            if self.command == "POST" and left[0]:
                left[0] -= 1
                if instead is not None:
                    self.send_error(instead)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name in ("content-type", "farm-attempt"):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("instead", [None, 502, 504])
def test_a_client_repeats_what_was_lost_and_nothing_happens_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch, instead: int | None
) -> None:
    monkeypatch.setattr("farm.client.http._PAUSE_S", 0.01)
    before = site.builds
    with lossy(site.address, 3, instead) as address, RemoteFarm(HttpClient(address, site.tokens["ann"])) as farm:
        build = farm.enqueue(git=str(ORDER["git"]), target="demo", arches=["x86_64"])
        assert site.builds == before + 1
        assert farm.cancel(build.id).outcome == "cancelled"
    with (
        lossy(site.address, 1) as address,
        RemoteFarm(HttpClient(address, site.tokens["bob"])) as farm,
        pytest.raises(NotPermitted),
    ):
        farm.cancel(build.id)


def test_a_client_without_a_server_is_told_at_once(tmp_path: Path) -> None:
    with RemoteFarm(HttpClient("http://127.0.0.1:1", "farm_1_x")) as farm, pytest.raises(FarmNotRunning):
        farm.cancel(1)
