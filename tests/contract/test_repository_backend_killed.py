"""Many publishers at once, readers in between, and publishers that are killed at any moment.

The processes are forked and killed by their own handles; every wait has a deadline.
"""

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from farm.model.arch import Arch
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from farm.repositories.staging import locked
from tests.rpms import make_rpm, read_repository, sha256
from tests.waiting import until

NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
PRODUCT = replace(NAME, project="product")
PROCESSES = 4
ADDS = 25
KILLS = 40
DEADLINE_S = 120.0
_FORK = multiprocessing.get_context("fork")


def packages(tmp_path: Path, prefix: str, count: int) -> list[RepositoryPackage]:
    made = [make_rpm(tmp_path, f"{prefix}{number}") for number in range(count)]
    return [RepositoryPackage(path=path, sha256=sha256(path), filename=path.name) for path in made]


def add_one_by_one(root: Path, given: Sequence[RepositoryPackage], pause_s: float) -> None:
    backend = DirectoryRepositories(root, pause_s=pause_s)
    for package in given:
        version = backend.add(NAME, [package])
        assert package.filename in read_repository(backend.url(NAME, version))


def start(root: Path, given: Sequence[RepositoryPackage], *, pause_s: float = 0.0) -> BaseProcess:
    """Without a pause by default: a kill at a random moment is to hit work."""
    process = _FORK.Process(target=add_one_by_one, args=(root, given, pause_s), daemon=True)
    process.start()
    return process


def pooled(root: Path, name: RepositoryName = NAME) -> set[str]:
    return {path.name for path in (root / name.path / "packages").rglob("*.rpm")}


def test_many_at_once_share_versions_and_readers_never_see_a_broken_repository(tmp_path: Path) -> None:
    root = tmp_path / "repos"
    given = [packages(tmp_path, f"p{number}x", ADDS) for number in range(PROCESSES)]
    backend = DirectoryRepositories(root)
    url = backend.url(NAME)
    deadline = time.monotonic() + DEADLINE_S
    processes = [start(root, part, pause_s=0.1) for part in given]
    seen: list[set[str]] = [set()]
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < deadline
        seen.append(read_repository(url))
        assert seen[-2] <= seen[-1], "a package that was there is gone"
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert read_repository(url) == {package.filename for part in given for package in part}
    # A quarter as many, as a rule: each waits for the others for as long as many adds take.
    assert backend.current(NAME) < PROCESSES * ADDS * 0.5
    assert len(seen) > 2, "the reader came too late to see anything"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_publisher_killed_at_any_moment_leaves_a_whole_repository(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root, pause_s=0.0)
    url = backend.url(NAME)
    before: set[str] = set()
    for number in range(KILLS // 2):
        given = packages(tmp_path, f"k{number}x", 30)
        process = start(root, given)
        # Not waiting for anything: the moment of the kill is the random input of this test.
        process.join(chance.uniform(0.0, 0.04))
        process.kill()
        process.join(DEADLINE_S)
        assert process.exitcode is not None
        now = read_repository(url)
        assert before <= now
        # The next publisher completes and sweeps, and no file is left that no version has.
        backend.add(NAME, packages(tmp_path, f"next{number}x", 1))
        before = read_repository(url)
        assert now < before
        assert pooled(root) == before
        assert not any((root / NAME.path / "state/unfinished").iterdir())
        versions = sorted(int(path.name) for path in (root / NAME.path / "versions").iterdir())
        assert versions == list(range(backend.current(NAME) + 1))
    assert len(before) > KILLS // 2, "no publisher lived long enough to add anything"


def holder(lock: Path) -> int | None:
    """The process that has the flock: `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`."""
    inode = lock.stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].endswith(f":{inode}")), None)


def add_after(gate: Event, root: Path, given: Sequence[RepositoryPackage]) -> None:
    assert gate.wait(DEADLINE_S)
    add_one_by_one(root, given, 0.0)


def waiting(ledger: sqlite3.Connection) -> int:
    return int(ledger.execute("SELECT count(*) FROM package WHERE added_in IS NULL").fetchone()[0])


def test_the_packages_of_all_are_published_once_when_their_publisher_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root)
    backend.current(NAME)
    state = root / NAME.path / "state"
    given = packages(tmp_path, "p", PROCESSES)
    gate = _FORK.Event()
    # They are forked before the test takes the lock: a child would keep it.
    started = [_FORK.Process(target=add_after, args=(gate, root, [one]), daemon=True) for one in given]
    for process in started:
        process.start()
    with closing(sqlite3.connect(state / "ledger.db", isolation_level=None)) as ledger:
        with locked(state / "lock", timeout_s=DEADLINE_S):
            gate.set()
            until(lambda: waiting(ledger) == PROCESSES, "not all wait")
            ledger.execute("BEGIN IMMEDIATE")  # the one that publishes stops at its transaction
        processes = {process.pid: process for process in started}
        until(lambda: holder(state / "lock") in processes, "no process publishes")
        killed = processes.pop(holder(state / "lock"))
        killed.kill()
        killed.join(DEADLINE_S)
        assert waiting(ledger) == PROCESSES
        ledger.execute("ROLLBACK")
    for process in processes.values():
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes.values()] == [0] * (PROCESSES - 1)
    assert backend.current(NAME) == 1
    assert read_repository(backend.url(NAME)) == pooled(root) == {package.filename for package in given}
    assert [one.sha256 for one in backend.index(NAME, 1)] == [package.sha256 for package in given]


@pytest.mark.parametrize("seed", [1, 2])
def test_others_publish_their_packages_when_one_of_them_is_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root, pause_s=0.0)
    published: set[str] = set()
    ended = []
    for number in range(KILLS // 2):
        given = packages(tmp_path, f"k{number}x", 3)
        victim, *others = [start(root, [package]) for package in given]
        # Not waiting for anything: the moment of the kill is the random input of this test.
        victim.join(chance.uniform(0.0, 0.04))
        victim.kill()
        for process in (victim, *others):
            process.join(DEADLINE_S)
        ended.append(victim.exitcode)
        assert [process.exitcode for process in others] == [0, 0]
        now = read_repository(backend.url(NAME))
        assert published | {package.filename for package in given[1:]} <= now
        backend.add(NAME, given)
        published = read_repository(backend.url(NAME))
        assert published == pooled(root) == now | {given[0].filename}
    assert -9 in ended, "no process was killed in the middle"
    filenames = [one.filename for one in backend.index(NAME, backend.current(NAME))]
    assert len(filenames) == len(set(filenames)) == 3 * KILLS // 2


def promote(root: Path, version: int, given: Sequence[RepositoryPackage], old: Sequence[RepositoryPackage]) -> None:
    backend = DirectoryRepositories(root, pause_s=0.0)
    backend.copy(NAME, version, PRODUCT, [package.sha256 for package in given])
    backend.remove(PRODUCT, [package.sha256 for package in old])


def test_a_copy_or_removal_killed_at_any_moment_leaves_a_whole_repository(tmp_path: Path) -> None:
    chance = random.Random(5)
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root, pause_s=0.0)
    old = packages(tmp_path, "first", 10)
    backend.add(PRODUCT, old)
    ended = []
    for number in range(KILLS):
        given = packages(tmp_path, f"p{number}x", 10)
        version = backend.add(NAME, given)
        was, new = ({package.filename for package in some} for some in (old, given))
        process = _FORK.Process(target=promote, args=(root, version, given, old), daemon=True)
        process.start()
        # Not waiting for anything: the moment of the kill is the random input of this test.
        process.join(chance.uniform(0.0, 0.05))
        process.kill()
        process.join(DEADLINE_S)
        ended.append(process.exitcode)
        assert read_repository(backend.url(PRODUCT)) in (was, was | new, new)
        # A repeat completes the publication that was begun, and cleans up.
        promote(root, version, given, old)
        assert read_repository(backend.url(PRODUCT)) == new
        assert not any((root / PRODUCT.path / "state/unfinished").iterdir())
        assert {one.filename for one in backend.index(PRODUCT, backend.current(PRODUCT))} == new
        old = given
    assert -9 in ended, "no process was killed in the middle"
    every = pooled(root, PRODUCT)
    assert every == {f"first{one}-1-1.noarch.rpm" for one in range(10)} | pooled(root, NAME)


def test_the_first_use_killed_at_any_moment_is_no_harm(tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(10):
        root = tmp_path / f"repos{number}"
        process = start(root, packages(tmp_path, "first", 1))
        process.join(chance.uniform(0.0, 0.015))
        process.kill()
        process.join(DEADLINE_S)
        assert read_repository(DirectoryRepositories(root).url(NAME)) <= {"first0-1-1.noarch.rpm"}
