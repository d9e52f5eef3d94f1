"""A work tree of a stranger whose configuration of git names programs: no command of a maintainer starts one."""

import os
import threading
from pathlib import Path

import pytest

from farm.cli.worktree import warnings
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
