"""The siege reads repositories and finds leftovers as they really are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.model.arch import Arch
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from tests.rpms import make_rpm, sha256
from tests.siege.facts import Published, _mounts, _pool, _published
from tests.siege.sql import DatabaseAway, sqlite

OS = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)


def publish(root: Path, path: Path) -> str:
    digest = sha256(path)
    DirectoryRepositories(root).add(OS, [RepositoryPackage(path=path, sha256=digest, filename=path.name)])
    return digest


def test_the_newest_version_is_read_from_its_metadata_and_all_versions_from_the_pool(tmp_path: Path) -> None:
    root = tmp_path / "repositories"
    first = publish(root, make_rpm(tmp_path, summary=b"first"))
    second = publish(root, make_rpm(tmp_path, summary=b"second"))
    name = "hello-1-1.noarch.rpm"
    assert list(_published(root)) == [Published(repository=OS.path, filename=name, said=second, is_=second)]
    assert set(_pool(root)) == {(OS.path, name, first), (OS.path, name, second)}


def test_a_file_that_was_changed_after_it_was_published_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "repositories"
    digest = publish(root, make_rpm(tmp_path))
    (path,) = (root / OS.path).glob("packages/*/*/*.rpm")
    path.chmod(0o644)
    path.write_bytes(b"something else")
    (found,) = _published(root)
    assert found.said == digest != found.is_
    path.unlink()
    assert [one.is_ for one in _published(root)] == ["missing"]


def test_an_unknown_mount_is_found(tmp_path: Path) -> None:
    where = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " / /proc " in line
    )

    def world(known: set[Path]) -> Any:
        return SimpleNamespace(ground=SimpleNamespace(folder=Path(where), mounts=lambda: known))

    assert any(where in line for line in _mounts(world(set())))
    assert not any(line.startswith(f"mount {where} ") for line in _mounts(world({Path(where)})))


def test_a_database_that_is_not_there_is_away(tmp_path: Path) -> None:
    with pytest.raises(DatabaseAway):
        sqlite(tmp_path / "farm.db").rows("SELECT 1")
