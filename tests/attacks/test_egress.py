"""A fetch that is led to this host, to a private network, or to a folder that its asker may not read.

The server at 127.0.0.1 stands for the internet: the farm allows that one address. The one at 127.0.0.9 is private.
"""

import hashlib
import json
import os
import socket
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from farm.config import Settings
from farm.formats.rpm.settings import Lookaside, LookasideForm
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.target import Limits
from tests.contexts import step_context
from tests.fetching import Answer, Desk, Server, _send, http_server, put, repository, spec
from tests.packages import commit_all, git
from workers.core.context import Ended
from workers.sources import download, giturl
from workers.sources.checksum import Checksum
from workers.sources.egress import EgressPolicy
from workers.sources.gateway import Gateway
from workers.sources.git import Mirror
from workers.sources.wanted import Missing, Wanted
from workers.steps import fetch

pytestmark = pytest.mark.live
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users' rights and network namespaces need root")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path / "desk", allow="127.0.0.1/32")


def _why(desk: Desk, url: str) -> str:
    with pytest.raises(Ended) as ended:
        desk.git(url)
    assert ended.value.outcome is Outcome.FAILED
    return ended.value.reason


def _why_srpm(desk: Desk, url: str) -> str:
    with pytest.raises(Ended) as ended:
        desk.fetch(Source(kind=SourceKind.SRPM, url=url))
    assert ended.value.outcome is Outcome.FAILED
    return ended.value.reason


SPELLINGS = [
    "127.0.0.9:{port}",
    "2130706441:{port}",
    "0x7f000009:{port}",
    "0177.0.0.011:{port}",
    "127.9:{port}",
    "[::ffff:127.0.0.9]:{port}",
    "[::ffff:7f00:9]:{port}",
    "[::1]:{port}",
    "169.254.169.254",
    "[fe80::1]",
    "[64:ff9b::7f00:9]:{port}",
    "0.0.0.0:{port}",
    "10.0.0.1",
]


@pytest.mark.parametrize("where", SPELLINGS)
def test_a_download_is_not_redirected_to_a_private_address(
    desk: Desk, public: Server, private: Server, where: str
) -> None:
    location = f"http://{where.format(port=private.port)}/x.src.rpm"
    public.answers["/x.src.rpm"] = Answer(status=302, headers=(("Location", location),))
    why = _why_srpm(desk, public.url("/x.src.rpm"))
    assert "farm does not connect" in why or "does not parse" in why
    assert public.seen == ["/x.src.rpm"]


def test_a_redirect_that_comes_after_another_is_checked_too(desk: Desk, public: Server, private: Server) -> None:
    public.answers["/a"] = Answer(status=302, headers=(("Location", "/b"),))
    public.answers["/b"] = Answer(status=307, headers=(("Location", private.url("/x")),))
    assert "127.0.0.9, to which the farm does not connect" in _why_srpm(desk, public.url("/a"))


def test_nothing_on_this_host_is_open_by_default(tmp_path: Path, private: Server) -> None:
    desk = Desk(folder=tmp_path / "desk", allow="")
    assert "it is not public" in _why_srpm(desk, f"http://localhost:{private.port}/x")
    assert "it is not public" in _why(desk, f"http://localhost:{private.port}/x")


def test_a_lookaside_at_a_private_address_is_not_asked(tmp_path: Path, private: Server) -> None:
    lookaside = Lookaside(form=LookasideForm.METADATA, base_url=private.url(""))
    desk = Desk(folder=tmp_path / "desk", allow="127.0.0.1/32", lookaside=lookaside)
    files: dict[str, bytes | str] = {"hello.spec": spec(), "sources": b"0" * 64 + b"  a.tar\n"}
    assert "farm does not connect" in _why(desk, str(repository(tmp_path / "repo", files)))


# --- git -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "git", "ssh"])
@pytest.mark.parametrize("where", ["127.0.0.9", "2130706441"])
def test_git_does_not_connect_to_a_private_address(desk: Desk, private: Server, scheme: str, where: str) -> None:
    assert "127.0.0.9, to which the farm does not connect" in _why(desk, f"{scheme}://{where}:{private.port}/x")


def test_git_does_not_follow_a_redirect_to_a_private_address(desk: Desk, public: Server, private: Server) -> None:
    location = private.url("/x/info/refs?service=git-upload-pack")
    public.answers["/x/info/refs"] = Answer(status=302, headers=(("Location", location),))
    assert "127.0.0.9, to which the farm does not connect" in _why(desk, public.url("/x"))


def _tree_of(folder: Path, url: str, files: dict[str, bytes | str] | None = None) -> Path:
    """A repository whose tarball is made of itself, with a submodule at the URL."""
    found = repository(folder, {"hello.spec": spec(sources=("hello-1.0.tar",)), **(files or {})})
    (found / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = lib\n\turl = {url}\n')
    commit = git(found, "rev-parse", "HEAD")
    git(found, "update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    git(found, "add", ".gitmodules")
    git(found, "commit", "--quiet", "--message=Submodule")
    return found


@pytest.mark.parametrize("form", ["http://127.0.0.9:{port}/x", "git://127.0.0.9:{port}/x", "git@127.0.0.9:x"])
def test_a_submodule_at_a_private_address_is_not_fetched(
    desk: Desk, public: Server, private: Server, tmp_path: Path, form: str
) -> None:
    _tree_of(tmp_path / "git/hello", form.format(port=private.port))
    public.repositories = tmp_path / "git"
    assert "127.0.0.9, to which the farm does not connect" in _why(desk, public.url("/git/hello"))


_OID = "a" * 64
_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{_OID}\nsize 5\n".encode()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git LFS takes no proxy to loopback addresses, so the servers need names."""
    known = {"forge.example": "127.0.0.1", "secret.example": "127.0.0.9"}
    egress = EgressPolicy(
        allowed=EgressPolicy.of(("127.0.0.1/32",)).allowed,
        resolver=lambda host, _: [known.get(host, host)],
        proxies={},
    )
    monkeypatch.setattr(fetch, "_egress", lambda *_: egress)


def _with_lfs(public: Server, tmp_path: Path, files: dict[str, bytes | str]) -> str:
    repository(tmp_path / "git/hello", {"hello.spec": spec(), "a.tar": _POINTER, **files})
    public.repositories = tmp_path / "git"
    return f"http://forge.example:{public.port}/git/hello"


@needs_root
@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("where", ["secret.example", "127.0.0.9"])
def test_git_lfs_does_not_follow_its_server_to_a_private_address(
    desk: Desk, public: Server, private: Server, tmp_path: Path, where: str
) -> None:
    action = {"actions": {"download": {"href": f"http://{where}:{private.port}/secret"}}, "oid": _OID, "size": 5}

    def batch(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = (("Content-Type", "application/vnd.git-lfs+json"),)
        _send(request, Answer(json.dumps({"transfer": "basic", "objects": [action]}).encode(), headers=kind))

    public.answers["/git/hello.git/info/lfs/objects/batch"] = batch
    why = _why(desk, _with_lfs(public, tmp_path, {}))
    assert "127.0.0.9, to which the farm does not connect" in why or "would be the worker's own host" in why
    assert "/git/hello.git/info/lfs/objects/batch" in public.seen


@needs_root
@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("kind", ["private", "file"])
def test_the_trees_own_lfs_settings_name_no_other_server(
    desk: Desk, public: Server, private: Server, tmp_path: Path, kind: str
) -> None:
    url = f"http://secret.example:{private.port}/lfs" if kind == "private" else f"file://{tmp_path}"
    config = f'[lfs]\n\turl = {url}\n[remote "origin"]\n\tlfsurl = {url}\n[http]\n\tproxy =\n'.encode()
    with pytest.raises(Ended):
        desk.git(_with_lfs(public, tmp_path, {".lfsconfig": config}), ref="main")
    assert any("lfs/objects/batch" in path for path in public.seen)


@needs_root
def test_git_has_no_network_but_the_gateway(tmp_path: Path, private: Server) -> None:
    with Gateway(EgressPolicy.of(("127.0.0.1/32",)), tmp_path) as out:
        assert out.is_sealed
        script = f"import socket; socket.create_connection(('127.0.0.9', {private.port}), 5)"
        done = subprocess.run([*out.prefix, "python3", "-c", script], capture_output=True, check=False, timeout=30)
    assert b"refused" in done.stderr


@needs_root
def test_the_gateway_serves_none_but_its_step(tmp_path: Path) -> None:
    with Gateway(EgressPolicy(), tmp_path) as out, Gateway(EgressPolicy(), tmp_path) as other:
        port = int(out.environment["FARM_GATEWAY"].partition(":")[0])
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
        env = {**out.environment, "FARM_GATEWAY": f"{port}:{other.environment['FARM_GATEWAY'].partition(':')[2]}"}
        argv = [*out.prefix, out.environment["GIT_PROXY_COMMAND"], "example.org", "80"]
        done = subprocess.run(argv, env=env, capture_output=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert b"refuses the credential" in done.stderr


def test_ssh_has_nothing_of_roots_and_the_farms_key_for_the_askers_host_alone(tmp_path: Path) -> None:
    context = Desk(folder=tmp_path / "desk").context()
    object.__setattr__(context.settings, "ssh_key", Path("/etc/farm/key"))
    parent = giturl.parse("ssh://git@forge.example/a")
    with context.log, Gateway(EgressPolicy(), tmp_path) as out:
        told = Mirror(parent, context, out).environment()["GIT_SSH_COMMAND"]
        assert "-F /dev/null" in told
        assert "IdentityAgent=none" in told
        assert "UserKnownHostsFile=/dev/null" in told
        assert "IdentityFile=/etc/farm/key" in told
        for url, has_key in (("../b", True), ("git@forge.example:b", True), ("ssh://git@other.example/b", False)):
            told = Mirror(giturl.of_submodule(parent, url), context, out).environment()["GIT_SSH_COMMAND"]
            assert ("IdentityFile=/etc/farm/key" in told) is has_key, url
        above = giturl.parse("https://forge.example/a")
        told = Mirror(giturl.of_submodule(above, "ssh://git@forge.example/b"), context, out).environment()
        assert "IdentityFile=none" in told["GIT_SSH_COMMAND"]


# --- folders of this machine -----------------------------------------------------------------------------------------


@pytest.fixture
def open_tmp(tmp_path: Path) -> Path:
    """A folder that every user can reach; pytest's own are closed."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o711)
    return tmp_path


@needs_root
@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "{}/../secret"])
@pytest.mark.parametrize("uid", [None, 65534, 12345])
def test_a_closed_folder_is_not_read_for_a_user_without_rights(open_tmp: Path, form: str, uid: int | None) -> None:
    secret = repository(open_tmp / "secret", {"hello.spec": spec()})
    url = form.format(secret)
    root = Desk(folder=open_tmp / "desk")
    commit = root.git(url).commit
    secret.chmod(0o700)
    other = Desk(folder=open_tmp / "desk", attempts=10, reader_uid=uid)
    for ref in ("main", commit or ""):
        with pytest.raises(Ended):
            other.git(url, ref=ref)
    secret.chmod(0o755)
    assert other.git(url, ref="main").commit == commit


@needs_root
def test_a_repository_that_borrows_from_a_closed_folder_is_not_read(open_tmp: Path) -> None:
    secret = repository(open_tmp / "secret", {"hello.spec": spec()})
    commit = git(secret, "rev-parse", "HEAD")
    secret.chmod(0o700)
    borrower = repository(open_tmp / "borrower", {"other.spec": spec("other")})
    put(borrower / ".git/objects/info", {"alternates": f"{secret}/.git/objects\n".encode()})
    (borrower / ".git/refs/heads/evil").write_text(commit + "\n")
    with pytest.raises(Ended):
        Desk(folder=open_tmp / "desk", reader_uid=None).git(borrower, ref="evil")


@needs_root
def test_a_submodule_on_this_machine_is_read_with_its_parents_rights(open_tmp: Path, public: Server) -> None:
    secret = repository(open_tmp / "secret", {"hello.spec": spec()})
    commit = git(secret, "rev-parse", "HEAD")
    for url in (str(secret), f"file://{secret}", "../secret"):
        parent = _tree_of(open_tmp / f"git/{len(url)}", url)
        git(parent, "update-index", "--cacheinfo", f"160000,{commit},lib")
        git(parent, "commit", "--quiet", "--message=Pin")
        secret.chmod(0o700)
        with pytest.raises(Ended):
            Desk(folder=open_tmp / "desk", attempts=len(url) * 10, reader_uid=None).git(parent)
    public.repositories = open_tmp / "git"
    desk = Desk(folder=open_tmp / "desk", attempts=5000)
    assert "may not be a path on this machine" in _why(desk, public.url(f"/git/{len(f'file://{secret}')}"))


@needs_root
def test_a_bundle_is_not_read_with_the_farms_rights(open_tmp: Path) -> None:
    secret = repository(open_tmp / "secret", {"hello.spec": spec()})
    bundle = open_tmp / "secret.bundle"
    git(secret, "bundle", "create", "--quiet", str(bundle), "HEAD", "main")
    bundle.chmod(0o600)
    secret.chmod(0o700)
    for number, url in enumerate((bundle, f"file://{bundle}")):
        with pytest.raises(Ended):
            Desk(folder=open_tmp / "desk", attempts=10 * number, reader_uid=None).git(url)
    parent = _tree_of(open_tmp / "parent", str(bundle))
    secret.chmod(0o755)
    commit = git(secret, "rev-parse", "HEAD")
    git(parent, "update-index", "--cacheinfo", f"160000,{commit},lib")
    git(parent, "commit", "--quiet", "--message=Pin")
    with pytest.raises(Ended):
        Desk(folder=open_tmp / "desk", attempts=100, reader_uid=None).git(parent)


@needs_root
def test_a_path_with_characters_of_urls_is_still_read(open_tmp: Path) -> None:
    repo = repository(open_tmp / "a %41?b#c", {"hello.spec": spec()})
    assert Desk(folder=open_tmp / "desk", reader_uid=None).git(repo).spec == "hello.spec"


def test_a_commit_of_the_asker_is_still_read(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec()})
    put(repo, {"more.patch": b"x"})
    assert Desk(folder=tmp_path / "desk").git(repo, ref=commit_all(repo, "More")).spec == "hello.spec"


def test_a_file_behind_a_password_is_not_given_out_by_its_checksum(tmp_path: Path) -> None:
    checksum = Checksum(algorithm="sha256", hexdigest=hashlib.sha256(b"private").hexdigest())
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "farm")})
    egress = EgressPolicy.of(("127.0.0.0/8",))
    (tmp_path / "work").mkdir()
    with (
        http_server() as server,
        step_context(settings, tmp_path / "work", tmp_path / "log", limits=Limits()) as context,
    ):
        server.login = "ann:secret"
        server.answers["/x.tar"] = Answer(b"private")
        url = server.url("/x.tar", login="ann:secret")
        for _ in range(2):
            found = download.fetch([Wanted(name="x.tar", urls=(url,), checksum=checksum)], context, egress)
            assert isinstance(found["x.tar"], Path)
        assert server.seen == ["/x.tar"], "the second time out of the cache"
        for stranger in (server.url("/x.tar"), server.url("/y.tar", login="eve:x")):
            wanted = Wanted(name="x.tar", urls=(stranger,), checksum=checksum)
            assert isinstance(download.fetch([wanted], context, egress)["x.tar"], Missing)


def test_the_redirects_of_a_download_are_its_history(tmp_path: Path) -> None:
    """The comparison by which a redirect from https to http is found."""
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "farm")})
    (tmp_path / "work").mkdir()
    with (
        http_server() as server,
        step_context(settings, tmp_path / "work", tmp_path / "log", limits=Limits()) as context,
    ):
        server.answers["/one.tar"] = Answer(status=302, headers=(("Location", "/two.tar"),))
        server.answers["/two.tar"] = Answer(b"x")
        shelf = download._Downloads(context, EgressPolicy.of(("127.0.0.0/8",)))
        with shelf._answer(httpx.Request("GET", server.url("/one.tar"))) as answer:
            assert [one.status_code for one in answer.history] == [302]
