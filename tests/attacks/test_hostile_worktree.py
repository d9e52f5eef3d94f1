"""A work tree of a stranger whose configuration of git names programs: no command of a maintainer starts one."""

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.cli.main import app
from farm.cli.worktree import warnings
from farm.errors import BadRequest, BadSource
from farm.formats.registry import format_of
from farm.service.source import git_source
from tests.packages import commit_all, git, make_git
from workers.sources.worktree import snapshot

_SIGNATURE = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path, mark: Path) -> Path:
    """A tree with changes, whose configuration, and that of its submodule, name a program wherever git takes one."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\nexit 1\n')
    program.chmod(0o755)
    made, inner = make_git("hello-c", tmp_path), make_git("hello-c", tmp_path / "inner")
    sub = made / "sub"
    inner.rename(sub)
    commit_all(made, "With a submodule")
    for repository in (made, sub):
        for key in ("core.fsmonitor", "filter.x.clean", "filter.x.process", "gpg.program", "diff.external"):
            git(repository, "config", key, str(program))
        (repository / ".git/info/attributes").write_text("* filter=x\n")
        os.utime(repository / "hello.c", (1, 1))
    git(made, "config", "log.showSignature", "true")
    return made


def _taken(folder: Path, tmp_path: Path) -> str:
    with snapshot(folder, without=tmp_path / "results", stop=threading.Event()) as taken:
        return taken.commit


def test_filters_and_those_of_submodules_do_not_run(folder: Path, tmp_path: Path, mark: Path) -> None:
    (folder / "notes.spec").write_text("Name: x\n")
    assert any("notes.spec" in one for one in warnings(str(folder), None))
    for _ in range(2):  # the second time the submodule is in the index of the command
        assert _taken(folder, tmp_path)
        os.utime(folder / "sub/hello.c", (2, 2))
    assert not mark.exists(), mark.read_text()


def test_the_verifier_of_signatures_does_not_run(folder: Path, tmp_path: Path, mark: Path) -> None:
    commit = git(folder, "cat-file", "commit", "HEAD").strip()
    head, _, words = commit.partition("\n\n")
    signed = tmp_path / "signed"
    signed.write_text(f"{head}\n{_SIGNATURE}\n\n{words}\n")
    name = git(folder, "hash-object", "-t", "commit", "-w", str(signed)).strip()
    git(folder, "update-ref", "HEAD", name)
    assert _taken(folder, tmp_path)
    assert not mark.exists(), mark.read_text()


def test_a_server_of_missing_objects_is_not_started(folder: Path, tmp_path: Path, mark: Path) -> None:
    for key, value in (("url", str(folder)), ("promisor", "true"), ("uploadpack", str(tmp_path / "program"))):
        git(folder, "config", f"remote.origin.{key}", value)
    tree = git(folder, "rev-parse", "HEAD^{tree}").strip()
    (folder / ".git/objects" / tree[:2] / tree[2:]).unlink()
    warnings(str(folder), None)
    _taken(folder, tmp_path)
    assert not mark.exists(), mark.read_text()


_READ_BY_GIT = [
    "index",
    "config",
    "HEAD",
    "packed-refs",
    "info/exclude",
    "refs/heads/x",
    "shallow",
    "objects/pack/x.idx",
]


@pytest.mark.parametrize("place", [*(f".git/{name}" for name in _READ_BY_GIT), ".git", "sub/.git/HEAD", ".gitignore"])
def test_a_named_pipe_in_place_of_a_file_that_git_reads_is_refused_at_once(
    folder: Path, tmp_path: Path, place: str
) -> None:
    path = folder / place
    if path.is_dir():
        path.rename(folder / "git")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(BadSource, match="is a named pipe, at which git would wait"):
        _taken(folder, tmp_path)
    assert any("is a named pipe" in one for one in warnings(str(folder), None)) or place == ".git"
    if place.startswith(".git/"):  # a build takes a commit, whatever the work tree's own files are
        with pytest.raises(BadSource, match="is a named pipe"):
            git_source(str(folder), format_of("rpm"))


@pytest.mark.parametrize("link", ["commondir", "objects/info/alternates"])
def test_a_named_pipe_behind_a_pointer_or_a_link_is_found_too(folder: Path, tmp_path: Path, link: str) -> None:
    elsewhere = make_git("hello-c", tmp_path / "elsewhere")
    os.mkfifo(elsewhere / ".git/objects/pack/pack-x.idx")
    to = elsewhere / (".git" if link == "commondir" else ".git/objects")
    (folder / ".git" / link).write_text(f"{to}\n")
    with pytest.raises(BadSource, match=r"elsewhere.*named pipe"):
        _taken(folder, tmp_path)


@pytest.mark.parametrize("key", ["core.excludesFile", "include.path", "includeIf.gitdir:/**.path"])
def test_a_named_pipe_that_the_configuration_names_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    git(folder, "config", key, str(tmp_path / "rules"))
    os.mkfifo(tmp_path / "rules")
    for _ in range(2):
        with pytest.raises(BadSource, match=r"rules.*named pipe"):
            _taken(folder, tmp_path)
        included = tmp_path / "included"  # the second time behind another file
        included.write_text((folder / ".git/config").read_text())
        (folder / ".git/config").write_text(f'[include]\n\tpath = "{included}"\n')


def test_what_repositories_have_in_place_of_files_is_no_reason_to_refuse_them(folder: Path, tmp_path: Path) -> None:
    git(folder, "config", "core.hooksPath", "/dev/null")
    git(folder, "config", "gpg.program", "~no-such-user/x")
    (folder / ".git/fsmonitor--daemon.ipc").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder / ".git"):
        listening.bind("fsmonitor--daemon.ipc")
    (folder / ".git/nowhere").symlink_to("nowhere")
    os.mkfifo(folder / "pipe-of-the-package")
    assert _taken(folder, tmp_path)


@pytest.mark.parametrize(
    "place", ["", "x.git", "x.git/objects", "x.git/info", "x.git/logs/refs/heads/main", "x.git/index"]
)
def test_no_link_in_the_folder_of_the_command_leads_to_other_files_of_the_person(
    folder: Path, tmp_path: Path, place: str
) -> None:
    _taken(folder, tmp_path)
    other = make_git("hello-c", tmp_path / "other") / ".git"
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    own = folder / ".git/farm-try" / place.replace("x.git", f"{folder.name}.git")
    if own.is_dir():
        own.rename(tmp_path / "away")
    own.unlink(missing_ok=True)
    own.parent.mkdir(parents=True, exist_ok=True)
    target = {"": tmp_path / "other", "x.git": other}.get(place, other / Path(place).name)
    own.symlink_to(other / "config" if place.endswith("main") else target)
    (folder / "changed").write_text("")
    with pytest.raises(BadSource, match=r"farm-try.*; remove"):
        _taken(folder, tmp_path)
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folders need root")
@pytest.mark.parametrize("is_link", [True, False])
def test_a_closed_folder_in_place_of_the_command_s_is_refused_in_words(
    folder: Path, open_folder: Path, is_link: bool
) -> None:
    tree = folder.rename(open_folder / "tree")
    closed = open_folder / "closed" if is_link else tree / ".git/farm-try"
    closed.mkdir(mode=0o700)
    if is_link:
        (tree / ".git/farm-try").symlink_to(closed / "x")
    for path in (tree, *tree.rglob("*")):
        if path != closed:
            os.lchown(path, 12345, 12345)
    with pytest.raises(BadSource, match="farm-try"):
        _taken(tree, open_folder)


def test_a_configuration_that_names_a_larger_work_tree_takes_no_files_of_the_person(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a key\n")
    git(folder, "config", "core.worktree", str(tmp_path))
    with pytest.raises(BadSource, match="names another work tree"):
        _taken(folder, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="farm try needs root")
def test_a_folder_whose_name_is_not_utf_8_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))
    folder.rename(odd)
    with contextlib.chdir(odd):
        with pytest.raises(BadSource, match=r"not UTF-8.*; rename it"):
            git_source(".", format_of("rpm"))
        tried = CliRunner().invoke(app, ["try", "-t", "demo"])
    assert tried.exit_code == BadRequest.exit_code, tried.stderr
    assert "is not UTF-8; rename it" in tried.stderr
