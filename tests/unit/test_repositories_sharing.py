"""Waiting publishers share a version; a lock ends with its process; leftovers are told from work in progress."""

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from farm.errors import LeaseLost, RepositoryTrouble
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.staging import locked, staging, sweep
from tests.rpms import make_rpm, read_repository, sha256

NAME = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)
DEADLINE_S = 30.0
DAY_S = 24 * 3600.0


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


def test_the_later_of_two_that_wait_under_one_name_wins(tmp_path: Path) -> None:
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


def date_newest_version(root: Path, at_s: float) -> None:
    os.utime(root / NAME.path / "current/repodata/repomd.xml", (at_s, at_s), follow_symlinks=False)


def test_adds_that_come_soon_after_a_version_share_the_next(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos", pause_s=3.0)
    first, *rest = [package(make_rpm(tmp_path, f"p{number}", arch="src")) for number in range(9)]
    assert backend.add(NAME, [first]) == 1
    with ThreadPoolExecutor(len(rest)) as pool:
        assert set(pool.map(lambda one: backend.add(NAME, [one]), rest)) == {2}
    assert len(read_repository(backend.url(NAME, 2))) == 9


def test_an_add_to_a_quiet_repository_does_not_wait_for_others(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos", pause_s=DAY_S)
    first, second = [package(make_rpm(tmp_path, name, arch="src")) for name in ("first", "second")]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(backend.add, NAME, [first]).result(DEADLINE_S) == 1
        date_newest_version(tmp_path / "repos", time.time() - 2 * DAY_S)
        assert pool.submit(backend.add, NAME, [second]).result(DEADLINE_S) == 2


def test_a_clock_that_is_put_back_does_not_prolong_the_wait(tmp_path: Path) -> None:
    backend = DirectoryRepositories(tmp_path / "repos", pause_s=0.1)
    first, second = [package(make_rpm(tmp_path, name, arch="src")) for name in ("first", "second")]
    backend.add(NAME, [first])
    date_newest_version(tmp_path / "repos", time.time() + DAY_S)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(backend.add, NAME, [second]).result(DEADLINE_S) == 2


def test_an_add_that_is_stopped_while_it_waits_for_others_withdraws_its_packages(tmp_path: Path) -> None:
    root, stop = tmp_path / "repos", threading.Event()
    backend = DirectoryRepositories(root, pause_s=DAY_S)
    first, second, third = [package(make_rpm(tmp_path, name, arch="src")) for name in ("first", "second", "third")]
    backend.add(NAME, [first])
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(backend.add, NAME, [second], stop=stop)
        wait_for_waiting(root / NAME.path / "state/ledger.db", 1)
        stop.set()
        with pytest.raises(LeaseLost):
            stopped.result(DEADLINE_S)
    assert DirectoryRepositories(root, pause_s=0.0).add(NAME, [third]) == 2
    assert read_repository(backend.url(NAME)) == {first.filename, third.filename}


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


def test_a_sweep_takes_leftovers_and_leaves_files_in_use(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "file").touch()
    seen: list[Path] = []
    with staging(tmp_path) as used:
        sweep(tmp_path, seen.append)
        assert used.is_dir()
    assert seen == [left]
    assert list(tmp_path.iterdir()) == []
