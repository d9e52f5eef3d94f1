"""The directory store's own promises, and the names that a file may have."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.artifacts import Access, open_store
from farm.artifacts.directory import DirectoryStore
from farm.artifacts.names import check_name
from farm.config import Settings
from farm.errors import DiskFull, NotFound, StoreTrouble, disk_errors
from farm.model.artifact import ArtifactKind
from tests.artifacts import content_of, path_of

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="hard links are given out only as root")


def given_file(tmp_path: Path, content: bytes = b"content") -> Path:
    path = tmp_path / "given"
    path.write_bytes(content)
    return path


@given(st.text() | st.binary())
def test_a_checked_name_is_safe_in_a_path_and_a_log(name: str | bytes) -> None:
    try:
        text = check_name(name)
    except ValueError as error:
        message = str(error)
    else:
        message = text
        assert Path("/x", text).name == text
        assert len(text.encode()) <= 255
    assert message.isprintable()


@pytest.mark.parametrize("name", ["hello-2.10-1.x86_64.rpm", "gcc-c++-1~rc1^git.rpm", "größe.log", "a b", b"build.log"])
def test_ordinary_names_pass(name: str | bytes) -> None:
    assert check_name(name) == (name if isinstance(name, str) else name.decode())


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    artifact = open_store(Settings(data=tmp_path)).put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)
    assert (tmp_path / "artifacts" / artifact.sha256[:2] / artifact.sha256[2:4] / artifact.sha256).exists()


def test_a_moved_file_is_taken_without_a_copy(tmp_path: Path) -> None:
    path = given_file(tmp_path)
    path.chmod(0o4777)
    inode = path.stat().st_ino
    store = DirectoryStore(tmp_path / "store")
    stored = path_of(store, store.put(path, name="a", kind=ArtifactKind.RPM, move=True).sha256).stat()
    assert stored.st_ino == inode
    assert stored.st_mode & 0o7777 == 0o444
    assert stored.st_uid == os.geteuid()


def test_a_moved_file_with_a_second_name_is_copied(tmp_path: Path) -> None:
    """Else its owner could change the store's content through the other name."""
    path = given_file(tmp_path)
    other = tmp_path / "other"
    other.hardlink_to(path)
    store = DirectoryStore(tmp_path / "store")
    sha256 = store.put(path, name="a", kind=ArtifactKind.RPM, move=True).sha256
    other.write_bytes(b"evil!!!")
    assert content_of(store, sha256) == b"content"


@root_only
def test_get_is_a_hard_link(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    artifact = store.put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)
    assert store.get(artifact, tmp_path / "back").samefile(path_of(store, artifact.sha256))


def test_a_file_cut_short_by_a_power_cut_is_not_given_out_and_is_mended_by_the_next_put(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    artifact = store.put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)
    stored = path_of(store, artifact.sha256)
    stored.unlink()
    stored.write_bytes(b"")
    with pytest.raises(NotFound, match="7 bytes"):
        store.get(artifact, tmp_path / "back")
    store.put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)
    assert store.get(artifact, tmp_path / "back").read_bytes() == b"content"


def test_the_token_of_an_access_is_not_shown() -> None:
    assert repr(Access(attempt="12.build.x86_64.1", token="secret")) == "Access(attempt='12.build.x86_64.1')"


def test_nothing_is_left_over_after_a_put(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_a_store_that_cannot_be_written_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises(StoreTrouble, match="was not stored as 'a'"):
        DirectoryStore(tmp_path / "store").put(given_file(tmp_path), name="a", kind=ArtifactKind.LOG)


def test_a_full_disk_is_its_own_trouble() -> None:
    with (
        pytest.raises(DiskFull, match=r"x was not stored.*free some space"),
        disk_errors(StoreTrouble, "x was not stored"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
