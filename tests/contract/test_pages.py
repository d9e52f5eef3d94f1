"""The pages without a browser: the role that each takes, sessions, forms, headers, and hostile text. Redis is a real
one."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from farm.config import Settings
from farm.errors import BadSettings
from farm.model.actor import Role
from farm.model.artifact import ArtifactKind
from farm.server.pages.key import server_key
from farm.server.pages.shell import make_pages
from farm.service.connections import Connections
from farm.service.service import FarmService
from farm.store import schema
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.page_client import PageClient
from tests.served import served

R, P, M, OP, A = Role
HOSTILE = '<img src=x onerror="alert(1)">'
REASON = f"error: </script>{HOSTILE}\x1b[31m\u202egnp.exe\x00"
LOG = f"one\n{HOSTILE}\n\x1b[1;31mred\x1b[0m \u202eevil\n{REASON}\n".encode()
#: The largest page.
PAGE_MAX = 200_000


@dataclass(frozen=True, kw_only=True)
class Route:
    """A request that each route is tried with, and the roles that may make it on what another owns."""

    roles: set[Role] = field(default_factory=lambda: set(Role))
    path: str = ""
    form: dict[str, Any] = field(default_factory=dict)
    status: int = 200


READ = Route()
SOURCE = {"kind": "git", "source": "https://example.org/hello.git", "target": "demo", "arch": "x86_64"}
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/"): READ,
    ("GET", "/builds"): READ,
    ("GET", "/builds/new"): Route(roles={P, M, A}),
    ("POST", "/builds/new"): Route(roles={P, M, A}, form=SOURCE, status=303),
    ("GET", "/builds/{build_id}"): Route(path="/builds/1"),
    ("POST", "/builds/{build_id}/cancel"): Route(roles={M, A}, path="/builds/2/cancel", status=303),
    ("POST", "/builds/{build_id}/retry"): Route(roles={M, A}, path="/builds/3/retry", status=303),
    ("POST", "/builds/{build_id}/rebuild"): Route(roles={P, M, A}, path="/builds/1/rebuild", status=303),
    ("GET", "/builds/{build_id}/root"): Route(path="/builds/1/root?arch=x86_64"),
    ("GET", "/builds/{build_id}/log"): Route(path="/builds/1/log"),
    ("GET", "/builds/{build_id}/log/lines"): Route(path="/builds/1/log/lines"),
    ("GET", "/builds/{build_id}/log/search"): Route(path="/builds/1/log/search?q=done"),
    ("GET", "/builds/{build_id}/log/failure"): Route(path="/builds/1/log/failure"),
    ("GET", "/builds/{build_id}/log/raw"): Route(path="/builds/1/log/raw"),
    ("GET", "/artifacts/{sha256}/{name}"): Route(path="/artifacts/{sha256}/a.rpm"),
    ("GET", "/search"): Route(path="/search?q=zzz"),
    ("GET", "/package"): Route(path="/package?name=hello"),
    ("GET", "/me"): READ,
    ("GET", "/hosts"): READ,
    ("POST", "/hosts/drain"): Route(roles={OP, A}, form={"host": "one"}, status=303),
    ("POST", "/hosts/undrain"): Route(roles={OP, A}, form={"host": "two"}, status=303),
    ("GET", "/queues"): READ,
    ("GET", "/targets"): READ,
    ("GET", "/targets/{name}"): Route(path="/targets/demo"),
    ("GET", "/repositories"): READ,
    ("GET", "/repositories/{target}"): Route(path="/repositories/demo?arch=x86_64"),
    ("GET", "/tokens"): Route(roles={A}),
    ("POST", "/tokens"): Route(roles={A}, form={"name": "x", "role": "reader", "days": "3"}),
    ("POST", "/tokens/{token_id}/revoke"): Route(roles={A}, path="/tokens/{token}/revoke", status=303),
    ("GET", "/audit"): Route(roles={OP, A}, path="/audit?verb=drain&since=7d"),
    ("POST", "/logout"): Route(status=303),
}
OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/static/{version}/{name}")}


class Site:
    """A farm with builds of Ann's, its server, and Bob in each role."""

    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven, self.address = driven, address
        farm = driven.farm
        self.secrets = {role: farm.new_token(name=role, roles=[role], bearer="bob").secret for role in Role}
        for _ in range(3):
            farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        driven.finish(1)
        farm.cancel(3)
        farm.drain_host("two", force=True)
        self.sha256 = farm.artifacts(1)[0].artifact.sha256
        hostile = f"https://example.org/{HOSTILE}.git"
        self.hostile = farm.enqueue(git=hostile, target="demo", arches=["x86_64"]).id
        driven.to_build(self.hostile)
        driven.fail(f"{self.hostile}.build.x86_64.1", REASON, LOG)

    def announce(self) -> None:
        self.driven.farm._service._on.leases.announce(worker_facts("build@one"))  # type: ignore[attr-defined]

    def logged_in(self, role: Role) -> PageClient:
        client = PageClient(self.address)
        assert client.login(self.secrets[role]).status_code == 303
        return client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with driven_farm(tmp_path_factory.mktemp("pages")) as driven, served(driven.settings) as address:
        yield Site(driven, address)


@pytest.fixture(scope="module")
def clients(site: Site) -> Iterator[dict[Role, PageClient]]:
    found = {role: site.logged_in(role) for role in Role}
    yield found
    for client in found.values():
        client.close()


@pytest.fixture
def client(site: Site) -> Iterator[PageClient]:
    with closing(PageClient(site.address)) as made:
        yield made


# --- routes and roles -------------------------------------------------------------------------------------------


def test_every_route_is_tried(site: Site) -> None:
    service = FarmService(Connections.open(site.driven.settings))
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in make_pages(service).routes
        for method in route.methods  # type: ignore[union-attr]
        if method not in ("OPTIONS", "HEAD")
    }
    service.close()
    assert routes == set(ROUTES) | OPEN


@pytest.mark.parametrize("key", [key for key in ROUTES if key[1] != "/logout"], ids=" ".join)
def test_a_page_takes_exactly_its_roles(site: Site, clients: dict[Role, PageClient], key: tuple[str, str]) -> None:
    method, route = key[0], ROUTES[key]
    token = site.driven.farm.new_token(name="spare", roles=[R]).token.id
    path = (route.path or key[1]).replace("{sha256}", site.sha256).replace("{token}", str(token))
    site.announce()
    if "undrain" in path:
        site.driven.farm.drain_host("two", force=True)

    def send(client: PageClient) -> httpx.Response:
        return client.get(path) if method == "GET" else client.form(path, route.form)

    for role in set(Role) - route.roles:
        assert send(clients[role]).status_code == 403, role
    for role in sorted(route.roles, key=list(Role).index):
        answer = send(clients[role])
        # The same cancel, revoke or undrain again is refused for its state, and not for its actor.
        assert answer.status_code in (route.status, 409), (role, answer.text)
        assert len(answer.content) < PAGE_MAX
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    with closing(PageClient(site.address)) as stranger:
        stranger.get("/login")
        refused = send(stranger)
        assert (refused.status_code, refused.headers["location"].partition("?")[0]) == (303, "/login")
        if method == "POST":  # without the token of a form
            assert clients[A].http.post(path, data=route.form).status_code == 403


def test_a_page_shows_only_the_forms_that_its_reader_may_send(site: Site, clients: dict[Role, PageClient]) -> None:
    build = site.driven.farm.enqueue(git="https://example.org/shown.git", target="demo", arches=["x86_64"]).id
    reader, admin = (clients[role].get(f"/builds/{build}").text for role in (R, A))
    for word in ("/cancel", "/rebuild"):
        assert (word in reader, word in admin) == (False, True)
    assert ("/tokens" in reader, "/tokens" in admin) == (False, True)
    assert "Drain this host" not in clients[R].get("/hosts").text


# --- sessions ---------------------------------------------------------------------------------------------------


def _cookie(answer: httpx.Response, name: str) -> str:
    return next((one for one in answer.headers.get_list("set-cookie") if one.startswith(name)), "")


def test_a_person_logs_in_and_out(site: Site, client: PageClient) -> None:
    assert client.get("/builds/1?x=1").headers["location"] == "/login?next=%2Fbuilds%2F1%3Fx%3D1"
    answer = client.login(site.secrets[M], "/builds/1?x=1")
    assert answer.headers["location"] == "/builds/1?x=1"
    cookie = _cookie(answer, "farm-session")
    assert ("HttpOnly" in cookie, "SameSite=lax" in cookie, "Secure" in cookie) == (True, True, False)
    assert site.secrets[M].split("_")[2] not in cookie
    assert "bob" in client.get("/").text
    assert client.form("/logout").headers["location"] == "/login"
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("secret", ["", "nonsense", "farm_1_" + "A" * 43, "farm_99_" + "A" * 43, HOSTILE, "é" * 50])
def test_no_other_word_logs_in(client: PageClient, secret: str) -> None:
    answer = client.login(secret)
    assert (answer.status_code, "Log in" in answer.text, HOSTILE in answer.text) == (401, True, False)
    assert client.get("/").status_code == 303


def test_wrong_tokens_are_limited_and_other_people_still_log_in(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven, served(driven.settings) as address:
        service = driven.farm._service  # type: ignore[attr-defined]
        with closing(PageClient(address)) as client:
            secret = driven.farm.new_token(name="x", roles=[R]).secret
            assert client.login(secret).status_code == 303
            service.count_rate("login", "127.0.0.1", 100, window_s=60)
            service.count_rate("login", "127.0.0.1", 100, window_s=60)
            client.form("/logout")
            client.get("/login")
            refused = client.form("/login", {"token": "farm_1_" + "A" * 43})
            assert (refused.status_code, "wrong tokens came from" in refused.text) == (429, True)
            assert client.form("/login", {"token": secret}).status_code == 303


def test_a_person_who_asks_too_often_is_told_so(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven:
        made = Settings.from_env({**driven.env, "FARM_RATE_REQUESTS": "1", "FARM_RATE_ENQUEUES": "1"})
        with served(made) as address, closing(PageClient(address)) as client:
            client.login(driven.farm.new_token(name="x", roles=[A]).secret)
            found = {client.get("/me").status_code for _ in range(12)}
            assert found == {200, 429}


def test_a_session_ends_with_its_token(site: Site, client: PageClient) -> None:
    made = site.driven.farm.new_token(name="x", roles=[R])
    client.login(made.secret)
    assert client.get("/").status_code == 200
    site.driven.farm.revoke_token(made.token.id)
    assert client.get("/").status_code == 303
    short = site.driven.farm.new_token(name="x", roles=[R])
    client.login(short.secret)
    with site.driven.store.writing() as connection:
        ended = schema.token.update().where(schema.token.c.id == short.token.id)
        connection.execute(ended.values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert client.get("/").status_code == 303


def test_a_session_of_another_farm_is_none(site: Site, tmp_path: Path) -> None:
    """The same number of a token, and even the same key, are not enough."""
    with driven_farm(tmp_path) as other:
        (other.settings.data / "server.key").write_bytes((site.driven.settings.data / "server.key").read_bytes())
        (other.settings.data / "server.key").chmod(0o600)
        other.farm.new_token(name="the first of its farm", roles=[A])
        with served(other.settings) as address, closing(site.logged_in(R)) as client:
            cookies = dict(client.http.cookies)
            answer = httpx.get(f"{address}/", cookies=cookies, headers={"accept": "text/html"})
            assert answer.status_code == 303


def test_the_api_takes_no_cookie_and_the_pages_no_token(site: Site) -> None:
    with closing(site.logged_in(A)) as client:
        assert client.get("/api/v1/whoami").status_code == 401
        assert not client.get("/api/v1/whoami").headers.get_list("set-cookie")
    bearer = {"authorization": f"Bearer {site.secrets[A]}", "accept": "text/html"}
    assert httpx.get(f"{site.address}/", headers=bearer).status_code == 303
    assert httpx.get(f"{site.address}/api/v1/whoami", headers=bearer).status_code == 200


def test_an_answer_from_before_a_logout_does_not_bring_the_session_back(site: Site) -> None:
    with closing(site.logged_in(R)) as client:
        client.get("/")
        assert not _cookie(client.get("/"), "farm-session")


@pytest.mark.parametrize(
    "next_", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "x"]
)
def test_a_login_leads_to_this_server_alone(site: Site, client: PageClient, next_: str) -> None:
    assert client.login(site.secrets[R], next_).headers["location"] == "/"
    assert "evil" not in client.get("/login", params={"next": next_}).text


@pytest.mark.parametrize(
    ("host", "headers", "secure"),
    [
        ("localhost", {}, False),
        ("127.0.0.1:8780", {}, False),
        ("127.0.0.1", {"x-forwarded-proto": "https"}, True),
        ("farm.example", {}, True),
    ],
)
def test_a_cookie_is_secure_unless_the_client_is_on_this_machine(
    tmp_path: Path, host: str, headers: dict[str, str], secure: bool
) -> None:
    with driven_farm(tmp_path) as driven:
        made = Settings.from_env({**driven.env, "FARM_SERVER_HOSTS": "farm.example"})
        with served(made) as address, closing(PageClient(address, host=host)) as client:
            assert ("Secure" in _cookie(client.get("/login", headers=headers), "farm-form")) is secure
            assert client.get("/login", headers={"host": "evil.example"}).status_code == 400


def test_without_a_login_one_may_read_where_the_setting_says_so(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven:
        made = Settings.from_env({**driven.env, "FARM_SERVER_ANONYMOUS": "1"})
        with served(made) as address, closing(PageClient(address)) as client:
            page = client.get("/").text
            assert ("Log in" in page, "Log out" in page, "New build" in page) == (True, False, False)
            assert (client.get("/builds/new").status_code, client.get("/tokens").status_code) == (403, 403)
            assert client.form("/builds/new", SOURCE).status_code == 403


def test_the_key_of_sessions_is_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path)})
    key, path = server_key(settings), tmp_path / "server.key"
    assert (len(key), path.stat().st_mode & 0o777, server_key(settings)) == (32, 0o600, key)
    assert [one.name for one in tmp_path.iterdir()] == ["server.key"]
    path.chmod(0o640)
    with pytest.raises(BadSettings, match="mode 0640"):
        server_key(settings)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(BadSettings, match="32 bytes"):
        server_key(settings)


# --- forms ------------------------------------------------------------------------------------------------------


def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    with closing(site.logged_in(A)) as client, closing(site.logged_in(A)) as other:
        before = len(site.driven.farm.builds(limit=1000))
        for token in (
            "",
            "x" * 128,
            other.token,
            client.token[:-1] + ("1" if client.token.endswith("0") else "0"),
            "é" * 128,
        ):
            answer = client.http.post("/builds/new", data=SOURCE | {"_csrf_token": token})
            assert (answer.status_code, "form" in answer.text) in ((403, True), (400, True)), token
        assert len(site.driven.farm.builds(limit=1000)) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": ""}, "the source is empty"),
        ({"source": "/etc"}, "for its users alone"),
        ({"target": "dmeo"}, "did you mean demo"),
        ({"arch": "s390x"}, "s390x"),
        ({"priority": "high"}, "no whole number"),
        ({"priority": "9999"}, "out of range"),
        ({"timeout_s": "-3"}, "out of range"),
        ({"kind": "package", "source": "ftp://x/y.src.rpm"}, "for its users alone"),
        ({"with": "a b$c"}, "--with"),
        ({"macros": "one 1\r\ntwo"}, "has no value"),
        ({"limits": "memory=lots"}, "--limit"),
    ],
)
def test_a_wrong_form_comes_back_with_its_values_and_the_reason(
    clients: dict[Role, PageClient], change: dict[str, str], says: str
) -> None:
    answer = clients[A].form("/builds/new", SOURCE | {"ref": "my-branch"} | change)
    assert (answer.status_code // 100, says in answer.text, "my-branch" in answer.text) == (4, True, True)


def test_a_token_is_shown_once(clients: dict[Role, PageClient]) -> None:
    page = clients[A].form("/tokens", {"name": "CI", "role": ["reader", "packager"], "bearer": "ci", "days": "7"}).text
    secret = re.search(r"farm_\d+_[A-Za-z0-9_-]{43}", page)
    assert secret
    assert secret[0] not in clients[A].get("/tokens").text
    with closing(PageClient(clients[A].address)) as other:
        assert other.login(secret[0]).status_code == 303
    for change, says in (
        ({"role": ""}, "at least one role"),
        ({"days": "9999"}, "cannot be valid"),
        ({"name": ""}, "name"),
    ):
        answer = clients[A].form("/tokens", {"name": "x", "role": "reader", "days": "7"} | change)
        assert (answer.status_code, says in answer.text) == (400, True)


# --- hostile text and hostile requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/builds",
        "/builds/{hostile}",
        "/builds/{hostile}/log?step=build",
        "/builds/{hostile}/log?step=build&q=%3Cimg",
        "/search?q=%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
        "/package?name=%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
        "/builds?package=%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
        "/builds?state=%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
        "/%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
        "/targets/%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E",
    ],
)
def test_hostile_text_stays_text(site: Site, clients: dict[Role, PageClient], path: str) -> None:
    answer = clients[A].get(path.format(hostile=site.hostile), follow_redirects=True)
    text = answer.text
    for word in ("<img", "</script>\n<img", "\x1b", "\u202e", "\x00"):
        assert word not in text.replace('<script src="', ""), word
    assert "&lt;img" in text or answer.status_code == 404


def test_lines_of_a_log_are_segments_of_text(site: Site, clients: dict[Role, PageClient]) -> None:
    lines = clients[R].get(f"/builds/{site.hostile}/log/lines?step=build").json()["lines"]
    assert lines[1] == [4, [["", HOSTILE]]]
    assert lines[2][1] == [["b f1", "red"], ["", " \\u202eevil"]]


@pytest.mark.parametrize(
    "cookies",
    [
        {"farm-session": "x"},
        {"farm-session": "AAAA" * 20},
        {"farm-session": "null"},
        {"farm-session": "YXNkYWRkaXRpb25hbF9hdXRoZW50aWNhdGVkX2RhdGE9eyJleHBpcmVzX2F0IjoieCJ9"},
        {"farm-form": "x" * 3000},
        {"farm-session-1": "x", "farm-session-0": "y"},
    ],
)
def test_no_cookie_is_a_fault_of_the_farm(site: Site, cookies: dict[str, str]) -> None:
    headers = {"accept": "text/html"}
    assert httpx.get(f"{site.address}/", cookies=cookies, headers=headers).status_code == 303
    assert httpx.get(f"{site.address}/login", cookies=cookies, headers=headers).status_code == 200
    posted = httpx.post(
        f"{site.address}/login", data={"token": "x", "_csrf_token": "é"}, cookies=cookies, headers=headers
    )
    assert posted.status_code in (400, 403)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/builds/99", 404),
        ("/builds/0", 400),
        (f"/builds/{10**30}", 400),
        ("/builds?before=0", 400),
        ("/builds?state=lost", 400),
        ("/builds?package=" + "x" * 400, 400),
        ("/builds/1/log?step=compile", 400),
        ("/builds/1/log?attempt=7", 404),
        ("/builds/1/log?at=-1", 400),
        (f"/builds/1/log?at={2**60}", 400),
        ("/builds/1/log?at=99999999", 200),
        ("/builds/1/log?before=99999999", 200),
        ("/builds/1/log/lines?around=99999999", 200),
        ("/builds/1/log/lines?after=99999999", 200),
        ("/builds/1/log/search?q=", 400),
        ("/builds/1/root?arch=vax", 400),
        ("/artifacts/" + "0" * 64 + "/x", 404),
        ("/artifacts/..%2f..%2ffarm.db/x", 404),
        ("/static/x/..%2f..%2fkey.py", 404),
        ("/repositories/demo?kind=doc", 400),
        ("/repositories/demo?version=77", 404),
        ("/repositories/nope", 404),
        ("/search?q=" + "9" * 40, 200),
        ("/audit?since=never", 400),
        ("/audit?verb=dance", 400),
    ],
)
def test_a_wrong_address_has_a_page_that_says_so(clients: dict[Role, PageClient], path: str, status: int) -> None:
    answer = clients[A].get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_form_of_another_kind_is_refused(clients: dict[Role, PageClient]) -> None:
    token = {"_csrf_token": clients[A].token}
    for more in (
        {"files": {"a": b"x"}, "data": token},
        {"json": token},
        {"content": b"\xff\xfe"},
        {"data": {**token, "x": "y" * 2**19}},
    ):
        answer = clients[A].http.post("/builds/new", **more)  # type: ignore[arg-type]
        assert answer.status_code in (400, 403, 413), answer.text


def test_a_download_is_nothing_that_a_browser_shows(site: Site, clients: dict[Role, PageClient]) -> None:
    for path in (f"/artifacts/{site.sha256}/evil.html", f"/builds/{site.hostile}/log/raw?step=build"):
        answer = clients[R].get(path)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
    assert clients[R].get(f"/builds/{site.hostile}/log/raw?step=build").content == LOG


# --- contents ---------------------------------------------------------------------------------------------------


def test_a_log_leads_to_the_line_that_is_the_reason(site: Site, clients: dict[Role, PageClient]) -> None:
    build = site.driven.farm.enqueue(git="https://example.org/told.git", target="demo", arches=["x86_64"]).id
    site.driven.to_build(build)
    log = (
        b"x = 1\n" * 50_000
        + b"a.c:3:  error: no \xe2\x80\x98x\xe2\x80\x99 here\n"
        + b"y\n" * 50_000
        + b"[farm] failed: a.c:3: error: no \xe2\x80\x98x\xe2\x80\x99 here\n"
    )
    site.driven.fail(f"{build}.build.x86_64.1", "a.c:3: error: no \u2018x\u2019 here", log)
    answer = clients[R].get(f"/builds/{build}/log?goto=failure")
    assert answer.headers["location"].endswith("&at=300000#b300000")
    page = clients[R].get(answer.headers["location"].partition("#")[0]).text
    assert 'id="b300000"' in page
    assert 'data-n="50001"' in page
    assert len(page) < PAGE_MAX
    assert clients[R].get(f"/builds/{build}/log/failure").json() == {"at": 300000}


@pytest.mark.parametrize(
    "line", [b"<" * 80, b"", b"\x1b[31m<\x1b[0m" * 20, b"&" * 9000, "é€".encode() * 3000], ids=range(5)
)
def test_no_page_of_a_log_is_large(site: Site, clients: dict[Role, PageClient], line: bytes) -> None:
    build = site.driven.farm.enqueue(git="https://example.org/big.git", target="demo", arches=["x86_64"]).id
    site.driven.to_build(build)
    site.driven.succeed(f"{build}.build.x86_64.1", (line + b"\n") * (2**20 // (len(line) + 1)))
    for query in ("", "&at=0", "&at=500000", "&before=500000", "&q=x"):
        page = clients[R].get(f"/builds/{build}/log?step=build{query}")
        assert (page.status_code, len(page.content) < PAGE_MAX) == (200, True), (query, len(page.content))


def test_the_audit_log_says_from_where_a_person_acted(clients: dict[Role, PageClient]) -> None:
    clients[R].form("/hosts/drain", {"host": "one"})
    page = clients[OP].get("/audit?by=bob&verb=drain").text
    for words in ("127.0.0.1", "host one", "not-permitted"):
        assert words in page, words


def test_a_private_project_is_on_no_page_of_a_stranger(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven, served(driven.settings) as address:
        farm = driven.farm
        farm.new_project("hidden", targets=["demo"], is_private=True)
        url = "https://example.org/secretive.git"
        build = farm.enqueue(git=url, target="demo", arches=["x86_64"], project="hidden").id
        driven.to_build(build)
        driven.start(f"{build}.build.x86_64.1")
        farm._service._on.leases.announce(worker_facts("build@one"))  # type: ignore[attr-defined]
        strangers, admins = (farm.new_token(name="x", roles=[role], bearer="eve").secret for role in (M, A))
        with closing(PageClient(address)) as stranger, closing(PageClient(address)) as admin:
            stranger.login(strangers)
            admin.login(admins)
            name = farm.build(build).package
            below = ("", "/log", "/log/lines", "/log/search?q=x", "/log/failure", "/log/raw", "/root?arch=x86_64")
            for path in below:
                assert stranger.get(f"/builds/{build}{path}").status_code == 404, path
                assert admin.get(f"/builds/{build}{path}").status_code in (200, 404), path
            assert admin.get(f"/builds/{build}").status_code == 200
            for path in ("cancel", "retry", "rebuild"):
                assert stranger.form(f"/builds/{build}/{path}").status_code in (403, 404), path
            lists = (
                "/",
                "/builds",
                f"/builds?package={name}",
                "/builds?owner=ann",
                "/builds?batch=1",
                "/hosts",
                "/queues",
            )
            for path in (*lists, f"/package?name={name}", f"/search?q={name[:3]}"):
                answer = stranger.get(path)
                assert (answer.status_code, f"/builds/{build}" in answer.text) == (200, False), path
            assert f"/builds/{build}" in admin.get("/").text
            assert f"/builds/{build}" in admin.get("/builds?owner=ann").text


def test_builds_are_found_and_paged(site: Site, clients: dict[Role, PageClient]) -> None:
    answer = clients[R].get("/search?q=hel")
    assert answer.headers["location"] == "/package?name=hello"
    assert clients[R].get("/search?q=%231").headers["location"] == "/builds/1"
    assert "No build is like that" in clients[R].get("/builds?owner=nemo&state=failed").text
    build = site.driven.farm.enqueue(git="https://example.org/sought.git", target="demo", arches=["x86_64"]).id
    site.driven.farm.cancel(build)
    found = clients[R].get("/builds?state=cancelled&owner=ann&package=sought&target=demo").text
    assert f"/builds/{build}" in found
    assert "No build is like that" in clients[R].get("/builds?state=failed&owner=ann&package=sought").text
    with closing(PageClient(site.address)) as ann:
        ann.login(site.driven.farm.new_token(name="ann", roles=[P]).secret)
        assert 'href="/builds/1"' in ann.get("/me").text
    assert 'href="/builds/1"' not in clients[R].get("/me").text


def test_a_running_step_leads_to_flower_where_a_setting_names_it(tmp_path: Path) -> None:
    with driven_farm(tmp_path) as driven:
        driven.farm.enqueue(git="https://example.org/hello.git", target="demo", arches=["x86_64"])
        driven.to_build(1)
        driven.start("1.build.x86_64.1")
        secret = driven.farm.new_token(name="x", roles=[R]).secret
        for url, count in (("https://flower.example/", 1), ("", 0)):
            made = Settings.from_env({**driven.env, "FARM_FLOWER_URL": url})
            with served(made) as address, closing(PageClient(address)) as client:
                client.login(secret)
                page = client.get("/builds/1").text
                assert page.count('href="https://flower.example/task/1.build.x86_64.1"') == count


def test_a_build_shows_how_its_root_differs_from_the_last_good_one(site: Site, clients: dict[Role, PageClient]) -> None:
    roots = (["gcc-12-1.x86_64", "make-4-1.x86_64"], ["gcc-13-1.x86_64", "make-4-1.x86_64", "<b>-1-1.noarch"])
    numbers = []
    for root in roots:
        build = site.driven.farm.enqueue(git="https://example.org/rooted.git", target="demo", arches=["x86_64"]).id
        site.driven.to_build(build)
        text = json.dumps([{"nevra": one, "digest": one} for one in root]).encode()
        record = site.driven.stored("root.json", text, ArtifactKind.RECORD)
        site.driven.succeed(f"{build}.build.x86_64.1", files=(record,))
        site.driven.succeed(f"{build}.upload.x86_64.1")
        numbers.append(build)
    page = clients[R].get(f"/builds/{numbers[1]}").text
    assert f'2 differences to <a href="/builds/{numbers[0]}">' in page
    for path in (f"/builds/{numbers[1]}", f"/builds/{numbers[1]}/root?arch=x86_64"):
        page = clients[R].get(path).text
        for words in ("<td>gcc-12-1.x86_64</td><td>gcc-13-1.x86_64</td>", "<td></td><td>&lt;b&gt;-1-1.noarch</td>"):
            assert words in page
    assert "1 shown" in clients[R].get(f"/builds/{numbers[1]}/root?arch=x86_64&q=MAKE").text
    broken = site.driven.stored("root.json", b'{"not": "a root"}', ArtifactKind.RECORD)
    build = site.driven.farm.enqueue(git="https://example.org/rooted.git", target="demo", arches=["x86_64"]).id
    site.driven.to_build(build)
    site.driven.succeed(f"{build}.build.x86_64.1", files=(broken,))
    assert clients[R].get(f"/builds/{build}").status_code == 200
    assert clients[R].get(f"/builds/{build}/root?arch=x86_64").status_code == 200


@pytest.fixture
def many(tmp_path: Path) -> Iterator[tuple[DrivenFarm, PageClient]]:
    """A farm with 50 long, hostile builds on a page."""
    with driven_farm(tmp_path) as driven, served(driven.settings) as address, closing(PageClient(address)) as client:
        name = "<" * 150
        requests = [driven.farm.request(git=f"https://example.org/{name}.git", target="demo") for _ in range(120)]
        driven.farm.enqueue_many(requests)
        with driven.store.writing() as connection:
            connection.execute(schema.build.update().values(reason="<" * 1000))
        client.login(driven.farm.new_token(name="x", roles=[A]).secret)
        yield driven, client


def test_no_list_is_large(many: tuple[DrivenFarm, PageClient]) -> None:
    _, client = many
    seen: list[str] = []
    path: str | None = "/builds?owner=ann"
    while path:
        page = client.get(path)
        assert len(page.content) < PAGE_MAX, path
        seen += re.findall(r'num"><a href="/builds/(\d+)"', page.text)
        older = re.search(r'href="([^"]+)" rel="next"', page.text)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == [str(number) for number in range(120, 0, -1)]
    for path in ("/", "/queues", "/me", "/builds?batch=1", "/builds?state=ready", f"/package?name={'%3C' * 150}"):
        assert len(client.get(path).content) < PAGE_MAX, path
