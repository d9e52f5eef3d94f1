"""The removal of a recipe's files: small trees in the process, others by a tool, and never the targets of links."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.waiting import until
from workers.isolation.pids import is_alive
from workers.isolation.scratch import remove_tree


def _fill(folder: Path, *, levels: int, files: int) -> None:
    for number in range(files):
        (folder / f"file-{number}").write_text("x")
    for _ in range(levels):
        folder = folder / "d"
        folder.mkdir()
        (folder / "file").write_text("x")


@pytest.mark.parametrize(("levels", "files"), [(0, 0), (3, 10), (40, 1), (2, 500)])
def test_a_tree_of_any_size_is_gone(tmp_path: Path, levels: int, files: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    _fill(tree, levels=levels, files=files)
    remove_tree(tree)
    assert not tree.exists()


def test_odd_names_and_types_are_gone_and_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "to-folder").symlink_to(kept)
    (tree / "to-file").symlink_to(kept / "file")
    os.mkfifo(tree / "fifo")
    (Path(os.fsdecode(bytes(tree) + b"/latin-\xe9\nline"))).write_text("x")
    closed = tree / "closed"
    closed.mkdir(mode=0o000)
    remove_tree(tree)
    assert not tree.exists()
    assert (kept / "file").read_text() == "kept"


def test_a_link_is_removed_and_its_target_stays(tmp_path: Path) -> None:
    """A recipe can give a link in its folder the name of a dead worker's scratch folder."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept/file").exists()


def test_a_missing_tree_counts_as_removed(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_a_zombie_counts_as_dead() -> None:
    """As long as init has not come to it."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        start = int(Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19])
        assert is_alive(sleeper.pid, start)
        sleeper.kill()
        until(lambda: ") Z " in Path(f"/proc/{sleeper.pid}/stat").read_text(), "its death")
        assert not is_alive(sleeper.pid, start)
