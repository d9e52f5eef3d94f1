"""Fetching from real git repositories: refs, mirrors, what hostile ones try, and whose fault a failure is."""

import os
import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from farm.errors import HostUnfit, LeaseLost, NetworkTrouble, SourceUnavailable
from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.artifacts import path_of
from tests.fetching import Answer, Desk, http_server, put, repository, spec
from tests.packages import COMMIT_AT, commit_all, git, make_git
from tests.waiting import until
from workers.core.context import Ended

pytestmark = pytest.mark.live


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_git("hello-c", tmp_path / "repos")


# --- refs ------------------------------------------------------------------------------------------------------------


def test_branch_tag_commit_and_default_become_the_recorded_commit(desk: Desk, repo: Path) -> None:
    first = git(repo, "rev-parse", "HEAD")
    git(repo, "tag", "light")
    git(repo, "tag", "--annotate", "--message=x", "v1.0")
    git(repo, "switch", "--quiet", "--create", "feature/x")
    (repo / "hello.c").write_text("int main(void) { return 0; }\n")
    second = commit_all(repo, "Change")
    git(repo, "switch", "--quiet", "main")
    refs = {"main": first, "light": first, "v1.0": first, "refs/tags/v1.0": first, "HEAD": first, first[:9]: first}
    refs |= {"feature/x": second, second: second, second.upper(): second, second[:12]: second}
    for ref, commit in refs.items():
        result = desk.git(repo, ref=ref)
        assert (result.commit, result.commit_at) == (commit, int(COMMIT_AT.timestamp())), ref
        assert result.spec == "hello-c.spec"
    assert desk.git(f"file://{repo}").commit == first


def test_the_tag_is_taken_where_a_branch_has_the_same_name_and_the_log_says_so(desk: Desk, repo: Path) -> None:
    git(repo, "tag", "same")
    (repo / "hello.c").write_text("\n")
    commit_all(repo, "Change")
    git(repo, "branch", "same")
    assert desk.git(repo, ref="same").commit == git(repo, "rev-parse", "refs/tags/same")
    assert "'same' is refs/tags/same of" in desk.log


def test_a_branch_that_moved_is_resolved_again(desk: Desk, repo: Path) -> None:
    before = desk.git(repo, ref="main").commit
    (repo / "hello.c").write_text("\n")
    after = commit_all(repo, "Change")
    assert desk.git(repo, ref="main").commit == after != before


def test_a_commit_that_is_here_needs_no_network(desk: Desk, repo: Path) -> None:
    result = desk.git(repo, ref="main")
    repo.rename(repo.with_name("gone"))
    assert desk.git(repo, ref=result.commit or "").archive == result.archive


def test_a_ref_that_does_not_exist_is_named_with_the_known_branches(desk: Desk, repo: Path) -> None:
    for number in range(12):
        git(repo, "branch", f"b{number:02}")
    why = desk.git_refusal(repo, ref="nope")
    assert why.startswith(f"ref 'nope' does not exist in {repo}; known branches are b00, b01")
    assert why.endswith("b09 and 3 more")


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=id", "a b", "a..b", "a:b", "x^{}", "*", "a\nb", "@{1}", "x.lock"])
def test_a_ref_that_git_does_not_allow_is_refused(desk: Desk, repo: Path, ref: str) -> None:
    assert "is not a name that git allows" in desk.git_refusal(repo, ref=ref)


@pytest.mark.parametrize("ref", ["0" * 40, "deadbeef"])
def test_a_commit_that_does_not_exist_is_named(desk: Desk, repo: Path, ref: str) -> None:
    assert f"{ref} does not exist in" in desk.git_refusal(repo, ref=ref).replace("'", "")


def test_an_object_that_is_no_commit_is_refused(desk: Desk, repo: Path) -> None:
    assert "is not a commit" in desk.git_refusal(repo, ref=git(repo, "rev-parse", "HEAD:hello.c"))


def test_an_empty_repository_is_called_one(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    assert "is an empty repository" in desk.git_refusal(tmp_path / "empty")


# --- whose fault -----------------------------------------------------------------------------------------------------


def test_a_path_without_a_repository_is_the_askers_fault(desk: Desk, tmp_path: Path) -> None:
    assert "does not exist, or is no git repository" in desk.git_refusal(tmp_path / "nope")
    (tmp_path / "folder").mkdir()
    assert "does not exist, or is no git repository" in desk.git_refusal(tmp_path / "folder")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere1.invalid"])
def test_a_server_that_is_not_there_is_the_urls_fault(desk: Desk, host: str) -> None:
    with pytest.raises(SourceUnavailable, match=f"git could not read http://{host}.*(?:refused|not known)"):
        desk.git(f"http://{host}/x")


def test_a_partial_clone_says_what_it_lacks(desk: Desk, repo: Path, tmp_path: Path) -> None:
    git(repo, "config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    git(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{repo}", str(partial))
    assert "is a partial clone (git clone --filter): it lacks files of the commit" in desk.git_refusal(partial)


def test_smart_http_with_a_login_shows_the_login_nowhere(desk: Desk, repo: Path, tmp_path: Path) -> None:
    with http_server() as server:
        server.repositories, server.login = repo.parent, "user:s3cret"
        assert "needs credentials" in desk.git_refusal(server.url("/git/hello-c"))
        why = desk.git_refusal(server.url("/git/hello-c", login="user:wrong1"))
        assert "needs credentials" in why
        assert "wrong1" not in why
        assert desk.git(server.url("/git/hello-c", login="user:s3cret")).spec == "hello-c.spec"
        assert "does not exist" in desk.git_refusal(server.url("/git/nope", login="user:s3cret"))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("log-") for path in kept)
    assert [path for path in kept if b"s3cret" in path.read_bytes() or b"dXNlcjpzM2NyZXQ" in path.read_bytes()] == []


def test_new_credentials_use_the_mirror_of_the_old_ones_and_none_get_nothing_of_it(desk: Desk, repo: Path) -> None:
    """A token for each build must not leave a mirror for each; and a commit id alone opens no private repository."""
    with http_server() as server:
        server.repositories, server.login = repo.parent, "user:first1"
        commit = desk.git(server.url("/git/hello-c", login="user:first1")).commit or ""
        server.login = "user:second"
        assert "needs credentials" in desk.git_refusal(server.url("/git/hello-c"), ref=commit)
        assert "needs credentials" in desk.git_refusal(server.url("/git/hello-c", login="user:wrong1"), ref=commit)
        assert desk.git(server.url("/git/hello-c", login="user:second"), ref=commit).commit == commit
        assert "fetching" not in desk.log
        assert len([*desk.settings.cache.glob("git/*/HEAD")]) == 1
        asked = len(server.seen)
        assert desk.git(server.url("/git/hello-c", login="user:second"), ref=commit).commit == commit
        assert len(server.seen) == asked, "a reader that the server has let in is not asked for again"


def test_dumb_http_is_fetched_whole(desk: Desk, repo: Path) -> None:
    git(repo, "update-server-info")
    with http_server() as server:
        for path in (repo / ".git").rglob("*"):
            if path.is_file():
                server.answers[f"/dumb/{path.relative_to(repo / '.git')}"] = Answer(path.read_bytes())
        assert desk.git(server.url("/dumb"), ref="main").commit == git(repo, "rev-parse", "main")
        assert "fetching all of it" in desk.log


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_is_the_networks_fault(desk: Desk, status: int) -> None:
    with http_server() as server:
        server.answers["/x/info/refs"] = Answer(status=status)
        with pytest.raises(NetworkTrouble):
            desk.git(server.url("/x"))


def test_a_repository_above_the_disk_limit_is_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"hello.spec": spec(), "big": os.urandom(300_000)}
    repo = repository(tmp_path / "repo", files)
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=100_000))
    assert "larger than the step's disk limit of 100000 bytes" in desk.git_refusal(repo)


def test_files_that_unpack_above_the_disk_limit_are_refused(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "zeros": bytes(3_000_000)})
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=1_000_000))
    assert "the step's disk limit is 1000000" in desk.git_refusal(repo)


def test_no_time_left_is_timed_out(tmp_path: Path, repo: Path) -> None:
    with pytest.raises(Ended) as ended:
        Desk(folder=tmp_path / "desk", wall_s=0).git(repo)
    assert ended.value.outcome is Outcome.TIMED_OUT


def test_a_stopped_attempt_says_nothing(desk: Desk, repo: Path) -> None:
    desk.stop.set()
    with pytest.raises(LeaseLost):
        desk.git(repo)


def test_two_attempts_at_once_share_one_mirror(tmp_path: Path, repo: Path) -> None:
    desks = [Desk(folder=tmp_path / "desk", attempts=10 * number) for number in range(4)]
    results: list[str | None] = []
    threads = [threading.Thread(target=lambda desk=desk: results.append(desk.git(repo).commit)) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [git(repo, "rev-parse", "main")] * 4


# --- git as a process ------------------------------------------------------------------------------------------------

_FETCHES = "import sys, pathlib, tests.fetching as f; f.Desk(folder=pathlib.Path(sys.argv[1])).git(*sys.argv[2:3], "


def _with(word: str) -> list[bytes]:
    """The command lines of processes that have the word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if word.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes())
    return found


@pytest.mark.parametrize("ref", ["main", "1" * 40], ids=["asking", "fetching"])
def test_git_and_its_children_end_with_the_process_that_started_git(tmp_path: Path, ref: str) -> None:
    is_over = threading.Event()
    with http_server() as server:
        server.answers["/x/info/refs"] = lambda _: is_over.wait(60) and None
        script = f"{_FETCHES}ref={ref!r})"
        command = [sys.executable, "-c", script, str(tmp_path / "desk"), server.url("/x")]
        with subprocess.Popen(command) as fetching:
            try:
                until(lambda: any(b"remote-http" in line for line in _with(str(tmp_path))), "git to ask the server")
                until(lambda: server.seen, "the server to be asked")
                fetching.kill()
                fetching.wait()
                until(lambda: not _with(str(tmp_path)), lambda: f"the end of {_with(str(tmp_path))}", within_s=30)
            finally:
                fetching.kill()
                is_over.set()


def test_the_log_has_gits_own_command_line(desk: Desk, repo: Path) -> None:
    desk.git(repo)
    assert "$ git fetch --progress" in desk.log
    assert "setpriv" not in desk.log


def test_a_host_without_git_is_unfit(desk: Desk, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/setpriv").symlink_to(shutil.which("setpriv") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(HostUnfit, match="git is not installed"):
        desk.git(repo)


# --- what comes out --------------------------------------------------------------------------------------------------


def test_the_tar_is_the_same_bytes_in_every_farm(tmp_path: Path, repo: Path) -> None:
    first, second = (Desk(folder=tmp_path / name) for name in ("a", "b"))
    assert first.git(repo).archive == second.git(f"file://{repo}").archive
    files = first.content(first.git(repo))
    assert files == {name: (repo / name).read_bytes() for name in ("hello-c.spec", "hello.c")}


def test_members_have_the_commits_time_and_no_owner(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "run.sh": b"#!/bin/sh\n"})
    (repo / "run.sh").chmod(0o755)
    commit_all(repo, "Executable")
    with tarfile.open(path_of(desk.store, desk.git(repo).archive.sha256)) as tar:
        members = tar.getmembers()
    assert [(member.name, member.mode) for member in members] == [("hello.spec", 0o644), ("run.sh", 0o755)]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {
        (0, 0, "", int(COMMIT_AT.timestamp()))
    }


def test_attributes_of_the_tree_change_nothing_but_what_git_archive_fills_in(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        ".gitattributes": b"* text eol=crlf ident filter=evil\na.txt export-subst\nhidden export-ignore\n",
        "hello.spec": spec(),
        "a.txt": b"$Format:%H$\n$Id$\n",
        "hidden": b"here\n",
    }
    result = desk.git(repository(tmp_path / "repo", files))
    expected = {name: files[name] for name in ("hello.spec", "hidden")}
    assert desk.content(result) == {**expected, "a.txt": f"{result.commit}\n$Id$\n".encode()}


def test_symlinks_within_the_tree_become_files(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "pkg/hello.spec": spec(),
        "pkg/LICENSE": "../common/LICENSE",
        "common/LICENSE": "real/text",
        "common/real/text": b"free\n",
        "pkg/folder": "../common",
        "pkg/dangling": "nowhere",
    }
    found = desk.content(desk.git(repository(tmp_path / "repo", files), subdir="pkg"))
    assert sorted(found) == ["LICENSE", "hello.spec"]
    assert found["LICENSE"] == b"free\n"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", ".."])
def test_a_symlink_that_leaves_the_tree_is_refused_only_where_the_spec_names_it(
    desk: Desk, tmp_path: Path, target: str
) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "evil": target})
    assert sorted(desk.content(desk.git(repo))) == ["hello.spec"]
    assert "left out unless the spec names it: 'evil' is a symlink that leaves the tree" in desk.log
    repo = repository(tmp_path / "named", {"hello.spec": spec(sources=("evil",)), "evil": target})
    assert "'evil' is a symlink that leaves the tree" in desk.git_refusal(repo)


def test_a_symlink_to_itself_is_refused_only_where_the_spec_names_it(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "a": "b", "b": "a", "x.spec": "y", "y": "x.spec"})
    assert sorted(desk.content(desk.git(repo))) == ["hello.spec"]
    repo = repository(tmp_path / "named", {"hello.spec": spec(sources=("a",)), "a": "b", "b": "a"})
    assert "leads back to itself" in desk.git_refusal(repo)


def test_a_file_whose_name_does_not_print_is_left_out(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "a\x1b[2Jb\nc": b"x"})
    os.close(os.open(os.fsencode(repo) + b"/caf\xe9", os.O_CREAT | os.O_WRONLY))
    commit_all(repo, "Latin 1")
    assert sorted(desk.content(desk.git(repo))) == ["hello.spec"]
    assert "\\x1b[2Jb\\nc: left out" in desk.log


def test_hooks_and_settings_of_a_local_repository_are_not_run(desk: Desk, repo: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f'#!/bin/sh\ntouch {mark}\nexec "$@"\n')
    script.chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "core.pager"):
        git(repo, "config", key, str(script))
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        put(repo / ".git/hooks", {hook: script.read_bytes()})
        (repo / ".git/hooks" / hook).chmod(0o755)
    desk.git(repo)
    assert not mark.exists()


def test_many_files_are_fetched_by_folder(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"pkg/p{number:04}.patch": b"x" for number in range(700)}
    repo = repository(tmp_path / "repo", {"pkg/hello.spec": spec(), "other": b"y", **files})
    assert len(desk.content(desk.git(repo, subdir="pkg"))) == 701
