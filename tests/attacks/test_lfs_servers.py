"""Strangers' servers of git and Git LFS: answers that name other hosts, objects and sizes, and bodies without end."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from farm.errors import NetworkTrouble
from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.fetching import Answer, Desk, Server, _send, repository, spec
from tests.packages import commit_all, git
from workers.core.context import Ended
from workers.sources.egress import EgressPolicy
from workers.steps import fetch

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

_DISK = 16 * 2**20
_BATCH = "/git/hello.git/info/lfs/objects/batch"
_TARBALL = b"a tarball"
_OID = hashlib.sha256(_TARBALL).hexdigest()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """forge.example is the internet, and secret.example is private. Git LFS takes no proxy to a loopback address."""
    known = {"forge.example": "127.0.0.1", "secret.example": "127.0.0.9"}
    egress = EgressPolicy(
        allowed=EgressPolicy.of(("127.0.0.1/32",)).allowed, resolver=lambda host, _: [known.get(host, host)], proxies={}
    )
    monkeypatch.setattr(fetch, "_egress", lambda *_: egress)
    return Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=_DISK))


def _pointer(oid: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def _names(public: Server, tmp_path: Path, pointers: dict[str, bytes | str]) -> str:
    repository(tmp_path / "git/hello", {"hello.spec": spec(), **pointers})
    public.repositories = tmp_path / "git"
    return f"http://forge.example:{public.port}/git/hello"


def _answers(public: Server, edit: Callable[[list[dict[str, Any]]], dict[str, Any]], *, href: str = "") -> None:
    """Answer each batch with `edit` of the objects that an honest server answers with."""

    def batch(request: BaseHTTPRequestHandler) -> None:
        asked = json.loads(request.rfile.read(int(request.headers.get("Content-Length") or 0)))
        where = href or f"http://forge.example:{public.port}/object"
        objects = [{**one, "actions": {"download": {"href": where}}} for one in asked["objects"]]
        kind = (("Content-Type", "application/vnd.git-lfs+json"),)
        answer = {"transfer": "basic", "objects": objects, **edit(objects)}
        _send(request, Answer(json.dumps(answer).encode(), headers=kind))

    public.answers[_BATCH] = batch


def _endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    with suppress(OSError):
        for _ in range(8 * _DISK // 2**20):
            request.wfile.write(b"x" * 2**20)


def _kept(desk: Desk) -> int:
    return sum(one.stat().st_blocks * 512 for one in (desk.settings.cache / "git").rglob("*") if one.is_file())


def _is_over(desk: Desk, url: str) -> None:
    with pytest.raises(Ended, match="disk limit of") as ended:
        desk.git(url)
    assert ended.value.outcome is Outcome.OVER_LIMIT


@pytest.mark.parametrize("count", [1, 12])
def test_bodies_of_any_number_without_end_are_within_one_limit_and_leave_nothing(
    desk: Desk, public: Server, tmp_path: Path, count: int
) -> None:
    url = _names(public, tmp_path, {f"{number}.tar": _pointer(f"{number:064x}", 5) for number in range(count)})
    _answers(public, lambda _: {})
    public.answers["/object"] = _endless
    _is_over(desk, url)
    assert _kept(desk) < 2**20


def test_objects_that_are_larger_than_their_pointers_say_are_within_one_limit(
    desk: Desk, public: Server, tmp_path: Path
) -> None:
    bodies = [os.urandom(1) * (6 * 2**20 + number) for number in range(9)]
    by_oid = {hashlib.sha256(body).hexdigest(): body for body in bodies}
    url = _names(public, tmp_path, {f"{oid[:9]}.tar": _pointer(oid, 5) for oid in by_oid})
    _answers(
        public,
        lambda objects: {
            "objects": [
                {**one, "actions": {"download": {"href": f"http://forge.example:{public.port}/{one['oid']}"}}}
                for one in objects
            ]
        },
    )
    public.answers.update({f"/{oid}": Answer(body) for oid, body in by_oid.items()})
    _is_over(desk, url)
    assert _kept(desk) < 2**20


@pytest.mark.parametrize(
    "answer",
    [
        {"transfer": "lfs-standalone-file"},
        {"transfer": "ssh"},
        {"transfer": "tus"},
        {"transfer": "../../x"},
        {"objects": [{"oid": "../../../../config", "size": 9}]},
        {"objects": [{"oid": _OID, "size": -1}]},
        {"objects": [{"oid": _OID, "size": 2**62}]},
        {"objects": []},
    ],
    ids=str,
)
def test_odd_answers_are_the_servers_fault_and_spoil_no_later_fetch(
    desk: Desk, public: Server, tmp_path: Path, answer: dict[str, Any]
) -> None:
    url = _names(public, tmp_path, {"a.tar": _pointer(_OID, len(_TARBALL))})
    public.answers["/object"] = Answer(_TARBALL[:-1])
    _answers(public, lambda objects: {**answer, "objects": [{**objects[0], **(answer.get("objects") or [{}])[0]}]})
    with pytest.raises((Ended, NetworkTrouble)):
        desk.git(url)
    public.answers["/object"] = Answer(_TARBALL)
    _answers(public, lambda _: {})
    assert desk.content(desk.git(url))["a.tar"] == _TARBALL


@pytest.mark.parametrize("href", ["file:///etc/passwd", "http://secret.example:{port}/x", "ssh://secret.example/x"])
def test_an_object_that_a_server_says_is_elsewhere_is_not_fetched_from_there(
    desk: Desk, public: Server, private: Server, tmp_path: Path, href: str
) -> None:
    url = _names(public, tmp_path, {"a.tar": _pointer(_OID, len(_TARBALL))})
    _answers(public, lambda _: {}, href=href.format(port=private.port))
    with pytest.raises((Ended, NetworkTrouble)):
        desk.git(url)


def test_objects_that_the_tree_does_not_name_are_not_kept(desk: Desk, public: Server, tmp_path: Path) -> None:
    url = _names(public, tmp_path, {"a.tar": _pointer(_OID, len(_TARBALL))})
    other = b"other"
    oid = hashlib.sha256(other).hexdigest()
    more = {"oid": oid, "size": 5, "actions": {"download": {"href": public.url("/other")}}}
    _answers(public, lambda objects: {"objects": [*objects, more]})
    public.answers.update({"/object": Answer(_TARBALL), "/other": Answer(other)})
    with pytest.raises((Ended, NetworkTrouble)):
        desk.git(url)
    assert not [*(desk.settings.cache / "git").rglob(oid)]


def _serve_dumb(public: Server, repo: Path, name: str, *, without: str = "") -> str:
    """Serve the files of a repository by their paths, without the object `without`. Returns its id of HEAD."""
    git(repo, "update-server-info")
    for file in (repo / ".git").rglob("*"):
        if file.is_file() and file.parent.name + file.name != without:
            public.answers[f"/{name}/{file.relative_to(repo / '.git')}"] = Answer(file.read_bytes())
    return git(repo, "rev-parse", "HEAD").strip()


def test_alternates_of_a_dumb_server_are_not_followed(
    desk: Desk, public: Server, private: Server, tmp_path: Path
) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec()})
    _serve_dumb(public, repo, "repo", without=git(repo, "rev-parse", "HEAD:hello.spec").strip())
    places = [f"http://secret.example:{private.port}/objects", private.url("/objects"), f"file://{repo}/.git/objects"]
    places += [f"{repo}/.git/objects", "/other/objects", "../../other/objects"]
    for name in ("http-alternates", "alternates"):
        public.answers[f"/repo/objects/info/{name}"] = Answer("\n".join([*places, ""]).encode())
    with pytest.raises(NetworkTrouble, match="Unable to find"):
        desk.git(f"http://forge.example:{public.port}/repo")
    assert all(path.startswith("/repo/") for path in public.seen)


def test_all_that_a_step_fetches_is_within_one_limit_also_what_no_tree_has(
    desk: Desk, public: Server, tmp_path: Path
) -> None:
    public.repositories = tmp_path / "git"
    made = repository(tmp_path / "git/hello", {"hello.spec": spec(sources=("hello-1.0.tar",))})
    words = []
    for name in ("one", "two", "three", "four"):
        inner = repository(tmp_path / name, {"content": name.encode()})
        git(inner, "checkout", "--quiet", "-b", "large")
        (inner / "large").write_bytes(os.urandom(_DISK * 3 // 8))
        commit_all(inner, "A branch that no build needs")
        git(inner, "checkout", "--quiet", "main")
        commit = _serve_dumb(public, inner, f"dumb/{name}")
        words.append(f'[submodule "{name}"]\n\tpath = {name}\n\turl = ../../dumb/{name}\n')
        git(made, "update-index", "--add", "--cacheinfo", f"160000,{commit},{name}")
    (made / ".gitmodules").write_text("".join(words))
    git(made, "add", ".gitmodules")
    git(made, "commit", "--quiet", "--message=Submodules")
    _is_over(desk, f"http://forge.example:{public.port}/git/hello")
    assert _kept(desk) < 2 * _DISK
