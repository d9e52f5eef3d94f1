"""The directory back end's own promises: the places of files, and the files that it keeps and removes."""

import errno
import multiprocessing
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.config import Settings
from farm.errors import BadRequest, LeaseLost, NotFound, RepositoryTrouble
from farm.formats.rpm.format import RpmFormat
from farm.model.arch import Arch
from farm.repositories import open_repositories
from farm.repositories.base import RepositoryFile, RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.folder import RepositoryFolder
from farm.repositories.ledger import Row, Writing
from farm.repositories.staging import locked
from tests.rpms import make_rpm, read_repository, sha256
from tests.waiting import until

NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
AT_ONCE_S = -1.0  # a grace that is over already


def package(path: Path) -> RepositoryPackage:
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)


def make(tmp_path: Path, *names: str, summary: bytes = b"a test") -> list[RepositoryPackage]:
    return [package(make_rpm(tmp_path, name, summary=summary)) for name in names]


def row_of(one: RepositoryPackage) -> Row:
    return Row(filename=one.filename, sha256=one.sha256)


def names(url: str) -> set[str]:
    return {filename.removesuffix("-1-1.noarch.rpm") for filename in read_repository(url)}


def pool(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "repos" / NAME.path / "packages").rglob("*.rpm"))


@pytest.fixture
def backend(tmp_path: Path) -> DirectoryRepositories:
    return DirectoryRepositories(tmp_path / "repos", pause_s=0.0)


def test_the_settings_name_the_back_end(tmp_path: Path) -> None:
    assert (
        open_repositories(Settings(data=tmp_path)).url(NAME) == f"file://{tmp_path}/repositories/{NAME.path}/current/"
    )


def test_old_versions_do_not_change(backend: DirectoryRepositories, tmp_path: Path) -> None:
    backend.add(NAME, make(tmp_path, "one"))
    backend.add(NAME, make(tmp_path, "two", "three"))
    seen = [names(backend.url(NAME, number)) for number in range(3)]
    assert seen == [set(), {"one"}, {"one", "two", "three"}]
    assert names(backend.url(NAME)) == {"one", "two", "three"}


def test_the_same_name_with_other_content_replaces_it_from_then_on(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    first = make(tmp_path, "one")
    backend.add(NAME, first)
    second = make(tmp_path, "one", summary=b"built again")
    assert backend.add(NAME, second) == 2
    for number, digest in ((1, first[0].sha256), (2, second[0].sha256)):
        assert names(backend.url(NAME, number)) == {"one"}
        (lies,) = (tmp_path / "repos" / NAME.path / f"versions/{number}/packages/{digest[:2]}/{digest}").iterdir()
        assert sha256(lies) == digest


def test_a_client_that_read_repomd_before_a_switch_finds_its_files_after_it(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    backend.add(NAME, make(tmp_path, "one"))
    current = tmp_path / "repos" / NAME.path / "current/repodata"
    before = {path.name for path in current.iterdir()}
    backend.add(NAME, make(tmp_path, "two"))
    assert before <= {path.name for path in current.iterdir()}


def test_packages_are_read_only_and_linked_if_the_original_cannot_be_written(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    writable, fixed = make(tmp_path, "writable", "fixed")
    fixed.path.chmod(0o444)
    backend.add(NAME, [writable, fixed])
    writable.path.write_bytes(b"evil")
    assert names(backend.url(NAME)) == {"writable", "fixed"}
    assert fixed.path.stat().st_nlink == 2
    assert all(path.stat().st_mode & 0o222 == 0 for path in (tmp_path / "repos").rglob("*.rpm"))


def test_retention_removes_old_versions_and_packages_that_only_they_had(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    backend.add(NAME, make(tmp_path, "kept", "rebuilt"))
    for summary in (b"2", b"3", b"4"):
        backend.add(NAME, make(tmp_path, "rebuilt", summary=summary))
    backend.retain(NAME, 2, grace_s=AT_ONCE_S)
    versions = tmp_path / "repos" / NAME.path / "versions"
    assert sorted(path.name for path in versions.iterdir()) == ["3", "4"]
    assert names(backend.url(NAME, 3)) == names(backend.url(NAME, 4)) == names(backend.url(NAME)) == {"kept", "rebuilt"}
    assert pool(tmp_path) == ["kept-1-1.noarch.rpm", "rebuilt-1-1.noarch.rpm", "rebuilt-1-1.noarch.rpm"]
    backend.retain(NAME, 0, grace_s=AT_ONCE_S)
    assert [path.name for path in versions.iterdir()] == ["4"]
    assert pool(tmp_path) == ["kept-1-1.noarch.rpm", "rebuilt-1-1.noarch.rpm"]
    # repomd.xml and three metadata files.
    assert len(list((tmp_path / "repos" / NAME.path / "current/repodata").iterdir())) == 4
    assert backend.add(NAME, make(tmp_path, "kept")) == 4, "the current version has it, the first one is gone"


def test_young_versions_are_kept(backend: DirectoryRepositories, tmp_path: Path) -> None:
    for name in ("one", "two"):
        backend.add(NAME, make(tmp_path, name))
    backend.retain(NAME, 1)
    assert names(backend.url(NAME, 0)) == set()


def test_every_add_retains(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos", grace_s=AT_ONCE_S, pause_s=0.0)
    for number in range(8):
        backend.add(NAME, make(tmp_path, f"p{number}"), keep=3)
    assert sorted(path.name for path in (tmp_path / "repos" / NAME.path / "versions").iterdir()) == ["6", "7", "8"]
    assert len(names(backend.url(NAME))) == 8


def test_a_package_that_retention_dropped_can_come_again(backend: DirectoryRepositories, tmp_path: Path) -> None:
    old = make(tmp_path, "one")
    (copy := tmp_path / "copy").write_bytes(old[0].path.read_bytes())
    old = [RepositoryPackage(path=copy, sha256=old[0].sha256, filename=old[0].filename)]
    backend.add(NAME, old)
    backend.add(NAME, make(tmp_path, "one", summary=b"new"))
    backend.retain(NAME, 1, grace_s=AT_ONCE_S)
    assert backend.add(NAME, old) == 3
    assert names(backend.url(NAME)) == {"one"}


def test_a_disk_that_does_not_take_it_is_trouble_and_the_next_add_publishes(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    backend.current(NAME)
    versions = tmp_path / "repos" / NAME.path / "versions"
    versions.rename(aside := versions.with_name("aside"))
    versions.write_text("in the way")
    with pytest.raises(RepositoryTrouble, match=NAME.path):
        backend.add(NAME, make(tmp_path, "one"))
    versions.unlink()
    aside.rename(versions)
    assert names(backend.url(NAME)) == set()
    assert backend.add(NAME, make(tmp_path, "two")) == 2
    assert names(backend.url(NAME)) == {"one", "two"}
    assert names(backend.url(NAME, 1)) == {"one"}


def test_a_package_that_waits_while_another_rolls_back_is_published_by_the_next_add(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    """As a publisher leaves it that is killed between submitting and publishing."""
    first = backend.add(NAME, make(tmp_path, "a"))
    backend.add(NAME, make(tmp_path, "a", summary=b"new") + make(tmp_path, "b"))
    repository = RepositoryFolder(tmp_path / "repos" / NAME.path, RpmFormat())
    waiting = [make_rpm(tmp_path, name, summary=b"waits") for name in ("a", "c")]
    waiting.append(make_rpm(tmp_path, "b", summary=b"waits"))
    repository.submit({Row(filename=one.name, sha256=sha256(one)): one for one in waiting}, stop=None)
    rolled_back = backend.rollback(NAME, first)
    assert names(backend.url(NAME)) == {"a"}
    assert [version.packages for version in backend.versions(NAME)][:2] == [1, 2]
    backend.add(NAME, make(tmp_path, "d"))
    assert names(backend.url(NAME)) == {"a", "b", "c", "d"}
    assert backend.versions(NAME)[0].packages == 4
    assert names(backend.url(NAME, rolled_back)) == {"a"}
    repository.close()


def test_a_rollback_may_bring_back_a_package_that_waits(backend: DirectoryRepositories, tmp_path: Path) -> None:
    old = make_rpm(tmp_path, "a")
    row, copy = Row(filename=old.name, sha256=sha256(old)), tmp_path / "copy"
    copy.write_bytes(old.read_bytes())
    first = backend.add(NAME, [package(old)])
    second = backend.add(NAME, make(tmp_path, "a", summary=b"new"))
    repository = RepositoryFolder(tmp_path / "repos" / NAME.path, RpmFormat())
    ids = list(repository.submit({row: copy}, stop=None))
    version = backend.rollback(NAME, first)
    assert repository.publish(ids, keep=9, grace_s=0, stop=None) == version == second + 1
    assert names(backend.url(NAME)) == {"a"}
    repository.close()


def test_logs_lie_in_the_targets_folder_and_nothing_unfinished_beside_them(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    (path := tmp_path / "log").write_bytes(b"hi")
    logs = RepositoryName(target="demo", kind=RepositoryKind.LOGS)
    assert backend.url(logs) == backend.add_files(
        logs, [RepositoryFile(path=path, sha256=sha256(path), name="1/fetch.1/fetch.log")]
    )
    folder = tmp_path / "repos/demo/logs"
    assert (folder / "1/fetch.1/fetch.log").read_bytes() == b"hi"
    assert list((folder / ".unfinished").iterdir()) == []
    assert (backend.current(logs), backend.versions(logs)) == (0, ())
    with pytest.raises(BadRequest, match="without versions"):
        backend.rollback(logs, 1)


def test_a_folder_that_cannot_be_used_is_found_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, space, *indexes = DirectoryRepositories(tmp_path / "file/repos").check()
    assert not folder.is_ok
    assert "is not a folder" in folder.found
    assert folder.remedy
    assert space.is_ok
    assert "index of rpm packages" in [index.what for index in indexes if index.is_ok]


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    folder, *_ = DirectoryRepositories(tmp_path / "data/repos").check()
    assert (folder.is_ok, folder.found) == (True, "is made by the first publication")
    assert not (tmp_path / "data").exists()


_ADDS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from((b"1", b"2"))), max_size=3, unique_by=lambda p: p[0]
)


@settings(max_examples=15, deadline=None)
@given(calls=st.lists(st.one_of(_ADDS, st.integers(0, 8)), max_size=10))
def test_any_sequence_of_adds_and_rollbacks_gives_the_versions_one_would_expect(
    tmp_path_factory: pytest.TempPathFactory, calls: Sequence[Sequence[tuple[str, bytes]] | int]
) -> None:
    """A number rolls back to that version, or the newest where there are fewer."""
    tmp_path = tmp_path_factory.mktemp("any")
    backend = DirectoryRepositories(tmp_path / "repos", pause_s=0.0)
    expected: list[dict[str, bytes]] = [{}]
    for call in calls:
        if isinstance(call, int):
            to = min(call, len(expected) - 1)
            changed = expected[to]
            got = backend.rollback(NAME, to)
        else:
            changed = {**expected[-1], **dict(call)}
            got = backend.add(NAME, [made for name, summary in call for made in make(tmp_path, name, summary=summary)])
        if changed != expected[-1]:
            expected.append(changed)
        assert got == backend.current(NAME) == len(expected) - 1
    assert [version.packages for version in reversed(backend.versions(NAME))] == [len(one) for one in expected]
    for number, content in enumerate(expected):
        assert names(backend.url(NAME, number)) == set(content)


def test_packages_of_an_upload_that_was_stopped_while_it_waited_are_not_published(
    backend: DirectoryRepositories, tmp_path: Path
) -> None:
    """A build was cancelled, and its packages are not to turn up with the next one's. One of them another build has
    asked for too, which is told to try again."""
    (both,), (mine,) = make(tmp_path, "both"), make(tmp_path, "mine")
    backend.add(NAME, [])
    repository, stop = RepositoryFolder(tmp_path / "repos" / NAME.path, RpmFormat()), threading.Event()
    with locked(tmp_path / "repos" / NAME.path / "state/lock", timeout_s=1), ThreadPoolExecutor(1) as pool_:
        upload = pool_.submit(backend.add, NAME, [both, mine], stop=stop)
        until(lambda: len(repository._ledger.here([row_of(one) for one in (both, mine)])) == 2, "both to wait")
        ids = list(repository.submit({row_of(both): both.path}, stop=None))
        stop.set()
        with pytest.raises(LeaseLost):
            upload.result(10)
    with pytest.raises(RepositoryTrouble, match="try again"):
        repository.publish(ids, keep=9, grace_s=0, stop=None)
    assert backend.add(NAME, make(tmp_path, "other")) == 1
    assert names(backend.url(NAME)) == {"other"}
    assert pool(tmp_path) == ["other-1-1.noarch.rpm"]
    assert backend.add(NAME, [both]) == 2
    repository.close()


def test_a_full_disk_keeps_nothing_from_being_withdrawn(
    backend: DirectoryRepositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's file has space for it. The pool keeps a file only as long as it is not in the way."""
    (mine,) = make(tmp_path, "mine")
    backend.add(NAME, [])
    repository = RepositoryFolder(tmp_path / "repos" / NAME.path, RpmFormat())
    ids = list(repository.submit({row_of(mine): mine.path}, stop=None))

    def full(path: Path, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        repository.withdraw(ids)
    backend.add(NAME, make(tmp_path, "other"))
    assert names(backend.url(NAME)) == {"other"}
    assert pool(tmp_path) == ["other-1-1.noarch.rpm"]
    repository.close()


@pytest.mark.parametrize(
    ("killed_in", "published"),
    [((Writing, "_unknown"), {"mine", "other"}), ((RepositoryFolder, "_drop"), {"other"})],
)
def test_a_process_killed_while_it_withdraws_publishes_nothing_without_its_file(
    backend: DirectoryRepositories, tmp_path: Path, killed_in: tuple[type, str], published: set[str]
) -> None:
    """Before the ledger has forgotten it, and after."""
    (mine,) = make(tmp_path, "mine")
    backend.add(NAME, [])

    def withdraw() -> None:
        repository = RepositoryFolder(tmp_path / "repos" / NAME.path, RpmFormat())
        ids = list(repository.submit({row_of(mine): mine.path}, stop=None))
        setattr(*killed_in, lambda *_: os._exit(9))
        repository.withdraw(ids)

    process = multiprocessing.get_context("fork").Process(target=withdraw)
    process.start()
    process.join(10)
    assert process.exitcode == 9
    backend.add(NAME, make(tmp_path, "other"))
    assert names(backend.url(NAME)) == published
    assert pool(tmp_path) == sorted(f"{name}-1-1.noarch.rpm" for name in published)


def test_a_version_whose_files_are_gone_is_not_offered(backend: DirectoryRepositories, tmp_path: Path) -> None:
    """This happens if the process that removed it was killed before it recorded that."""
    for number in range(3):
        backend.add(NAME, make(tmp_path, f"p{number}"))
    shutil.rmtree(tmp_path / "repos" / NAME.path / "versions/1")
    assert [version.number for version in backend.versions(NAME)] == [3, 2, 0]
    with pytest.raises(NotFound, match="there are 3, 2, 0"):
        backend.rollback(NAME, 1)
