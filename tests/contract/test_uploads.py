"""Uploads of source packages: in parts, resumed, bounded, checked as a local file is, and built."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from farm.artifacts import open_store
from farm.cli.main import app
from farm.client import upload as client_upload
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.errors import BadSource, FarmNotRunning
from farm.model.actor import Actor, Role
from farm.model.upload import Upload
from farm.service import uploads
from tests.driven_farm import DrivenFarm, driven_farm
from tests.packages import make_srpm
from tests.served import served, token_for

ANN = Actor(name="ann", roles=frozenset({Role.PACKAGER}))
BOB = Actor(name="bob", roles=frozenset({Role.PACKAGER}))


class Site:
    def __init__(self, driven: DrivenFarm, address: str, path: Path) -> None:
        self.driven = driven
        self.address = address
        self.path = path
        self.data = path.read_bytes()
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.tokens = {actor.name: token_for(driven.store, actor) for actor in (ANN, BOB)}
        self.client = httpx.Client(base_url=f"{address}/api/v1", trust_env=False, timeout=60)

    def __call__(self, method: str, path: str, actor: Actor = ANN, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens[actor.name]}"}
        return self.client.request(method, path, headers=headers, **more)

    def begin(self, actor: Actor = ANN, **other: Any) -> dict[str, Any]:
        answer = self("POST", "/uploads", actor, json=self.order(**other))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def order(self, **other: Any) -> dict[str, Any]:
        order = {"filename": self.path.name, "size_bytes": len(self.data), "sha256": self.sha256, "target": "demo"}
        return order | other

    def send(self, upload: dict[str, Any], data: bytes, offset: int) -> httpx.Response:
        return self("PATCH", f"/uploads/{upload['id']}?offset={offset}", content=data)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    path = make_srpm("hello-noarch", tmp_path)
    with driven_farm(tmp_path) as driven, served(driven.settings) as address:
        made = Site(driven, address, path)
        with made.client:
            yield made


def test_a_file_is_sent_in_parts_and_enqueued(site: Site) -> None:
    begun = site.begin()
    assert (begun["offset"], begun["is_finished"]) == (0, False)
    half = len(site.data) // 2
    assert site.send(begun, site.data[:half], 0).json()["offset"] == half
    again = site.begin()  # as after a restart of the client
    assert (again["id"], again["offset"]) == (begun["id"], half)
    wrong = site.send(begun, b"x", 3)
    assert (wrong.status_code, f"has {half} bytes" in wrong.json()["detail"]) == (409, True)
    early = site("POST", f"/uploads/{begun['id']}/finish")
    assert (early.status_code, "send the rest first" in early.json()["detail"]) == (409, True)
    order = {"target": "demo", "upload": site.sha256}
    assert site("POST", "/builds", json=order).status_code == 404
    assert site.send(begun, site.data[half:], half).json()["offset"] == len(site.data)
    for _ in range(2):
        assert site("POST", f"/uploads/{begun['id']}/finish").json()["is_finished"] is True
    assert site.send(begun, b"x", len(site.data)).status_code == 409
    build = site("POST", "/builds", json=order).json()
    assert (build["source"]["sha256"], build["source"]["filename"]) == (site.sha256, site.path.name)
    with open_store(site.driven.settings).open(site.sha256) as file:
        assert file.read() == site.data
    assert list((site.driven.settings.data / "uploads").iterdir()) == []
    assert site("POST", "/builds", BOB, json=order).status_code == 404, "an upload is its actor's own"


def test_another_actors_upload_is_not_there(site: Site) -> None:
    begun = site.begin()
    for method, path in (("GET", ""), ("PATCH", "?offset=0"), ("POST", "/finish"), ("DELETE", "")):
        assert site(method, f"/uploads/{begun['id']}{path}", BOB).status_code == 404
    assert site.begin(BOB)["id"] != begun["id"]
    assert site("DELETE", f"/uploads/{begun['id']}").status_code == 204
    assert site("GET", f"/uploads/{begun['id']}").status_code == 404


@pytest.mark.parametrize(
    ("other", "status", "says"),
    [
        ({"size_bytes": 0}, 400, "size_bytes is 0"),
        ({"size_bytes": 2**33}, 400, "a source package has 1 to"),
        ({"sha256": "A" * 64}, 400, "lower-case"),
        ({"sha256": "x"}, 400, "sha256 'x'"),
        ({"filename": "../x.src.rpm"}, 400, "filename"),
        ({"filename": "a\nb"}, 400, "filename"),
        ({"target": "dmeo"}, 404, "did you mean demo"),
    ],
)
def test_a_wrong_beginning_is_refused(site: Site, other: dict[str, Any], status: int, says: str) -> None:
    answer = site("POST", "/uploads", json=site.order(**other))
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


def test_a_wrong_content_is_refused_and_begins_again(site: Site) -> None:
    begun = site.begin()
    more = site.send(begun, site.data + b"x", 0)
    assert (more.status_code, "more than the" in more.json()["detail"]) == (400, True)
    site.send(begun, site.data[:-1] + b"x", 0)
    answer = site("POST", f"/uploads/{begun['id']}/finish")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-source")
    assert site.begin()["offset"] == 0
    text = b"no source package\n" * 10
    other = site.begin(sha256=hashlib.sha256(text).hexdigest(), size_bytes=len(text))
    site.send(other, text, 0)
    answer = site("POST", f"/uploads/{other['id']}/finish")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-source")


def test_an_actor_has_so_many_and_so_much_at_once(site: Site) -> None:
    for number in range(uploads.COUNT_MAX):
        site.begin(sha256=f"{number:064x}")
    answer = site("POST", "/uploads", json=site.order(sha256=f"{99:064x}"))
    assert (answer.status_code, "10 unfinished uploads" in answer.json()["detail"]) == (409, True)
    assert site("POST", "/uploads", BOB, json=site.order(size_bytes=uploads.SRPM_MAX_BYTES)).status_code == 201
    for number, status in ((1, 201), (2, 409)):
        order = site.order(size_bytes=uploads.SRPM_MAX_BYTES, sha256=f"{number:064x}")
        assert site("POST", "/uploads", BOB, json=order).status_code == status


def test_an_upload_ends_after_a_day(site: Site) -> None:
    begun = site.begin()
    site.send(begun, site.data[:10], 0)
    with site.driven.store.writing() as connection:
        connection.execute(
            sa.text("UPDATE upload SET expires_at = :at"),
            {"at": f"{datetime.now(UTC) - timedelta(1):%Y-%m-%d %H:%M:%S.%f}"},
        )
    assert site("GET", f"/uploads/{begun['id']}").status_code == 404
    assert site.begin()["offset"] in (0, 10), "the part may be used again, since the digest is checked"


# --- the client -------------------------------------------------------------------------------------------------


def _farm(site: Site, shown: list[tuple[str, int, int]]) -> RemoteFarm:
    return RemoteFarm(HttpClient(site.address, site.tokens["ann"]), lambda *one: shown.append(one))


def test_a_local_source_package_is_uploaded_by_the_client(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_upload, "_LEAST", 512)
    sent, shown = 0, list[tuple[str, int, int]]()
    patch = HttpClient.patch

    def lossy(http: HttpClient, kind: type[Upload], /, *path: str | int, data: bytes, offset: int) -> Upload:
        """Every second answer is lost, and the first part comes to nothing."""
        nonlocal sent
        sent += 1
        if sent == 1:
            raise FarmNotRunning("no connection")
        found = patch(http, kind, *path, data=data[:1000], offset=offset)
        if sent % 2 == 0:
            raise FarmNotRunning("the connection broke")
        return found

    monkeypatch.setattr(HttpClient, "patch", lossy)
    monkeypatch.setattr(client_upload, "_PAUSE_S", 0.01)
    with _farm(site, shown) as farm:
        build = farm.enqueue(srpm=site.path, target="demo", arches=["x86_64"])
        assert (build.last.source.sha256, sent > 2) == (site.sha256, True)
        assert shown[-1] == (site.path.name, len(site.data), len(site.data))
        with pytest.raises(BadSource, match="does not exist"):
            farm.request(srpm=site.path.with_name("none.src.rpm"), target="demo")
        (wrong := site.path.with_name("text.src.rpm")).write_text("no package")
        with pytest.raises(BadSource, match=r"text\.src\.rpm"):
            farm.request(srpm=wrong, target="demo")


def test_it_is_typed_with_progress(site: Site, tmp_path: Path) -> None:
    (token := tmp_path / "token").write_text(site.tokens["ann"])
    env = {"FARM_URL": site.address, "FARM_TOKEN_FILE": str(token), "FARM_DATA": str(tmp_path / "none")}

    def typed(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), env=env, prog_name="farm")

    made = typed("build", str(site.path), "-t", "demo", "-a", "x86_64", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["build"]["source"]["sha256"] == site.sha256
    assert f"uploading {site.path.name}" in made.stderr
    assert typed("build", str(site.path), "--srpm", "x", "-t", "demo").exit_code == 20
    assert typed("build", str(site.path), "--ref", "x", "-t", "demo").exit_code == 20
