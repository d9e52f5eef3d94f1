"""dnf's package cache: one lock for each target and arch, and snapshots that downloads do not change."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import LeaseLost
from farm.model.arch import Arch
from workers.formats.rpm.package_cache import PackageCache, sweep_snapshots
from workers.isolation import cgroups
from workers.isolation.scratch import room_name

WITHIN_S = 60
RUNS = threading.Event()  # never set


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


@pytest.fixture
def cache(settings: Settings) -> PackageCache:
    return PackageCache(settings, "el9.1", Arch.X86_64)


def test_each_target_and_arch_has_a_lock_and_a_folder_of_its_own(settings: Settings) -> None:
    names = [("el9.1", Arch.X86_64), ("el9.2", Arch.X86_64), ("el9.2", Arch.AARCH64), ("el9", Arch.AARCH64)]
    caches = [PackageCache(settings, target, arch) for target, arch in names]
    assert len({one.lock_path for one in caches} | {one.path for one in caches}) == 2 * len(names)


def test_downloads_of_two_targets_run_side_by_side(settings: Settings) -> None:
    both = threading.Barrier(2)

    def download(target: str, arch: Arch) -> None:
        with PackageCache(settings, target, arch).write(RUNS):
            both.wait(WITHIN_S)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(download, *one) for one in (("el9.1", Arch.X86_64), ("el9.2", Arch.AARCH64))]:
            done.result(WITHIN_S)


def test_one_download_at_a_time_writes_to_a_cache_and_no_snapshot_is_made_meanwhile(cache: PackageCache) -> None:
    stopped = threading.Event()
    stopped.set()
    with cache.write(RUNS):
        with pytest.raises(LeaseLost), cache.write(stopped):
            pass
        with pytest.raises(LeaseLost), cache.read(stopped):
            pass
    with cache.read(RUNS), cache.read(stopped), pytest.raises(LeaseLost), cache.write(stopped):
        pass


def test_a_snapshot_stays_as_it_was_while_others_download(cache: PackageCache) -> None:
    with cache.write(RUNS) as folder:
        (folder / "repo/packages").mkdir(parents=True)
        (folder / "repo.solv").write_text("old")
        (folder / "repo/packages/a.rpm").write_text("a")
        (folder / "download_lock.pid").write_text("1")
        (folder / "link").symlink_to("/etc/passwd")
    with cache.read(RUNS):
        snapshot = cache.snapshot()
        seen = snapshot.__enter__()
    with cache.write(RUNS) as folder:
        (folder / "new").write_text("new")
        (folder / "new").replace(folder / "repo.solv")
        (folder / "repo/packages/a.rpm").unlink()
        (folder / "repo/packages/b.rpm").write_text("b")
        assert not (folder / "download_lock.pid").exists(), "a killed dnf left it"
    assert (seen / "repo.solv").read_text() == "old"
    assert [path.name for path in (seen / "repo/packages").iterdir()] == ["a.rpm"]
    assert {path.name for path in seen.iterdir()} == {"repo", "repo.solv"}
    snapshot.__exit__(None, None, None)
    assert not seen.exists()


def test_a_snapshot_of_a_cache_that_is_not_there_is_empty(cache: PackageCache) -> None:
    with cache.read(RUNS), cache.snapshot() as seen:
        assert list(seen.iterdir()) == []


def test_snapshots_of_dead_workers_are_swept(cache: PackageCache, settings: Settings, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    assert sweep_snapshots(settings, alive) == 0
    with cache.read(RUNS), cache.snapshot() as seen:
        left = seen.with_name(room_name("snapshot", 99).replace(cgroups.owner(), f"{os.getpid()}-1"))
        left.mkdir()
        assert sweep_snapshots(settings, alive) == 1
        assert (seen.exists(), left.exists()) == (True, False)
