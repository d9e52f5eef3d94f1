"""Those who wait share a version; a lock ends with its process; leftovers are told from work in progress."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from farm.errors import RepositoryTrouble
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.staging import locked, staging, sweep
from tests.rpms import make_rpm, read_repository, sha256

NAME = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)
DEADLINE_S = 30.0


def package(path: Path) -> RepositoryPackage:
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name)


def wait_for_waiting(ledger: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    with closing(sqlite3.connect(ledger)) as connection:
        while connection.execute("SELECT count(*) FROM package WHERE added_in IS NULL").fetchone() != (count,):
            assert time.monotonic() < deadline, "the adds did not come to wait for the lock"


def test_adds_that_wait_at_the_same_time_share_one_version(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos")
    backend.current(NAME)
    state = tmp_path / "repos" / NAME.path / "state"
    given = [package(make_rpm(tmp_path, f"p{number}", arch="src")) for number in range(8)]
    versions: list[int] = []

    def add(one: RepositoryPackage) -> None:
        versions.append(backend.add(NAME, [one]))

    threads = [threading.Thread(target=add, args=(one,)) for one in given]
    with locked(state / "lock", timeout_s=DEADLINE_S):
        for thread in threads:
            thread.start()
        wait_for_waiting(state / "ledger.db", len(given))
        assert backend.current(NAME) == 0
    for thread in threads:
        thread.join(DEADLINE_S)
    assert versions == [1] * len(given)
    assert read_repository(backend.url(NAME)) == {one.filename for one in given}


def test_of_two_that_wait_under_one_name_the_later_wins(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos")
    backend.current(NAME)
    state = tmp_path / "repos" / NAME.path / "state"
    versions: list[int] = []
    threads: list[threading.Thread] = []
    with locked(state / "lock", timeout_s=DEADLINE_S):
        for count, summary in enumerate((b"first", b"second"), start=1):
            folder = tmp_path / summary.decode()
            folder.mkdir()
            one = package(make_rpm(folder, arch="src", summary=summary))
            threads.append(threading.Thread(target=lambda one=one: versions.append(backend.add(NAME, [one]))))
            threads[-1].start()
            wait_for_waiting(state / "ledger.db", count)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert versions == [1, 1]
    (lies,) = (tmp_path / "repos" / NAME.path / "packages").rglob(f"{one.sha256}/*.rpm")
    assert sha256(lies) == one.sha256
    assert read_repository(backend.url(NAME)) == {"hello-1-1.src.rpm"}


def test_a_lock_that_is_held_too_long_is_trouble_that_names_it(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", timeout_s=1),
        pytest.raises(RepositoryTrouble, match="lslocks"),
        locked(tmp_path / "lock", timeout_s=0),
    ):
        pass


def test_a_lock_that_is_not_needed_any_more_is_not_waited_for(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", timeout_s=1) as first,
        locked(tmp_path / "lock", timeout_s=DEADLINE_S, unless=lambda: True) as second,
    ):
        assert (first, second) == (True, False)


def test_a_sweep_takes_what_is_left_over_and_leaves_what_is_in_use(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "file").touch()
    seen: list[Path] = []
    with staging(tmp_path) as used:
        sweep(tmp_path, seen.append)
        assert used.is_dir()
    assert seen == [left]
    assert list(tmp_path.iterdir()) == []
