"""Warnings about a local work tree whose last changes are not in the commit that is built."""

from pathlib import Path

import pytest

from farm.cli.worktree import warnings
from tests.packages import commit_all, git, make_git


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_git("hello-c", tmp_path)


def test_a_clean_tree_and_a_server_get_no_warning(folder: Path) -> None:
    assert warnings(str(folder), None) == ()
    assert warnings(folder.as_uri(), "main") == ()
    assert warnings("https://example.org/x.git", None) == ()


def test_changes_and_specs_that_git_does_not_have_are_named(folder: Path) -> None:
    (folder / "hello.c").write_text("int x;\n")
    (folder / "other name.spec").write_text("Name: x\n")
    (folder / "notes").write_text("")
    for given in (str(folder), folder.as_uri()):
        changed, unknown = warnings(given, None)
        assert changed == "changes that are not committed are not built: hello.c; commit them to build them"
        assert unknown == "git does not know other name.spec, which is not built; `git add` and commit it"
    assert len(warnings(str(folder), "main")) == 2
    git(folder, "tag", "v1")
    assert warnings(str(folder), "v1") == ()


def test_commits_that_are_not_pushed_are_counted_for_a_ref_of_the_remote(folder: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(folder), "clone")
    (tmp_path / "clone/hello.c").write_text("int x;\n")
    commit_all(tmp_path / "clone", "Change")
    (found,) = warnings(str(tmp_path / "clone"), "origin/main")
    assert found.startswith("1 commits of main are not in origin/main and are not built")
    assert warnings(str(tmp_path / "clone"), None) == ()
