"""Repositories by dumb HTTP, whose server can hold back any one object of a commit."""

from pathlib import Path

import pytest

from farm.errors import NetworkTrouble
from tests.fetching import Answer, Desk, Server, http_server, repository, spec
from tests.packages import git

pytestmark = pytest.mark.live

_BLOB = "HEAD:hello.spec"


def _serve(server: Server, repo: Path) -> str:
    """Serve each file of a bare repository by its path; returns the path of the spec's object."""
    git(repo, "update-server-info")
    inner = repo / ".git"
    for file in inner.rglob("*"):
        if file.is_file():
            server.answers[f"/repo/{file.relative_to(inner)}"] = Answer(file.read_bytes())
    blob = git(repo, "rev-parse", _BLOB).strip()
    return f"/repo/objects/{blob[:2]}/{blob[2:]}"


def test_an_object_that_is_held_back_is_the_server_s_fault_each_time_and_spoils_no_later_fetch(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec()})
    desk = Desk(folder=tmp_path / "desk")
    with http_server() as server:
        held = _serve(server, repo)
        content = server.answers.pop(held)
        for _ in range(2):  # the first one leaves the commit and its tree in the mirror
            with pytest.raises(NetworkTrouble, match="git could not read"):
                desk.git(server.url("/repo"))
        server.answers[held] = content
        assert desk.content(desk.git(server.url("/repo")))["hello.spec"] == spec()
