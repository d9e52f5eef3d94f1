"""dnf's package cache: one lock for each target and arch, and snapshots that downloads do not change."""

import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.config import Settings
from farm.errors import GIVEN, LeaseLost, RootTrouble
from farm.model.arch import Arch
from workers.formats.rpm.package_cache import PackageCache, sweep_snapshots
from workers.isolation import pids
from workers.isolation.scratch import scratch_name

WITHIN_S = 60
RUNS = threading.Event()  # never set
NEVER = math.inf


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
        with PackageCache(settings, target, arch).write(RUNS, NEVER):
            both.wait(WITHIN_S)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(download, *one) for one in (("el9.1", Arch.X86_64), ("el9.2", Arch.AARCH64))]:
            done.result(WITHIN_S)


def test_one_download_at_a_time_writes_to_a_cache_and_no_snapshot_is_made_meanwhile(cache: PackageCache) -> None:
    stopped = threading.Event()
    stopped.set()
    with cache.write(RUNS, NEVER):
        with pytest.raises(LeaseLost), cache.write(stopped, NEVER):
            pass
        with pytest.raises(LeaseLost), cache.read(stopped, NEVER):
            pass
    with cache.read(RUNS, NEVER), cache.read(stopped, NEVER), pytest.raises(LeaseLost), cache.write(stopped, NEVER):
        pass


def test_a_download_that_holds_the_lock_for_long_holds_up_no_other(settings: Settings) -> None:
    """The requirements of one build can keep dnf's solver busy for an hour."""
    slow, other = (PackageCache(settings, "el9.1", Arch.X86_64, patience_s=0.2) for _ in range(2))
    with slow.write(RUNS, NEVER) as folder:
        (folder / "repo.solv").write_text("half")
        with other.write(RUNS, NEVER) as own:
            assert (own != folder, list(own.iterdir())) == (True, [])
            (own / "repo.solv").write_text("whole")
            with other.snapshot(own) as seen:
                assert (seen / "repo.solv").read_text() == "whole"
        with other.read(RUNS, NEVER) as empty:
            assert list(empty.iterdir()) == []
        assert (own.exists(), empty.exists()) == (False, False)
        assert (folder / "repo.solv").read_text() == "half"


def test_a_wait_for_a_download_ends_with_the_time_of_its_step_and_blames_neither_package_nor_host(
    cache: PackageCache,
) -> None:
    with cache.write(RUNS, NEVER):
        for enter in (cache.write, cache.read):
            with pytest.raises(RootTrouble, match="time was over") as late, enter(RUNS, time.monotonic() + 0.1):
                pass
            assert (late.value.retryable, late.value.remote) == (True, GIVEN)


def test_a_snapshot_stays_as_it_was_while_others_download(cache: PackageCache) -> None:
    with cache.write(RUNS, NEVER) as folder:
        (folder / "repo/packages").mkdir(parents=True)
        (folder / "repo.solv").write_text("old")
        (folder / "repo/packages/a.rpm").write_text("a")
        (folder / "download_lock.pid").write_text("1")
        (folder / "link").symlink_to("/etc/passwd")
    with cache.read(RUNS, NEVER) as folder:
        snapshot = cache.snapshot(folder)
        seen = snapshot.__enter__()
    with cache.write(RUNS, NEVER) as folder:
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
    with cache.read(RUNS, NEVER) as folder, cache.snapshot(folder) as seen:
        assert list(seen.iterdir()) == []


def test_snapshots_of_dead_workers_are_swept(cache: PackageCache, settings: Settings, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    assert sweep_snapshots(settings, alive) == 0
    with cache.read(RUNS, NEVER) as folder, cache.snapshot(folder) as seen:
        left = seen.with_name(scratch_name("snapshot", 99).replace(pids.owner(), f"{os.getpid()}-1"))
        left.mkdir()
        assert sweep_snapshots(settings, alive) == 1
        assert (seen.exists(), left.exists()) == (True, False)
