"""Commands and Python at a farm's server: the same documents, byte for byte, and the token that stays secret."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from farm import Farm
from farm.cli.main import app
from farm.client.handle import BuildRef
from farm.client.http import check_url
from farm.client.login import read_token
from farm.client.remote import RemoteFarm
from farm.errors import BadRequest, BadSource, FarmNotRunning, NotLoggedIn
from farm.model.actor import Role
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from tests.driven_farm import DrivenFarm, driven_farm
from tests.messages import worker_facts
from tests.rpms import make_rpm, sha256
from tests.served import served
from tests.typed import GIT

_FREE = re.compile(r"[0-9.]+ [KMGT]iB")
TOKEN = "farm_1_" + "A" * 43


class Both:
    """Types commands at a farm's database, and at its server."""

    def __init__(self, driven: DrivenFarm, address: str, home: Path) -> None:
        self.driven = driven
        self.address = address
        self.home = home
        self.token = driven.farm.new_token(name="all", roles=[Role.ADMIN]).secret
        (home / "token").write_text(f"{self.token}\n")

    def local(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words), env=self.driven.env, prog_name="farm")

    def remote(self, *words: str, stdin: str | None = None, **env: str | None) -> Result:
        """Without a token file when it is given as None."""
        at = {"FARM_URL": self.address, "FARM_TOKEN_FILE": str(self.home / "token"), "HOME": str(self.home)}
        elsewhere = {"FARM_DATA": str(self.home / "no-farm-here")}
        return CliRunner().invoke(app, list(words), env={**elsewhere, **at, **env}, prog_name="farm", input=stdin)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Build 1 is finished, build 2 failed, build 3 is ready."""
    home = tmp_path_factory.mktemp("home")
    with driven_farm(tmp_path_factory.mktemp("farm")) as driven, served(driven.settings) as address:
        for number in range(3):
            driven.farm.enqueue(git=f"https://me:hunter2@example.org/{number}.git", target="demo", arches=["x86_64"])
        driven.finish(1)
        driven.to_build(2)
        driven.fail("2.build.x86_64.1", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \x1b")
        path = make_rpm(home, "one")
        name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=driven.farm.target("demo").arches[0])
        open_repositories(driven.settings).add(
            name, [RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)]
        )
        driven.farm.drain_host("two", force=True, reason="new disks")
        driven.farm.new_project("perl", targets=["demo"], title="Perl", builds_on=["main"])
        driven.farm.add_package("perl", "hello", git="https://example.org/hello.git", ref="v1", with_=["x"])
        driven.farm._service._on.leases.announce(worker_facts("build@one"))
        yield Both(driven, address, home)


@pytest.mark.parametrize(
    "words",
    [
        "status", "status 1", "status 2", "status b1", "status 99", "status b99", "list", "list --outcome failed",
        "list --limit 2", "list --status ready --target demo", "list --target none", "artifacts 1", "artifacts 99",
        "audit --verb destroy", "audit --actor ann --limit 2",
        "repo demo", "repo demo --arch aarch64", "repo demo --arch arm", "repo dmeo", "repo versions demo",
        "repo versions demo --kind source", "repo rollback demo --to 9 --yes", "repo check", "workers", "targets",
        "retry 3", "retry 99", "cancel 1", "workers drain none", "workers undrain none", "token list",
        "token revoke 99", "token new --role reader --expires 999d", "gc --dry-run --older-than 1", "whoami",
        "build --git https://example.org/a.git -t dmeo", "build --git https://example.org/a.git -t demo --ref=-x",
        "build -t demo", "build --git https://example.org/a.git -t demo --priority 5000",
        "build --git https://example.org/a.git -t demo --with a/b",
        "project list", "project show perl", "project show nope", "project set perl --title Perl",
        "project new perl -t demo", "project grant perl ann admin", "project revoke perl eve", "project restore perl",
        "package list perl", "package show perl hello", "package show perl none", "package add perl hello --git https://u:p@example.org/a",
        "package add perl hello --git https://example.org/a.git",
    ],
)  # fmt: skip
def test_a_document_is_the_same_byte_for_byte(both: Both, words: str) -> None:
    both.remote("whoami")  # so that the use of the token is noted
    local, remote = both.local(*words.split(), "--json"), both.remote(*words.split(), "--json")
    if words.startswith("gc"):  # each prunes the caches of its own host
        local_document, remote_document = json.loads(local.stdout), json.loads(remote.stdout)
        assert local_document["gc"]["artifacts"] == remote_document["gc"]["artifacts"]
        return
    if words == "repo check":  # other tests write to the disk between both
        assert _FREE.sub("", remote.stdout) == _FREE.sub("", local.stdout)
        return
    # The server serves the repositories, which are a folder to the others.
    here = local.stdout.replace(f"file://{both.driven.settings.repositories_dir}/", f"{both.address}/repos/")
    assert (remote.stdout, remote.exit_code) == (here, local.exit_code)
    assert remote.stderr == local.stderr


@pytest.mark.parametrize("words", ["log 1", "log 1 --step fetch", "log 1 --timestamps", "log 2", "log 3", "log 1 -f"])
def test_a_log_is_the_same(both: Both, words: str) -> None:
    local, remote = both.local(*words.split()), both.remote(*words.split())
    assert (remote.stdout, remote.stderr, remote.exit_code) == (local.stdout, local.stderr, local.exit_code)


def test_a_build_is_enqueued_followed_cancelled_and_retried_at_the_server(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--with", "x", "--define", "dist .el9", "--timeout", "60", "--limit", "memory=8GiB", "--priority", "2")
    made = both.remote("build", *GIT, "--ref", "v1", "-t", "demo", "-a", "x86_64", *options, "--json")
    assert made.exit_code == 0, made.output
    build = json.loads(made.stdout)["build"]
    again = json.loads(both.local("status", str(build["id"]), "--json").stdout)["build"]
    assert build == again
    assert (build["options"]["timeout_s"], build["options"]["limits"]) == (60, {"memory_bytes": 2**33})
    assert both.remote("cancel", str(build["id"])).exit_code == 0
    assert "fetch again" in both.remote("retry", str(build["id"])).stdout
    has_looked, watch = threading.Event(), RemoteFarm.watch

    def note_and_watch(farm: RemoteFarm, build: BuildRef, **more: Any) -> Any:
        has_looked.set()
        return watch(farm, build, **more)

    monkeypatch.setattr(RemoteFarm, "watch", note_and_watch)
    threading.Thread(target=lambda: has_looked.wait(60) and both.driven.finish(build["id"])).start()
    followed = both.remote("log", str(build["id"]), "--follow")
    assert "compiling\ndone\n" in followed.stdout
    paths = both.remote("artifacts", str(build["id"]), "--download", str(tmp_path / "got"))
    assert paths.exit_code == 0, paths.output
    assert (tmp_path / "got/hello-1-1.x86_64.rpm").read_bytes() == b"a package"


def test_a_list_longer_than_a_page_is_read_page_by_page(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.client.remote.PAGE_MAX", 2)
    with Farm.connect(both.address, token_file=both.home / "token") as farm:
        assert farm.builds(limit=100) == both.driven.farm.builds(limit=100)
        assert farm.builds(limit=3) == both.driven.farm.builds(limit=3)
        assert farm.builds(limit=0) == ()


def test_a_path_of_this_machine_is_refused_before_it_is_sent(both: Both) -> None:
    with Farm.connect(both.address, token_file=both.home / "token") as farm:
        for asked in ({"git": "."}, {"git": Path("/srv/a.git")}, {"git": "file:///a"}):
            with pytest.raises(BadSource, match="give a URL"):
                farm.enqueue(target="demo", **asked)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'prio' is not an argument"):
            farm.enqueue(target="demo", git="https://example.org/a.git", prio=1)  # type: ignore[call-arg]
        with pytest.raises(BadRequest, match="Expected `int`"):
            farm.enqueue(target="demo", git="https://example.org/a.git", priority="high")  # type: ignore[arg-type]


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_login_is_kept_for_its_address_and_closed_to_others(both: Both, tmp_path: Path) -> None:
    env: dict[str, str | None] = {"HOME": str(tmp_path), "FARM_TOKEN_FILE": None}
    assert both.remote("list", **env).exit_code == NotLoggedIn.exit_code
    made = both.remote("login", both.address + "/", stdin=f"{both.token}\n", **env)
    assert made.exit_code == 0, made.output
    assert "ann (admin) at" in made.stderr
    (kept,) = (tmp_path / ".config/farm/tokens").iterdir()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert both.remote("whoami", **env).stdout == "ann (admin)\n"
    assert both.token not in made.output
    other = both.remote("whoami", **env, FARM_URL=both.address.replace("127.0.0.1", "localhost"))
    assert (other.exit_code, "there is no token for http://localhost" in other.stderr) == (33, True)
    assert both.remote("logout", both.address, **env).exit_code == 0
    assert both.remote("list", **env).exit_code == NotLoggedIn.exit_code
    assert "no token was kept" in both.remote("logout", both.address, **env).stderr


@pytest.mark.parametrize("text", ["", "two words", "é", "x" * 5000, TOKEN, "a\nb"])
def test_a_wrong_token_is_not_kept(both: Both, tmp_path: Path, text: str) -> None:
    result = both.remote("login", both.address, stdin=text, HOME=str(tmp_path))
    assert (result.exit_code, list(tmp_path.rglob("*"))) == (33, [])
    assert TOKEN not in result.output


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotLoggedIn, match=re.escape(str(tmp_path / "none"))):
        read_token("https://farm.example", tmp_path / "none")
    with pytest.raises(NotLoggedIn, match="cannot be read"):
        read_token("https://farm.example", tmp_path)


# --- addresses and servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "", "farm.example", "ftp://farm.example", "https://", "http://farm.example", "http://127.0.0.1.evil.example",
        "https://me:secret@farm.example", "https://farm.example?x", "https://farm.example#x", "https://a b",
        "https://farm.example:99999", "https://[::1", "https://farm.example/\r\nx",
    ],
)  # fmt: skip
def test_an_address_that_no_token_may_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match=r"give https://|no address"):
        check_url(url)


def test_a_server_that_does_not_answer_is_named(both: Both) -> None:
    result = both.remote("list", FARM_URL="http://127.0.0.1:1")
    assert (result.exit_code, "http://127.0.0.1:1 does not answer" in result.stderr) == (28, True)


@contextmanager
def other_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the tokens that it was sent."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["authorization"])
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (502, b"<html>Bad gateway</html>", {"content_type": "text/html"}, "answered 502"),
        (200, b"<html>Welcome</html>", {}, "cannot read"),
        (200, b'{"builds": 3}', {}, "cannot read"),
        (500, b"{}", {"content_type": "application/problem+json"}, "cannot be read"),
        (500, b"[1", {"content_type": "application/problem+json"}, "cannot be read"),
    ],
)
def test_an_answer_of_another_program_is_named(
    both: Both, status: int, body: bytes, headers: dict[str, str], says: str
) -> None:
    with other_server(lambda handler: _send(handler, status, body, **headers)) as (address, _):
        result = both.remote("list", FARM_URL=address)
    assert (result.exit_code in (1, 28), result.stderr.count("\n")) == (True, 1)
    assert says in result.stderr


def test_a_token_is_not_sent_where_a_server_points_to(both: Both) -> None:
    with (
        other_server(lambda handler: _send(handler, 200, b"{}")) as (thief, stolen),
        other_server(lambda handler: _send(handler, 302, b"", location=f"{thief}/x")) as (address, seen),
    ):
        result = both.remote("list", FARM_URL=address)
    assert (len(seen), stolen, result.exit_code) == (1, [], FarmNotRunning.exit_code)
    assert "use that address if you trust it" in result.stderr
