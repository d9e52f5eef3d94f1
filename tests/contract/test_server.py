"""The HTTP server: its routes and the role that each takes, its errors, and what it refuses. Redis is a real one."""

import http.client
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from typer.testing import CliRunner

from farm.cli.main import app
from farm.config import Settings
from farm.model.actor import Role
from farm.server.app import BODY_MAX_BYTES, make_api
from farm.service.connections import Connections
from farm.service.service import FarmService
from farm.store.store import Store
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.served import served

ROOT = Path(__file__).parents[2]
ORDER = {"git": "https://example.org/hello.git", "target": "demo", "arches": ["x86_64"]}
UPLOAD = {"filename": "a-1-1.src.rpm", "size_bytes": 10, "sha256": "0" * 64, "target": "demo"}
R, P, M, OP, A = Role


@dataclass(frozen=True, kw_only=True)
class Route:
    """A request that each route is tried with, and the roles that may make it on what another owns."""

    roles: set[Role] = field(default_factory=lambda: set(Role))
    body: object = None
    path: str = ""
    status: int = 200
    stays_open: bool = False


READ = Route()
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/api/v1/builds"): READ,
    ("POST", "/api/v1/builds"): Route(roles={P, M, A}, body=ORDER, status=201),
    ("POST", "/api/v1/requests"): Route(roles={P, M, A}, body=ORDER),
    ("POST", "/api/v1/batches"): Route(roles={A}, body={"builds": [ORDER], "owner": "ann"}, status=201),
    ("GET", "/api/v1/batches/{batch_id}"): Route(path="/api/v1/batches/1"),
    ("GET", "/api/v1/builds/{build_id}"): Route(path="/api/v1/builds/1"),
    ("GET", "/api/v1/builds/{build_id}/steps"): Route(path="/api/v1/builds/1/steps"),
    ("POST", "/api/v1/builds/{build_id}/cancel"): Route(roles={M, A}, path="/api/v1/builds/2/cancel"),
    ("POST", "/api/v1/builds/{build_id}/retry"): Route(roles={M, A}, path="/api/v1/builds/3/retry", body={}),
    ("GET", "/api/v1/builds/{build_id}/log"): Route(path="/api/v1/builds/1/log"),
    ("GET", "/api/v1/events"): Route(stays_open=True),
    ("GET", "/api/v1/artifacts/{sha256}"): Route(path="/api/v1/artifacts/{sha256}"),
    ("POST", "/api/v1/uploads"): Route(roles={P, M, A}, body=UPLOAD, status=201),
    ("GET", "/api/v1/uploads/{upload_id}"): Route(roles={P, M, A}, path="/api/v1/uploads/{upload}"),
    ("PATCH", "/api/v1/uploads/{upload_id}"): Route(roles={P, M, A}, path="/api/v1/uploads/{upload}?offset=0"),
    ("POST", "/api/v1/uploads/{upload_id}/finish"): Route(roles={P, M, A}, path="/api/v1/uploads/{upload}/finish"),
    ("DELETE", "/api/v1/uploads/{upload_id}"): Route(roles={P, M, A}, path="/api/v1/uploads/{upload}", status=204),
    ("GET", "/api/v1/targets"): READ,
    ("GET", "/api/v1/targets/{name}"): Route(path="/api/v1/targets/demo"),
    ("GET", "/api/v1/repositories/{target}"): Route(path="/api/v1/repositories/demo"),
    ("GET", "/api/v1/repositories/{target}/name"): Route(path="/api/v1/repositories/demo/name"),
    ("GET", "/api/v1/repositories/{target}/versions"): Route(path="/api/v1/repositories/demo/versions"),
    ("POST", "/api/v1/repositories/{target}/rollback"): Route(
        roles={M, A}, path="/api/v1/repositories/demo/rollback", body={"to": 0}
    ),
    ("GET", "/repos/{path}"): Route(path="/repos/demo/x86_64/os/current/repodata/repomd.xml"),
    ("HEAD", "/repos/{path}"): Route(path="/repos/demo/x86_64/os/current/repodata/repomd.xml"),
    ("GET", "/api/v1/repository-checks"): READ,
    ("GET", "/api/v1/ping"): Route(status=204),
    ("GET", "/api/v1/workers"): READ,
    ("GET", "/api/v1/holds"): READ,
    ("GET", "/api/v1/running"): READ,
    ("GET", "/api/v1/slots"): READ,
    ("GET", "/api/v1/queues"): READ,
    ("POST", "/api/v1/hosts/{host}/drain"): Route(roles={OP, A}, path="/api/v1/hosts/one/drain", body={}),
    ("POST", "/api/v1/hosts/{host}/undrain"): Route(roles={OP, A}, path="/api/v1/hosts/two/undrain"),
    ("POST", "/api/v1/gc"): Route(roles={OP, A}, body={"since": "2026-01-01T00:00:00Z", "dry_run": True}),
    ("GET", "/api/v1/whoami"): READ,
    ("GET", "/api/v1/audit"): Route(roles={OP, A}),
    ("GET", "/metrics"): READ,
    ("GET", "/api/v1/tokens"): Route(roles={A}),
    ("POST", "/api/v1/tokens"): Route(roles={A}, body={"name": "x", "roles": ["reader"]}, status=201),
    ("POST", "/api/v1/tokens/{token_id}/revoke"): Route(roles={A}, path="/api/v1/tokens/{token}/revoke"),
    ("GET", "/api/v1/projects"): READ,
    ("POST", "/api/v1/projects"): Route(roles={A}, body={"name": "p", "targets": ["demo"]}, status=201),
    ("GET", "/api/v1/projects/{project}"): Route(path="/api/v1/projects/perl"),
    ("POST", "/api/v1/projects/{project}/settings"): Route(
        roles={A}, path="/api/v1/projects/perl/settings", body={"title": "Perl"}
    ),
    ("POST", "/api/v1/projects/{project}/members"): Route(
        roles={A}, path="/api/v1/projects/perl/members", body={"actor": "cid", "role": "packager"}
    ),
    ("POST", "/api/v1/projects/{project}/remove"): Route(roles={A}, path="/api/v1/projects/old/remove"),
    ("POST", "/api/v1/projects/{project}/restore"): Route(roles={A}, path="/api/v1/projects/old/restore"),
    ("GET", "/api/v1/projects/{project}/packages"): Route(path="/api/v1/projects/perl/packages"),
    ("POST", "/api/v1/projects/{project}/packages"): Route(
        roles={A},
        path="/api/v1/projects/perl/packages",
        body={"name": "b", "git": ORDER["git"], "replaces": True},
        status=201,
    ),
    ("GET", "/api/v1/projects/{project}/packages/{package}"): Route(path="/api/v1/projects/perl/packages/hello"),
    ("POST", "/api/v1/projects/{project}/packages/{package}/remove"): Route(
        roles={A}, path="/api/v1/projects/perl/packages/spare/remove"
    ),
}
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}


class Site:
    """A farm with builds of Ann's, its server, and a client for each role."""

    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven = driven
        self.address = address
        self.secrets = {role: driven.farm.new_token(name=role, roles=[role], bearer="bob").secret for role in Role}
        self.sha256 = ""
        self.client = httpx.Client(trust_env=False, timeout=60)

    def __call__(self, role: Role | None, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.secrets[role]}"} if role else {}
        sent = {} if body is None else {"json": body}
        stays_open = more.pop("stays_open", False)
        request = self.client.build_request(
            method, f"{self.address}{path}", headers=headers | more.pop("headers", {}), **sent, **more
        )
        answer = self.client.send(request, stream=stays_open)
        if stays_open:
            answer.close()
        return answer

    def upload(self) -> int:
        """An upload of Bob's that has begun."""
        service = self.driven.farm._service
        return service._uploads.create("bob", **UPLOAD).id  # type: ignore[arg-type]

    def prepare(self) -> None:
        """A finished build, one that goes on, one that was cancelled, a drained host, and projects."""
        farm = self.driven.farm
        for _ in range(3):
            farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        self.driven.finish(1)
        farm.cancel(3)
        farm.drain_host("two", force=True)
        farm.repository("demo", "x86_64")
        self.sha256 = farm.artifacts(1)[0].artifact.sha256
        for name in ("perl", "old"):
            farm.new_project(name, targets=["demo"])
        farm.add_package("perl", "hello", git="https://example.org/hello.git")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("served")) as driven, served(driven.settings) as address:
        made = Site(driven, address)
        made.prepare()
        yield made
        made.client.close()


@pytest.fixture(scope="module")
def api(site: Site) -> Iterator[Any]:
    service = FarmService(Connections.open(site.driven.settings))
    yield make_api(service)
    service.close()


def test_every_route_is_tried(api: Any) -> None:
    described = {
        (method.upper(), path)
        for path, item in api.openapi_schema.to_schema()["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete", "head")
    }
    assert described == set(ROUTES) | OPEN
    mounted = {route.path for route in api.routes if not route.path.startswith("/api/v1/openapi.json")}
    assert {re.sub(":[a-z]+}", "}", path) for path in mounted} == {path for _, path in described}


@pytest.mark.parametrize("key", ROUTES, ids=" ".join)
def test_a_route_takes_exactly_its_roles(site: Site, key: tuple[str, str]) -> None:
    method, path, route = key[0], ROUTES[key].path or key[1], ROUTES[key]
    token = site.driven.farm.new_token(name="spare", roles=[R]).token.id
    path = path.replace("{sha256}", site.sha256).replace("{token}", str(token))
    if "spare/remove" in path:
        site.driven.farm.add_package("perl", "spare", git="https://example.org/spare.git", replaces=True)
    leases = site.driven.farm._service._on.leases  # type: ignore[attr-defined]
    leases.announce(worker_facts("build@one"))
    first_path, path = path, path.replace("{upload}", "1")
    if "undrain" in path:
        site.driven.farm.drain_host("two", force=True)
    refused = site(None, method, path, route.body)
    scheme = refused.headers["www-authenticate"].split()[0]
    assert (refused.status_code, scheme) == (401, "Basic" if path.startswith("/repos/") else "Bearer")
    for role in set(Role) - route.roles:
        answer = site(role, method, path, route.body)
        assert (answer.status_code, answer.json()["code"]) == (403, "not-permitted"), role
    for role in sorted(route.roles, key=list(Role).index):
        path = first_path.replace("{upload}", str(site.upload()))
        answer = site(role, method, path, route.body, stays_open=route.stays_open)
        # The same cancel, revoke or undrain again is refused for its state, and not for its actor.
        assert answer.status_code in (route.status, 409), (role, answer.text)


def test_the_probes_need_no_token(site: Site, tmp_path: Path) -> None:
    assert site(None, "GET", "/healthz").json()["status"] == "ok"
    assert site(None, "GET", "/readyz").json() == {"database": True, "broker": True}
    with driven_farm(tmp_path, with_redis=False) as driven, served(driven.settings) as address:
        answer = httpx.get(f"{address}/readyz")
        assert (answer.status_code, answer.json()) == (503, {"database": True, "broker": False})


def test_the_published_description_is_the_server_s(api: Any) -> None:
    """A change of the API shows in the change of this file: `python -m tests.describe_api > docs/openapi.json`."""
    assert json.loads((ROOT / "docs/openapi.json").read_text()) == json.loads(
        json.dumps(api.openapi_schema.to_schema())
    )


# --- who asks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic YTpi",
        "Bearer nonsense",
        "Bearer farm_1_" + "A" * 43,
        "bearer farm_9_" + "A" * 43,
    ],
)
def test_no_other_word_is_a_token(site: Site, header: str) -> None:
    answer = site(None, "GET", "/api/v1/builds", headers={"authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "not-logged-in")
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_tokens_are_none(site: Site) -> None:
    headers = [("authorization", f"Bearer {site.secrets[A]}")] * 2
    assert httpx.get(f"{site.address}/api/v1/builds", headers=headers).status_code == 401


def test_a_revoked_token_is_refused_at_once(site: Site) -> None:
    made = site.driven.farm.new_token(name="x", roles=[R])
    headers = {"authorization": f"Bearer {made.secret}"}
    assert site(None, "GET", "/api/v1/whoami", headers=headers).json() == {
        "name": "ann",
        "roles": ["reader"],
        "uid": None,
        "origin": "127.0.0.1",
        "project": None,
    }
    site.driven.farm.revoke_token(made.token.id)
    answer = site(None, "GET", "/api/v1/whoami", headers=headers)
    assert (answer.status_code, "is revoked since" in answer.json()["detail"]) == (401, True)


def test_without_a_token_one_may_read_where_the_setting_says_so(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven:
        env = {**driven.env, "FARM_SERVER_ANONYMOUS": "1", "FARM_SERVER_HOSTS": "farm.example, build.example"}
        with served(Settings.from_env(env)) as address:
            assert httpx.get(f"{address}/api/v1/builds").json() == {"builds": [], "next": None}
            assert httpx.post(f"{address}/api/v1/builds", json=ORDER).status_code == 403
            assert httpx.get(f"{address}/api/v1/tokens").status_code == 403
            for host, status in (("farm.example", 200), ("BUILD.example:443", 200), ("evil.example", 400)):
                assert httpx.get(f"{address}/healthz", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a@127.0.0.1.x", "é"])
def test_a_request_for_another_host_is_refused(site: Site, host: str) -> None:
    answer = _raw(site, "GET", "/healthz", [("Host", host)])
    assert (answer.status, json.loads(answer.body)["field"]) == (400, "Host")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_secret_is_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        site(A, "POST", "/api/v1/tokens", {"name": "x", "roles": ["reader"]})
        site(None, "GET", "/api/v1/builds", headers={"authorization": "Bearer farm_1_" + "S" * 43})
        site(A, "POST", "/api/v1/builds", {**ORDER, "git": "https://me:hunter2@example.org/a.git"})
    said = caplog.text
    assert "made token" in said
    for secret in (*(one.split("_", 2)[2] for one in site.secrets.values()), "S" * 43, "hunter2"):
        assert secret not in said


# --- the process ------------------------------------------------------------------------------------------------


def test_farm_server_serves_until_sigterm(site: Site) -> None:
    env = {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1", **site.driven.env}
    argv = [sys.executable, "-m", "farm.cli.main", "server", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        argv, env=env, stderr=subprocess.PIPE, text=True, cwd=ROOT, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stderr
        address = process.stderr.readline().removeprefix("serving on ").partition(";")[0]
        headers = {"authorization": f"Bearer {site.secrets[R]}"}
        assert site.client.get(f"{address}/api/v1/whoami", headers=headers).json()["roles"] == ["reader"]
        process.send_signal(signal.SIGTERM)
        assert (process.wait(30), "Traceback" in process.stderr.read()) == (0, False)


@pytest.mark.parametrize("listen", ["127.0.0.1", ":8780", "127.0.0.1:x", "127.0.0.1:65536", "[::1", "a b:1"])
def test_an_address_that_cannot_be_is_refused(listen: str) -> None:
    result = CliRunner().invoke(app, ["server", "--listen", listen])
    assert (result.exit_code, "use 127.0.0.1:8780" in result.stderr) == (20, True)


# --- wrong requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({**ORDER, "target": "dmeo"}, 404, "unknown-target", "did you mean demo"),
        ({**ORDER, "arches": ["s390x"]}, 404, "unknown-arch", "'s390x'"),
        ({**ORDER, "priority": 9999}, 400, "bad-request", "--priority 9999"),
        ({**ORDER, "priority": "high"}, 400, "bad-request", "priority: Expected `int`"),
        ({**ORDER, "prio": 3}, 400, "bad-request", "unknown field `prio`"),
        ({**ORDER, "git": "/etc"}, 400, "bad-source", "for its users alone"),
        ({**ORDER, "git": "ext::sh"}, 400, "bad-source", "for its users alone"),
        ({**ORDER, "git": "file:///etc"}, 400, "bad-source", "for its users alone"),
        ({**ORDER, "srpm": "/etc/passwd", "git": None}, 400, "bad-source", "for its users alone"),
        ({**ORDER, "limits": {"memory_bytes": 1}}, 400, "bad-request", "memory=1 is out of range"),
        ({**ORDER, "ref": "\0"}, 400, "bad-source", "not a name that git allows"),
        ({"target": "demo"}, 400, "bad-request", "either a git repository or a src.rpm"),
        ([], 400, "bad-request", "Expected `object`, got `array`"),
        (None, 400, "bad-request", "no body"),
    ],
)
def test_a_wrong_order_names_the_field_the_value_and_the_next_step(
    site: Site, body: object, status: int, code: str, says: str
) -> None:
    before = len(site.driven.farm.builds(limit=1000))
    answer = site(A, "POST", "/api/v1/builds", body)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:farm:error:{code}")
    assert says in problem["detail"]
    assert len(site.driven.farm.builds(limit=1000)) == before


def test_a_body_over_the_limit_is_refused_with_and_without_its_length(site: Site) -> None:
    headers = [
        ("Host", "localhost"),
        ("Authorization", f"Bearer {site.secrets[A]}"),
        ("Content-Type", "application/json"),
    ]
    size = BODY_MAX_BYTES + 1
    assert site(A, "POST", "/api/v1/batches", content=b" " * size).status_code == 413
    chunk = b"%x\r\n" % 2**16 + b" " * 2**16 + b"\r\n"
    chunked = [*headers, ("Transfer-Encoding", "chunked")]
    assert _raw(site, "POST", "/api/v1/batches", chunked, chunk * (size // 2**16 + 1) + b"0\r\n\r\n").status == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not-found"),
        ("GET", "/api/v1/nope", 404, "not-found"),
        ("GET", "/api/v1/builds/99", 404, "not-found"),
        ("GET", f"/api/v1/builds/{10**30}", 400, "bad-request"),
        ("GET", "/api/v1/builds/-1", 400, "bad-request"),
        ("GET", "/api/v1/builds?limit=1001", 400, "bad-request"),
        ("GET", "/api/v1/builds?before=0", 400, "bad-request"),
        ("GET", "/api/v1/builds?target=%00", 400, "bad-request"),
        ("GET", "/api/v1/builds?status=lost", 400, "bad-request"),
        ("GET", "/api/v1/builds/1/log?step=compile", 400, "bad-request"),
        ("GET", "/api/v1/builds/1/log?attempt=7", 404, "not-found"),
        ("GET", "/api/v1/artifacts/..%2f..%2ffarm.db", 404, "not-found"),
        ("GET", "/api/v1/repositories/demo/versions?kind=doc", 400, "bad-request"),
        ("GET", "/api/v1/audit?verb=destroy", 400, "bad-request"),
        ("GET", "/api/v1/audit?since=soon", 400, "bad-request"),
        ("GET", "/api/v1/audit?since=9999-12-31T23:59:59-12:00", 400, "bad-request"),
        ("DELETE", "/api/v1/builds/1", 405, "bad-request"),
    ],
)
def test_a_wrong_address_has_a_problem(site: Site, method: str, path: str, status: int, code: str) -> None:
    answer = site(A, method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_builds_are_paged_by_the_last_one_seen(site: Site) -> None:
    seen: list[int] = []
    query = "limit=2"
    while query:
        page = site(R, "GET", f"/api/v1/builds?{query}").json()
        seen += [build["id"] for build in page["builds"]]
        query = f"limit=2&before={page['next']}" if page["next"] else ""
    assert seen == [build.id for build in site.driven.farm.builds(limit=1000)]


def test_a_log_is_read_part_by_part(site: Site) -> None:
    whole = b"".join(site.driven.farm.log(1, "build"))
    found, over = b"", "false"
    while over == "false":
        answer = site(R, "GET", f"/api/v1/builds/1/log?step=build&limit=5&offset={len(found)}")
        found, over = found + answer.content, answer.headers["farm-log-over"]
    assert (found, answer.headers["farm-attempt"]) == (whole, "1.build.x86_64.1")
    assert site(R, "GET", "/api/v1/builds/1/log?step=build&offset=1000").content == b""


def test_a_fault_of_the_farm_is_told_without_its_cause(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret cause")

    monkeypatch.setattr(Store, "queue_counts", fail)
    answer = site(R, "GET", "/api/v1/queues")
    assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
    assert ("a secret cause" in answer.text, "a secret cause" in caplog.text) == (False, True)


@pytest.mark.parametrize(
    ("role", "mode"), [*((role, GenerationMode.POSITIVE) for role in Role), (A, GenerationMode.NEGATIVE)], ids=str
)
def test_no_generated_request_is_a_fault_of_the_farm(site: Site, api: Any, role: Role, mode: GenerationMode) -> None:
    """POSITIVE requests are those that the description allows, NEGATIVE ones those that it does not."""
    schema = schemathesis.openapi.from_dict(api.openapi_schema.to_schema())
    schema.config.base_url = site.address
    for found in schema.exclude(path="/api/v1/events").get_all_operations():  # an answer without an end
        _try(found.ok(), {"authorization": f"Bearer {site.secrets[role]}"}, mode)  # type: ignore[union-attr]


def _try(operation: Any, headers: dict[str, str], mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def attempt(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=[not_a_server_error])

    attempt()


# --- raw requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Raw:
    status: int
    headers: dict[str, str]
    body: bytes


def _raw(site: Site, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> Raw:
    """A request with exactly these headers. The server may answer before it has read the whole body."""
    parts = urlsplit(site.address)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.encode())
        connection.endheaders()
        sender = threading.Thread(target=_send, args=(connection.send, body))
        sender.start()
        answer = connection.getresponse()
        found = Raw(
            status=answer.status,
            headers={name.lower(): value for name, value in answer.getheaders()},
            body=answer.read(),
        )
        sender.join()
    return found


def _send(send: Callable[[bytes], None], body: bytes) -> None:
    with suppress(OSError):
        send(body)
