"""Many publishers at once, readers in between, and publishers that are killed at any moment.

The processes are forked and killed by their own handles; every wait has a deadline.
"""

import multiprocessing
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from farm.model.arch import Arch
from farm.repositories.base import RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.directory import DirectoryRepositories
from tests.rpms import make_rpm, read_repository, sha256

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


def add_one_by_one(root: Path, given: Sequence[RepositoryPackage]) -> None:
    backend = DirectoryRepositories(root)
    for package in given:
        version = backend.add(NAME, [package])
        assert package.filename in read_repository(backend.url(NAME, version))


def start(root: Path, given: Sequence[RepositoryPackage]) -> BaseProcess:
    process = _FORK.Process(target=add_one_by_one, args=(root, given), daemon=True)
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
    processes = [start(root, part) for part in given]
    seen: list[set[str]] = [set()]
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < deadline
        seen.append(read_repository(url))
        assert seen[-2] <= seen[-1], "a package that was there is gone"
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert read_repository(url) == {package.filename for part in given for package in part}
    # Half as many, as a rule; how often they meet is up to the kernel. That those who meet share is a unit test.
    assert backend.current(NAME) < PROCESSES * ADDS * 0.9
    assert len(seen) > 2, "the reader came too late to see anything"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_publisher_killed_at_any_moment_leaves_a_whole_repository(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root)
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
        # The next one, whoever it is, completes and sweeps, and nothing lies about that no version has.
        backend.add(NAME, packages(tmp_path, f"next{number}x", 1))
        before = read_repository(url)
        assert now < before
        assert pooled(root) == before
        assert not any((root / NAME.path / "state/unfinished").iterdir())
        versions = sorted(int(path.name) for path in (root / NAME.path / "versions").iterdir())
        assert versions == list(range(backend.current(NAME) + 1))
    assert len(before) > KILLS // 2, "no publisher lived long enough to add anything"


def promote(root: Path, version: int, given: Sequence[RepositoryPackage], old: Sequence[RepositoryPackage]) -> None:
    backend = DirectoryRepositories(root)
    backend.copy(NAME, version, PRODUCT, [package.sha256 for package in given])
    backend.remove(PRODUCT, [package.sha256 for package in old])


def test_a_copy_or_removal_killed_at_any_moment_leaves_a_whole_repository(tmp_path: Path) -> None:
    chance = random.Random(5)
    root = tmp_path / "repos"
    backend = DirectoryRepositories(root)
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
        # A repeat completes what was begun, and clears up.
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
