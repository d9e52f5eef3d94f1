"""The contract of every repository back end for packages that are copied to another repository, or removed."""

import multiprocessing
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from farm.errors import BadRequest, LeaseLost, NotFound
from farm.model.arch import Arch
from farm.repositories.base import IndexedPackage, RepositoryBackend, RepositoryName, RepositoryPackage
from tests.repository_backends import LOGS, NAME, SOURCE, counts, dnf, package
from tests.rpms import make_rpm, sha256

PRODUCT = replace(NAME, project="product")
DEADLINE_S = 120.0
UNKNOWN = "0" * 64


def made(folder: Path, *names: str, summary: bytes = b"a test") -> list[RepositoryPackage]:
    folder.mkdir(exist_ok=True)
    return [package(make_rpm(folder, name, summary=summary)) for name in names]


def digests(given: Sequence[RepositoryPackage]) -> list[str]:
    return [one.sha256 for one in given]


def content(backend: RepositoryBackend, name: RepositoryName) -> set[str]:
    """The digests of the packages that clients of the repository get."""
    return {one.sha256 for one in backend.index(name, backend.current(name))}


def test_an_index_says_which_packages_a_version_has(backend: RepositoryBackend, tmp_path: Path) -> None:
    hello = make_rpm(tmp_path, "hello", epoch=3, version="1.2~rc1")
    aide = make_rpm(tmp_path, "aide", arch="x86_64")
    first = backend.add(NAME, [package(hello)])
    second = backend.add(NAME, [package(aide)])
    entries = [
        IndexedPackage(
            identity=identity,
            filename=path.name,
            sha256=sha256(path),
            size_bytes=path.stat().st_size,
            source="hello-1-1.src.rpm",
        )
        for identity, path in (("aide-1-1.x86_64", aide), ("hello-3:1.2~rc1-1.noarch", hello))
    ]
    assert backend.index(NAME, second) == tuple(entries)
    assert backend.index(NAME, first) == (entries[1],)
    assert backend.index(NAME, 0) == ()


def test_a_source_package_has_no_source(backend: RepositoryBackend, tmp_path: Path) -> None:
    version = backend.add(SOURCE, [package(make_rpm(tmp_path, arch="src"))])
    (one,) = backend.index(SOURCE, version)
    assert (one.identity, one.source) == ("hello-1-1.src", "")


def test_a_version_that_is_not_kept_has_no_index(backend: RepositoryBackend, tmp_path: Path) -> None:
    versions = [backend.add(NAME, made(tmp_path, f"p{number}"), keep=2) for number in range(4)]
    for number in (versions[0], versions[-1] + 1, -1):
        with pytest.raises(NotFound, match=rf"no version {number}\b.*\b{versions[-1]}\b"):
            backend.index(NAME, number)
    with pytest.raises(NotFound):
        backend.index(PRODUCT, 1)


def test_packages_are_copied_from_any_kept_version_without_their_files(
    backend: RepositoryBackend, tmp_path: Path
) -> None:
    one, two, three = made(tmp_path, "one", "two", "three")
    first = backend.add(NAME, [one, two])
    second = backend.add(NAME, [three])
    for given in (one, two, three):
        given.path.unlink()
    copied = backend.copy(NAME, first, PRODUCT, digests([one]))
    assert content(backend, PRODUCT) == {one.sha256}
    assert backend.copy(NAME, first, PRODUCT, digests([one])) == copied == backend.current(PRODUCT)
    last = backend.copy(NAME, second, PRODUCT, digests([one, three, three]))
    assert content(backend, PRODUCT) == {one.sha256, three.sha256}
    assert counts(backend, PRODUCT)[last] == 2
    assert backend.current(NAME) == second
    assert content(backend, NAME) == {one.sha256, two.sha256, three.sha256}
    if shutil.which("dnf"):
        into = tmp_path / "got"
        dnf(tmp_path, backend.url(PRODUCT), "download", f"--destdir={into}", "three", "one")
        assert {path.name: sha256(path) for path in into.iterdir()} == {
            given.filename: given.sha256 for given in (one, three)
        }


def test_a_copy_outlives_the_version_that_it_came_from(backend: RepositoryBackend, tmp_path: Path) -> None:
    (one,) = made(tmp_path, "one")
    first = backend.add(NAME, [one])
    backend.copy(NAME, first, PRODUCT, [one.sha256])
    backend.remove(NAME, [one.sha256], keep=1)
    for number in range(3):
        backend.add(NAME, made(tmp_path, f"p{number}"), keep=1)
    with pytest.raises(NotFound):
        backend.copy(NAME, first, PRODUCT, [one.sha256])
    assert backend.keeps([one.sha256]) == {one.sha256}
    if shutil.which("dnf"):
        dnf(tmp_path, backend.url(PRODUCT), "download", f"--destdir={tmp_path / 'got'}", "one")
        assert sha256(tmp_path / "got" / one.filename) == one.sha256


def test_a_copied_package_takes_the_place_of_another_of_its_file_name(
    backend: RepositoryBackend, tmp_path: Path
) -> None:
    old, new = made(tmp_path / "old", "one", summary=b"old"), made(tmp_path / "new", "one", summary=b"new")
    before = backend.add(PRODUCT, [*old, *made(tmp_path, "two")])
    version = backend.copy(NAME, backend.add(NAME, new), PRODUCT, digests(new))
    assert version > before
    assert counts(backend, PRODUCT)[version] == 2
    assert new[0].sha256 in content(backend, PRODUCT)
    assert old[0].sha256 in {one.sha256 for one in backend.index(PRODUCT, before)}


def test_a_copy_of_packages_that_a_version_lacks_changes_nothing(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = made(tmp_path, "one", "two")
    first = backend.add(NAME, [one])
    backend.add(NAME, [two])
    with pytest.raises(NotFound, match=f"version {first} .*{two.sha256}"):
        backend.copy(NAME, first, PRODUCT, digests([one, two]))
    with pytest.raises(NotFound, match="no package"):
        backend.copy(NAME, 0, PRODUCT, [one.sha256])
    with pytest.raises(NotFound, match="no version 77"):
        backend.copy(NAME, 77, PRODUCT, [one.sha256])
    assert backend.current(PRODUCT) == 0
    assert backend.copy(NAME, first, PRODUCT, []) == 0


def test_packages_are_removed_in_a_new_version(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two, three = made(tmp_path, "one", "two", "three")
    before = backend.add(NAME, [one, two, three])
    after = backend.remove(NAME, [one.sha256, three.sha256, UNKNOWN])
    assert after > before
    assert after == backend.current(NAME)
    assert content(backend, NAME) == {two.sha256}
    assert counts(backend)[after] == 1
    assert counts(backend)[before] == 3
    assert backend.remove(NAME, [one.sha256, three.sha256, UNKNOWN]) == after
    assert backend.remove(NAME, []) == after
    if shutil.which("dnf"):
        assert dnf(tmp_path, backend.url(NAME), "repoquery", "--qf", "%{name}") == ["two"]
        assert dnf(tmp_path, backend.url(NAME, before), "repoquery", "--qf", "%{name}") == ["one", "three", "two"]


def test_the_last_package_can_be_removed(backend: RepositoryBackend, tmp_path: Path) -> None:
    (one,) = made(tmp_path, "one")
    backend.add(NAME, [one])
    version = backend.remove(NAME, [one.sha256])
    assert backend.index(NAME, version) == ()
    assert counts(backend)[version] == 0


def test_removed_packages_come_back_by_a_rollback_an_add_or_a_copy(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two = made(tmp_path, "one", "two")
    first = backend.add(NAME, [one, two])

    def back_by_rollback() -> int:
        return backend.rollback(NAME, first)

    def back_by_add() -> int:
        return backend.add(NAME, [one])

    def back_by_copy() -> int:
        return backend.copy(NAME, first, NAME, [one.sha256])

    for come_back in (back_by_rollback, back_by_add, back_by_copy):
        gone = backend.remove(NAME, [one.sha256])
        assert content(backend, NAME) == {two.sha256}
        assert come_back() == backend.current(NAME) > gone
        assert content(backend, NAME) == {one.sha256, two.sha256}


def test_a_removal_after_a_rollback_builds_on_it(backend: RepositoryBackend, tmp_path: Path) -> None:
    one, two, three = made(tmp_path, "one", "two", "three")
    first = backend.add(NAME, [one, two])
    backend.add(NAME, [three])
    backend.rollback(NAME, first)
    backend.remove(NAME, [two.sha256])
    assert content(backend, NAME) == {one.sha256}


def test_a_removal_from_a_repository_that_was_never_used_is_none(backend: RepositoryBackend) -> None:
    assert backend.remove(NAME, [UNKNOWN]) == 0


def test_old_versions_go_after_copies_and_removals_too(backend: RepositoryBackend, tmp_path: Path) -> None:
    given = made(tmp_path, *(f"p{number}" for number in range(3)))
    source = backend.add(NAME, given)
    copied = [backend.copy(NAME, source, PRODUCT, [one.sha256], keep=2) for one in given]
    removed = [backend.remove(PRODUCT, [one.sha256], keep=2) for one in given]
    kept = [version.number for version in backend.versions(PRODUCT)]
    assert kept[:2] == removed[:0:-1]
    assert not set(copied) & set(kept)


@pytest.mark.parametrize("digest", ["", "A" * 64, "../" * 21 + "x", "0" * 63 + "\n", "\x1b[2J"])
def test_a_digest_that_no_package_has_is_refused(backend: RepositoryBackend, digest: str) -> None:
    for ask in (lambda: backend.remove(NAME, [digest]), lambda: backend.copy(NAME, 0, PRODUCT, [digest])):
        with pytest.raises(BadRequest) as refused:
            ask()
        assert str(refused.value).isprintable()


def test_only_packages_of_one_kind_are_copied(backend: RepositoryBackend, tmp_path: Path) -> None:
    version = backend.add(SOURCE, [package(make_rpm(tmp_path, arch="src"))])
    for source, into in ((SOURCE, NAME), (NAME, SOURCE), (LOGS, LOGS), (NAME, LOGS), (LOGS, NAME)):
        with pytest.raises(BadRequest):
            backend.copy(source, version, into, [UNKNOWN])
    for name in (LOGS, replace(NAME, project="../x"), replace(NAME, target="..")):
        with pytest.raises(BadRequest):
            backend.index(name, 1)
        with pytest.raises(BadRequest):
            backend.remove(name, [UNKNOWN])
        with pytest.raises(BadRequest):
            backend.copy(NAME, 1, name, [UNKNOWN])


def test_a_noarch_package_is_copied_to_another_arch(backend: RepositoryBackend, tmp_path: Path) -> None:
    (one,) = made(tmp_path, "one")
    other = replace(NAME, arch=Arch.AARCH64)
    backend.copy(NAME, backend.add(NAME, [one]), other, [one.sha256])
    assert content(backend, other) == {one.sha256}


def test_a_copy_or_removal_that_is_stopped_is_over_and_a_repeat_completes_it(
    backend: RepositoryBackend, tmp_path: Path
) -> None:
    one, two = made(tmp_path, "one", "two")
    version, stop = backend.add(NAME, [one, two]), threading.Event()
    stop.set()
    with pytest.raises(LeaseLost):
        backend.copy(NAME, version, PRODUCT, [one.sha256], stop=stop)
    with pytest.raises(LeaseLost):
        backend.remove(NAME, [one.sha256], stop=stop)
    backend.copy(NAME, version, PRODUCT, [one.sha256])
    assert content(backend, PRODUCT) == {one.sha256}
    backend.remove(NAME, [one.sha256])
    assert content(backend, NAME) == {two.sha256}


def _promote(backend: RepositoryBackend, version: int, given: Sequence[RepositoryPackage], old: Sequence[str]) -> None:
    for one, gone in zip(given, old, strict=True):
        backend.copy(NAME, version, PRODUCT, [one.sha256])
        backend.remove(PRODUCT, [gone])


def _add(backend: RepositoryBackend, given: Sequence[RepositoryPackage]) -> None:
    for one in given:
        backend.add(PRODUCT, [one])


def test_copies_removals_and_additions_at_once_lose_nothing(backend: RepositoryBackend, tmp_path: Path) -> None:
    new, old, added = (made(tmp_path, *(f"{name}{number}" for number in range(4))) for name in ("n", "o", "a"))
    # The set-up is done in a process of its own too: `backend` makes no connection before the forks.
    fork = multiprocessing.get_context("fork")
    numbers = fork.Queue()

    def prepare() -> None:
        backend.add(PRODUCT, old)
        numbers.put(backend.add(NAME, new))

    first = fork.Process(target=prepare, daemon=True)
    first.start()
    version = numbers.get(timeout=DEADLINE_S)
    first.join(DEADLINE_S)
    processes = [
        fork.Process(target=_promote, args=(backend, version, new[:2], digests(old[:2])), daemon=True),
        fork.Process(target=_promote, args=(backend, version, new[2:], digests(old[2:])), daemon=True),
        fork.Process(target=_add, args=(backend, added), daemon=True),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert content(backend, PRODUCT) == {*digests(new), *digests(added)}
