"""The accounts that the farm gets in Pulp: they can do all that it does there, and nothing else."""

import hashlib
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from plumbum import local

from deploy.pulp.accounts import Purpose, make_account, make_publisher, make_reader
from deploy.pulp.administration import Account
from deploy.pulp.administration import local as administration
from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp
from deploy.pulp.processes import until
from tests.rpms import make_rpm

_SCRIPT = Path(__file__).parent.parent.parent / "deploy/pulp/service-account"
_TASK_WITHIN_S = 60.0
_ENDED = {"completed", "failed", "canceled", "skipped"}
_PLUGINS = ("rpm", "file")

pytestmark = pytest.mark.live


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Pulp's API as one user sees it: `ask` gives the code and the JSON, after the end of the task if there is one."""

    api: httpx.Client

    def ask(self, method: str, path: str, **what: Any) -> tuple[int, Any]:
        place = path if path.startswith("/") else f"/pulp/api/v3/{path}"
        answer = self.api.request(method, place, **what)
        body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if answer.status_code != httpx.codes.ACCEPTED:
            return answer.status_code, body
        task = self.api.get(body["task"])
        assert task.status_code == httpx.codes.OK, task.text

        def ended() -> bool:
            return self.api.get(body["task"]).json()["state"] in _ENDED

        until(ended, _TASK_WITHIN_S, f"the task of {method} {path}")
        return answer.status_code, self.api.get(body["task"]).json()

    def done(self, method: str, path: str, **what: Any) -> Any:
        """As `ask`, of what is to succeed."""
        code, body = self.ask(method, path, **what)
        assert code < 300, f"{method} {path}: {code} {body}"
        assert body.get("state", "completed") == "completed", body
        return body

    def code(self, method: str, path: str, **what: Any) -> int:
        return self.ask(method, path, **what)[0]


@contextmanager
def asking(pulp: LocalPulp, account: Account) -> Iterator[Asker]:
    with httpx.Client(base_url=pulp.url, timeout=60) as api:
        login = api.post("/pulp/api/v3/login/", auth=(account.username, account.password))
        assert login.status_code == httpx.codes.CREATED, login.text
        api.headers["X-CSRFToken"] = api.cookies["csrftoken"]
        yield Asker(api=api)


@pytest.fixture(scope="module")
def admin(pulp: LocalPulp) -> Iterator[Asker]:
    with asking(pulp, Account(username=pulp.username, password=pulp.password)) as asker:
        yield asker


@pytest.fixture(scope="module")
def publisher(pulp: LocalPulp) -> Iterator[Asker]:
    with asking(pulp, make_publisher(pulp)) as asker:
        yield asker


@pytest.fixture(scope="module")
def reader(pulp: LocalPulp) -> Iterator[Asker]:
    with asking(pulp, make_reader(pulp)) as asker:
        yield asker


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rpm(tmp_path_factory.mktemp("rpm"), f"accounts-{secrets.token_hex(4)}")


@pytest.mark.parametrize("plugin", _PLUGINS)
def test_the_publisher_publishes_serves_looks_and_removes(
    publisher: Asker, pulp: LocalPulp, plugin: str, name: str, rpm: Path
) -> None:
    """Every kind of request that the farm makes, in the order in which it makes them."""
    kind = f"{plugin}/{plugin}"
    repository = publisher.done("POST", f"repositories/{kind}/", json={"name": name})["pulp_href"]
    publisher.done("PATCH", repository, json={"retain_repo_versions": 3, "pulp_labels": {"target": "demo"}})
    assert publisher.done("GET", f"repositories/{kind}/", params={"name": name})["count"] == 1
    content = _uploaded(publisher, plugin, name, rpm)
    _, task = publisher.ask("POST", f"{repository}modify/", json={"add_content_units": [content]})
    assert task["state"] == "completed"
    version = f"{repository}versions/1/"
    assert publisher.done("GET", version)["number"] == 1
    units = publisher.done("GET", f"content/{_content(plugin)}/", params={"repository_version": version})["results"]
    assert [unit["pulp_labels"] for unit in units] == [{"build": "7"}]
    made = publisher.done("POST", f"publications/{kind}/", json={"repository_version": version})
    publication = made["created_resources"][0]
    assert publisher.done("GET", publication)["repository_version"] == version
    for place in ("current", "1"):
        served = {"name": f"{name}/{place}", "base_path": f"{name}/{place}", "publication": publication}
        publisher.done("POST", f"distributions/{kind}/", json=served)
    found = publisher.done("GET", f"distributions/{kind}/", params={"name__in": f"{name}/current,{name}/1"})["results"]
    publisher.done("PATCH", found[0]["pulp_href"], json={"publication": None, "repository": repository})
    assert httpx.get(f"{pulp.content_url}{name}/current/").status_code == httpx.codes.OK
    publisher.done("DELETE", found[1]["pulp_href"])
    publisher.done("DELETE", publication)
    publisher.done("DELETE", version)
    publisher.done("DELETE", found[0]["pulp_href"])
    publisher.done("DELETE", repository)


def test_the_publisher_sends_large_files_in_chunks(publisher: Asker, name: str) -> None:
    data = secrets.token_bytes(2048)
    upload = publisher.done("POST", "uploads/", json={"size": len(data)})["pulp_href"]
    for start in (0, 1024):
        span = f"bytes {start}-{start + 1023}/{len(data)}"
        chunk = {"file": ("chunk", data[start : start + 1024])}
        publisher.done("PUT", upload, files=chunk, headers={"Content-Range": span})
    body = {"relative_path": name, "upload": upload}
    sent = publisher.done("POST", "content/file/files/upload/", data=body)
    assert sent["sha256"] == hashlib.sha256(data).hexdigest()


def test_the_publisher_cancels_its_own_task(pulp: LocalPulp, publisher: Asker, name: str) -> None:
    repository = publisher.done("POST", "repositories/file/file/", json={"name": name})["pulp_href"]
    workers = [process for process in pulp.processes if process.startswith("worker-")]
    for worker in workers:
        pulp.stop_one(worker)
    try:
        asked = publisher.api.post("/pulp/api/v3/publications/file/file/", json={"repository": repository}).json()
        cancelled = publisher.api.patch(asked["task"], json={"state": "canceled"})
        assert cancelled.status_code == httpx.codes.OK, cancelled.text
        assert cancelled.json()["state"] in ("canceling", "canceled")
    finally:
        for worker in workers:
            pulp.start_one(worker)


@pytest.mark.parametrize("plugin", _PLUGINS)
def test_the_publisher_cannot_change_objects_of_others(admin: Asker, publisher: Asker, plugin: str, name: str) -> None:
    kind = f"{plugin}/{plugin}"
    repository = admin.done("POST", f"repositories/{kind}/", json={"name": name})["pulp_href"]
    served = {"name": name, "base_path": name, "repository": repository}
    distribution = admin.done("POST", f"distributions/{kind}/", json=served)["created_resources"][0]
    for method, path, body in (
        ("DELETE", repository, None),
        ("PATCH", repository, {"description": "mine"}),
        ("POST", f"{repository}modify/", {"add_content_units": []}),
        ("POST", f"publications/{kind}/", {"repository": repository}),
        ("DELETE", distribution, None),
        ("PATCH", distribution, {"repository": None}),
    ):
        assert publisher.code(method, path, json=body) in (400, 403, 404), (method, path)
    assert admin.done("GET", repository)["latest_version_href"] == f"{repository}versions/0/"
    assert publisher.done("GET", f"repositories/{kind}/", params={"name": name})["count"] == 0


_FOREIGN = (
    ("POST", "users/", {"username": "mallory", "password": secrets.token_urlsafe()}),
    ("POST", "groups/", {"name": "mallory"}),
    ("POST", "roles/", {"name": "mallory", "permissions": ["core.add_upload"]}),
    ("GET", "users/", None),
    ("POST", "remotes/rpm/rpm/", {"name": "r", "url": "http://127.0.0.1:1/", "policy": "immediate"}),
    ("POST", "contentguards/core/rbac/", {"name": "g"}),
    ("POST", "orphans/cleanup/", {}),
    ("POST", "repair/", {}),
    ("POST", "exporters/core/pulp/", {"name": "e", "path": "/nowhere", "repositories": []}),
)


@pytest.mark.parametrize(("method", "path", "body"), _FOREIGN, ids=[f"{m}-{p}" for m, p, _ in _FOREIGN])
def test_neither_account_can_do_anything_else(
    publisher: Asker, reader: Asker, method: str, path: str, body: object
) -> None:
    assert publisher.code(method, path, json=body) == httpx.codes.FORBIDDEN
    assert reader.code(method, path, json=body) == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("plugin", _PLUGINS)
def test_the_reader_sees_all_and_changes_nothing(admin: Asker, reader: Asker, plugin: str, name: str) -> None:
    kind = f"{plugin}/{plugin}"
    repository = admin.done("POST", f"repositories/{kind}/", json={"name": name})["pulp_href"]
    publication = admin.done("POST", f"publications/{kind}/", json={"repository": repository})["created_resources"][0]
    served = {"name": name, "base_path": name, "publication": publication}
    distribution = admin.done("POST", f"distributions/{kind}/", json=served)["created_resources"][0]
    for path in (repository, f"{repository}versions/", f"{repository}versions/0/", publication, distribution):
        reader.done("GET", path)
    for listed in ("repositories", "publications", "distributions"):
        assert reader.done("GET", f"{listed}/{kind}/")["count"] >= 1
    for method, path, body in (
        ("POST", f"repositories/{kind}/", {"name": f"{name}-mine"}),
        ("DELETE", repository, None),
        ("PATCH", repository, {"description": "mine"}),
        ("POST", f"{repository}modify/", {"add_content_units": []}),
        ("POST", f"publications/{kind}/", {"repository": repository}),
        ("DELETE", publication, None),
        ("PATCH", distribution, {"repository": repository}),
        ("DELETE", distribution, None),
        ("POST", f"content/{_content(plugin)}/upload/", {}),
        ("POST", "uploads/", {"size": 1}),
    ):
        assert reader.code(method, path, json=body) == httpx.codes.FORBIDDEN, (method, path)


_NEEDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rpm.rpmrepository_creator": ("repositories/rpm/rpm/", {"json": {"name": f"t{secrets.token_hex(4)}"}}),
    "rpm.rpmpublication_creator": ("publications/rpm/rpm/", {"json": {}}),
    "rpm.rpmdistribution_creator": ("distributions/rpm/rpm/", {"json": {}}),
    "rpm.rpm_package_uploader": ("content/rpm/packages/upload/", {"files": {"file": ("x.rpm", b"no package")}}),
    "file.filerepository_creator": ("repositories/file/file/", {"json": {"name": f"t{secrets.token_hex(4)}"}}),
    "file.filepublication_creator": ("publications/file/file/", {"json": {}}),
    "file.filedistribution_creator": ("distributions/file/file/", {"json": {}}),
    "file.file_uploader": ("content/file/files/upload/", {"json": {}}),
    "core.upload_creator": ("uploads/", {"json": {"size": 1}}),
}


@pytest.mark.parametrize("role", Purpose.PUBLISHER.roles)
def test_each_role_of_the_publisher_is_needed(admin: Asker, publisher: Asker, role: str) -> None:
    """Without any single one of them, the request that it is for is refused."""
    path, what = _NEEDS[role]
    user = admin.done("GET", "users/", params={"username": "farm-publisher"})["results"][0]["pulp_href"]
    given = admin.done("GET", f"{user}roles/", params={"role": role})["results"][0]["pulp_href"]
    admin.done("DELETE", given)
    try:
        assert publisher.code("POST", path, **what) == httpx.codes.FORBIDDEN
    finally:
        admin.done("POST", f"{user}roles/", json={"role": role, "content_object": None})
    assert publisher.code("POST", path, **what) != httpx.codes.FORBIDDEN


def test_an_administrator_is_not_made_a_service_account(pulp: LocalPulp) -> None:
    with pytest.raises(PulpError, match="is an administrator"):
        make_account(administration(pulp), Purpose.PUBLISHER, username=pulp.username)
    assert httpx.get(f"{pulp.url}/pulp/api/v3/users/", auth=(pulp.username, pulp.password)).status_code == 200


def test_the_script_makes_an_account_and_its_password_and_may_be_repeated(
    pulp: LocalPulp, name: str, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    words = ["publisher", "--url", pulp.url, "--admin-password-file", str(pulp.password_file)]
    words += ["--name", name, "--password-file", str(password)]
    first = local[str(_SCRIPT)](*words)
    assert f"FARM_PULP_USERNAME={name}" in first
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert password.read_text().strip() not in first
    assert local[str(_SCRIPT)](*words) == first
    with asking(pulp, Account(username=name, password=password.read_text().strip())) as asker:
        asker.done("POST", "repositories/rpm/rpm/", json={"name": name})


def test_the_script_names_the_mistake(pulp: LocalPulp, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    words = ["reader", "--admin-password-file", str(wrong), "--password-file", str(tmp_path / "made")]
    code, _, said = local[str(_SCRIPT)].run([*words, "--url", pulp.url], retcode=None)
    assert (code, "does not accept" in said) == (1, True)
    code, _, said = local[str(_SCRIPT)].run([*words, "--url", "http://127.0.0.1:1"], retcode=None)
    assert (code, "does not answer" in said) == (1, True)


def _content(plugin: str) -> str:
    return {"rpm": "rpm/packages", "file": "file/files"}[plugin]


def _uploaded(asker: Asker, plugin: str, name: str, rpm: Path) -> str:
    body = {"pulp_labels": '{"build": "7"}'} | ({"relative_path": f"{name}/log"} if plugin == "file" else {})
    data = {"rpm": rpm.read_bytes(), "file": f"log of {name}".encode()}[plugin]
    sent = asker.done("POST", f"content/{_content(plugin)}/upload/", data=body, files={"file": (rpm.name, data)})
    return str(sent["pulp_href"])
