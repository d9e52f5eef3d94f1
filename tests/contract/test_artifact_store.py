"""The contract of every artifact store, wherever its files are."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from farm.artifacts.base import ArtifactStore
from farm.artifacts.directory import DirectoryStore
from farm.errors import BadSource, LeaseLost, NotFound
from farm.model.artifact import ArtifactKind
from tests.artifacts import content_of, path_of
from tests.waiting import SetLater

STORES: dict[str, Callable[[Path], ArtifactStore]] = {"directory": DirectoryStore}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return STORES[request.param](tmp_path / "store")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, where nothing can be a hard link."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def file(tmp_path: Path, content: bytes = b"content", name: str = "given") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_stored_file_comes_back_with_its_digest_name_and_size(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a.log", kind=ArtifactKind.LOG)
    assert artifact.sha256 == hashlib.sha256(b"content").hexdigest()
    assert (artifact.name, artifact.size_bytes, artifact.kind) == ("a.log", 7, ArtifactKind.LOG)
    assert store.get(artifact, tmp_path / "back").read_bytes() == b"content"
    assert content_of(store, artifact.sha256) == b"content"


def test_a_put_leaves_the_callers_file_alone(store: ArtifactStore, tmp_path: Path) -> None:
    path = file(tmp_path)
    artifact = store.put(path, name="a", kind=ArtifactKind.LOG)
    path.write_bytes(b"changed")
    assert content_of(store, artifact.sha256) == b"content"


@pytest.mark.parametrize("again", [False, True], ids=["new", "known"])
def test_a_moved_file_is_gone_from_where_it_was(store: ArtifactStore, tmp_path: Path, again: bool) -> None:
    if again:
        store.put(file(tmp_path), name="a", kind=ArtifactKind.RPM)
    path = file(tmp_path)
    artifact = store.put(path, name="a", kind=ArtifactKind.RPM, move=True)
    assert not path.exists()
    assert content_of(store, artifact.sha256) == b"content"


def test_the_same_content_under_two_names_is_two_artifacts_of_one_digest(store: ArtifactStore, tmp_path: Path) -> None:
    path = file(tmp_path)
    one = store.put(path, name="one", kind=ArtifactKind.LOG)
    two = store.put(path, name="two", kind=ArtifactKind.LOG)
    assert one == replace(two, name="one")


def test_an_empty_file_is_a_file(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path, b""), name="empty", kind=ArtifactKind.LOG)
    assert store.get(artifact, tmp_path / "back").read_bytes() == b""


def test_no_user_may_write_to_files_that_are_given_out(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    assert store.get(artifact, tmp_path / "back").stat().st_mode & 0o222 == 0
    assert path_of(store, artifact.sha256).stat().st_mode & 0o222 == 0


@pytest.mark.parametrize(
    ("offset", "rest"), [(0, b"content"), (3, b"tent"), (6, b"t"), (7, b""), (8, b""), (2**40, b"")]
)
def test_a_stream_begins_at_the_offset_that_was_asked_for(
    store: ArtifactStore, tmp_path: Path, offset: int, rest: bytes
) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    with store.open(artifact.sha256, offset) as stream:
        assert stream.read() == rest


def test_a_stream_is_read_in_pieces_and_cannot_be_written(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    with store.open(artifact.sha256) as stream:
        assert (stream.read(3), stream.read(3), stream.read(3), stream.read(3)) == (b"con", b"ten", b"t", b"")
        with pytest.raises(OSError, match="write"):
            stream.write(b"x")


def test_a_negative_offset_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    with pytest.raises(ValueError, match="offset -1 is negative"):
        store.open(artifact.sha256, -1)


def test_a_local_file_is_a_regular_file_with_the_content(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.RPM)
    with store.local(artifact.sha256, stop=threading.Event()) as one, store.local(artifact.sha256) as two:
        assert one.is_file()
        assert not one.is_symlink()
        assert one.read_bytes() == two.read_bytes() == b"content"
    with store.local(artifact.sha256) as again:
        assert again.read_bytes() == b"content"


def test_a_caller_that_is_stopped_gets_no_local_file(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.RPM)
    (stop := threading.Event()).set()
    with pytest.raises(LeaseLost), store.local(artifact.sha256, stop=stop):
        pytest.fail("the file was given out")


def test_an_error_of_the_user_of_a_local_file_is_raised_as_it_is(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.RPM)
    with pytest.raises(IsADirectoryError), store.local(artifact.sha256):
        raise IsADirectoryError
    assert content_of(store, artifact.sha256) == b"content"


def test_get_replaces_a_file_that_is_in_its_way(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    into = file(tmp_path, b"old", "into")
    assert store.get(artifact, into).read_bytes() == b"content"


@pytest.mark.parametrize("sha256", ["0" * 64, "", "A" * 64, "../" * 21 + "x", "\x1b[2J", "0" * 63 + "\n"])
def test_a_digest_that_is_not_there_is_not_found(store: ArtifactStore, tmp_path: Path, sha256: str) -> None:
    artifact = store.put(file(tmp_path), name="a", kind=ArtifactKind.LOG)
    for ask in (content_of, path_of):
        with pytest.raises(NotFound) as found:
            ask(store, sha256)
        assert "\x1b" not in str(found.value)
    with pytest.raises(NotFound):
        store.get(replace(artifact, sha256=sha256), tmp_path / "back")


@pytest.mark.parametrize("looks", [0, 1, 5, 17])
@pytest.mark.parametrize("move", [False, True])
def test_a_stopped_attempt_stores_nothing_of_a_large_file(
    store: ArtifactStore, tmp_path: Path, move: bool, looks: int
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(40 * 2**20)
    with pytest.raises(LeaseLost):
        store.put(path, name="a", kind=ArtifactKind.RPM, move=move, stop=SetLater(looks))
    assert path.exists()
    artifact = store.put(path, name="a", kind=ArtifactKind.RPM, move=move, stop=threading.Event())
    assert path_of(store, artifact.sha256).stat().st_size == 40 * 2**20


@pytest.mark.parametrize("looks", [0, 1, 17])
def test_a_stopped_attempt_gets_nothing_of_a_large_file(
    store: ArtifactStore, tmp_path: Path, elsewhere: Path, looks: int
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(40 * 2**20)
    artifact = store.put(path, name="a", kind=ArtifactKind.SRPM)
    with pytest.raises(LeaseLost):
        store.get(artifact, elsewhere / "back", stop=SetLater(looks))
    assert list(elsewhere.iterdir()) == []
    back = store.get(artifact, elsewhere / "back", stop=threading.Event())
    assert (back.stat().st_size, back.stat().st_mode & 0o222) == (40 * 2**20, 0)


@pytest.mark.parametrize("move", [False, True])
def test_only_regular_files_are_stored(store: ArtifactStore, tmp_path: Path, move: bool) -> None:
    link, fifo, folder = tmp_path / "link", tmp_path / "fifo", tmp_path / "folder"
    link.symlink_to("/etc/passwd")
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (link, fifo, folder, Path("/dev/null"), tmp_path / "missing"):
        with pytest.raises(BadSource):
            store.put(path, name="a", kind=ArtifactKind.RPM, move=move)
    assert link.is_symlink()
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["", "../a", ".hidden", "a\nb", "a\x1b[31m", "a\u202eb", "x" * 256, "a\udcff"])
def test_a_name_that_is_not_plain_is_refused(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        store.put(file(tmp_path), name=name, kind=ArtifactKind.RPM)


def test_many_threads_may_put_the_same_content(store: ArtifactStore, tmp_path: Path) -> None:
    paths = [file(tmp_path, b"same" * 10_000, f"f{number}") for number in range(8)]
    digests: list[str] = []

    def put(path: Path) -> None:
        digests.append(store.put(path, name="a", kind=ArtifactKind.RPM, move=True).sha256)

    threads = [threading.Thread(target=put, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1
    assert content_of(store, digests[0]) == b"same" * 10_000
