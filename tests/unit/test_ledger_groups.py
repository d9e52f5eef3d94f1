"""The groups in which a directory repository keeps the metadata of neighbouring packages."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from farm.formats.index import Entry, Group
from farm.formats.rpm.index import RpmIndex
from farm.repositories.directory import DirectoryRepositories
from tests.unit.test_repositories_directory import NAME, make, names


@pytest.fixture
def backend(tmp_path: Path) -> DirectoryRepositories:
    return DirectoryRepositories(tmp_path / "repos", pause_s=0.0)


def group_numbers(tmp_path: Path) -> list[int]:
    with closing(sqlite3.connect(tmp_path / "repos" / NAME.path / "state/ledger.db")) as ledger:
        return [number for (number,) in ledger.execute("SELECT number FROM metadata_group ORDER BY number")]


def test_entries_are_compressed_one_at_a_time_and_large_ones_by_themselves(
    backend: DirectoryRepositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All entries of a group were in memory at once: 64 of up to 256 MiB each."""
    most: list[int] = []
    index = RpmIndex.group

    def watched(self: RpmIndex, entries: Iterable[Entry]) -> Group:
        given = iter(entries)
        assert not isinstance(entries, Sequence), "a sequence has them all"
        most.append(0)

        def counted() -> Iterator[Entry]:
            for entry in given:
                most[-1] += 1
                yield entry

        return index(self, counted())

    monkeypatch.setattr(RpmIndex, "group", watched)
    monkeypatch.setattr("farm.repositories.ledger._LARGE_BYTES", 5000)
    small = make(tmp_path, "one", "two", "three")
    large = make(tmp_path, "big", "huge", summary=b"a text " * 1000)
    backend.add(NAME, small[:2])
    backend.add(NAME, large)
    assert sorted(most) == [1, 1, 2, 2]
    assert names(backend.url(NAME)) == {"one", "two", "big", "huge"}
    most.clear()
    backend.add(NAME, small[2:])
    assert most == [3], "the large ones are not compressed again"
    assert names(backend.url(NAME)) == {"one", "two", "three", "big", "huge"}
    backend.remove(NAME, [large[0].sha256])
    assert names(backend.url(NAME)) == {"one", "two", "three", "huge"}
    assert len(group_numbers(tmp_path)) == 2
    backend.rollback(NAME, 2)
    assert names(backend.url(NAME)) == {"one", "two", "big", "huge"}


def test_a_group_of_before_large_entries_had_their_own_is_split(
    backend: DirectoryRepositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.add(NAME, make(tmp_path, "one", "big"))
    monkeypatch.setattr("farm.repositories.ledger._LARGE_BYTES", 1)
    backend.add(NAME, make(tmp_path, "two"))
    assert group_numbers(tmp_path) == [-3, -2, -1]
    assert names(backend.url(NAME)) == {"one", "two", "big"}
