"""The watch on a disk, which nothing slow or broken may blind."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.errors import DiskFull
from farm.model.target import Limits
from tests.waiting import until
from workers.core.run import Completed, Ending
from workers.isolation import disk as disk_watch
from workers.isolation.disk import DiskWatch
from workers.isolation.outcomes import judge, limits_met


@dataclass
class Disk:
    """A fake answer of the file system in place of the real one."""

    free_bytes: int = 2**40
    free_files: int = 2**20
    files: int = 2**21
    looks: int = 0

    def statvfs(self, _: object) -> os.statvfs_result:
        self.looks += 1
        blocks = self.free_bytes // 4096
        return os.statvfs_result(
            (4096, 4096, blocks, blocks, blocks, self.files, self.free_files, self.free_files, 0, 255)
        )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the waiting."""
    monkeypatch.setattr(disk_watch, "_EVERY_S", 0.1)
    monkeypatch.setattr(disk_watch, "_WALK_AGAIN_S", 0.2)
    monkeypatch.setattr(disk_watch, "_GIVE_BACK_S", 0.3)


@pytest.fixture
def disk(quick: None, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def du(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], int]]:
    """Puts a fake `du` first on PATH; returns a function that counts its starts."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools), prepend=":")

    def place(script: str) -> Callable[[], int]:
        (tools / "new").write_text(f"#!/bin/sh\necho called >> {calls}\n{script}\n")
        (tools / "new").chmod(0o755)
        (tools / "new").rename(tools / "du")
        before = len(calls.read_text().split()) if calls.exists() else 0
        return lambda: len(calls.read_text().split()) - before if calls.exists() else 0

    return place


Du = Callable[[str], Callable[[], int]]


def test_a_slow_walk_does_not_keep_the_watch_from_seeing_the_disk_fill(tmp_path: Path, disk: Disk, du: Du) -> None:
    calls = du("sleep 1; printf '0\\t.\\n'")
    with DiskWatch(tmp_path, limit_bytes=0) as watch:
        until(lambda: calls() >= 2, "both walks", 30)
        threading.Event().wait(2.5)  # both have ended, and the next comes in twenty seconds
        assert watch.verdict() is None
        disk.free_bytes = 2**20
        until(watch.verdict, "a verdict", 15)
        assert watch.verdict() is Ending.DISK_FULL


def test_a_disk_that_fills_during_a_walk_waits_for_it_only_so_long(
    tmp_path: Path, disk: Disk, du: Du, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "_LAST_WALK_S", 0.5)
    calls = du("sleep 60")
    with DiskWatch(tmp_path, limit_bytes=0) as watch:
        until(lambda: calls() >= 1, "a walk", 30)
        disk.free_bytes = 2**20
        until(watch.verdict, "a verdict", 30)
    assert watch.verdict() is Ending.DISK_FULL


@pytest.mark.parametrize(("files", "ending"), [(2**21, Ending.DISK_FULL), (0, None)])
def test_a_disk_that_can_hold_no_more_files_is_full(tmp_path: Path, disk: Disk, files: int, ending: object) -> None:
    """But for those that do not count files at all."""
    disk.files, disk.free_files = files, 10 if files else 0
    with DiskWatch(tmp_path, limit_bytes=2**40) as watch:
        if ending:
            until(watch.verdict, "a verdict", 30)
        else:
            time.sleep(0.5)  # several looks, which must not change the verdict
        assert watch.verdict() is ending


def test_a_command_that_failed_on_a_full_disk_is_measured_once_more(tmp_path: Path, disk: Disk, du: Du) -> None:
    du("printf '2000\\t.\\n'")
    disk.free_bytes = 2**20
    with DiskWatch(tmp_path, limit_bytes=1000) as watch:
        until(watch.verdict, "a verdict", 30)
        assert watch.verdict() is Ending.OVER_DISK


@pytest.mark.parametrize("trouble", ["exit 3", "printf 'nonsense\\n'", "kill -9 $$"])
def test_a_walk_that_fails_changes_nothing_and_is_tried_again(tmp_path: Path, disk: Disk, du: Du, trouble: str) -> None:
    calls = du("printf '500\\t.\\n'")
    with DiskWatch(tmp_path, limit_bytes=1000) as watch:
        until(lambda: disk.looks, "a look at the disk", 30)
        disk.free_bytes -= 2**20
        until(lambda: calls() >= 1, "a walk", 30)
        calls = du(trouble)
        disk.free_bytes -= 2**20
        until(lambda: calls() >= 2, "more walks", 30)
        assert watch.verdict() is None
        # If it counted as nothing, this would not do for another walk.
        du("printf '2000\\t.\\n'")
        until(watch.verdict, "a verdict", 30)
        assert watch.verdict() is Ending.OVER_DISK


def test_the_watch_survives_a_host_without_du_and_a_folder_that_is_away(
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Others may give space back on this disk, which is no reason to walk.
    monkeypatch.setattr(disk_watch, "_WALK_EVERY_S", 0.2)
    folder = tmp_path / "folder"
    with DiskWatch(folder, limit_bytes=0) as watch:
        threading.Event().wait(0.5)
        path = os.environ["PATH"]
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
        folder.mkdir()
        threading.Event().wait(0.5)
        assert watch.verdict() is None
        monkeypatch.setenv("PATH", path)
        until(watch.verdict, "the real du to say that a folder is not nothing", 30)
        assert watch.verdict() is Ending.OVER_DISK


_BOTH = "case $* in *--inodes*) printf '{files}\\t.\\n' ;; *) printf '{size}\\t.\\n' ;; esac"


def test_a_command_that_makes_more_files_than_its_limit_is_over_it(tmp_path: Path, disk: Disk, du: Du) -> None:
    du(_BOTH.format(files=5001, size=100))
    with DiskWatch(tmp_path, limit_bytes=2**40, limit_files=5000) as watch:
        until(lambda: disk.looks, "a look at the disk", 30)
        disk.free_files -= 5001
        until(watch.verdict, "a verdict", 30)
        assert watch.verdict() is Ending.OVER_FILES


@pytest.mark.parametrize(("files", "ending"), [(36_000, Ending.MOST_OF_FILES), (100, Ending.DISK_FULL)])
def test_the_command_that_made_most_files_of_a_disk_that_fills_is_ended(
    tmp_path: Path, disk: Disk, du: Du, files: int, ending: Ending
) -> None:
    du(_BOTH.format(files=files, size=100))
    disk.files, disk.free_files = 40_000, 39_000
    with DiskWatch(tmp_path, limit_bytes=2**40, limit_files=10**6) as watch:
        until(lambda: disk.looks, "a look at the disk", 30)
        disk.free_files = 2500
        until(watch.verdict, "a verdict", 30)
        assert watch.verdict() is ending


def test_the_command_that_used_most_of_a_disk_that_fills_is_ended(tmp_path: Path, disk: Disk, du: Du) -> None:
    du(_BOTH.format(files=3, size=2**33))
    disk.free_bytes = 2**33 + 2**20
    with DiskWatch(tmp_path, limit_bytes=2**40) as watch:
        until(lambda: disk.looks, "a look at the disk", 30)
        disk.free_bytes = 2**20
        until(watch.verdict, "a verdict", 30)
        assert watch.verdict() is Ending.MOST_OF_DISK


def test_a_command_that_used_little_goes_on_when_the_disk_has_space_again(
    tmp_path: Path, disk: Disk, du: Du, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what fails meanwhile is tried again: it may be the disk's doing."""
    monkeypatch.setattr(disk_watch, "_GIVE_BACK_S", 30.0)
    du(_BOTH.format(files=3, size=100))
    with DiskWatch(tmp_path, limit_bytes=2**40) as watch:
        until(lambda: disk.looks, "a look at the disk", 30)
        before, disk.free_bytes = disk.free_bytes, 2**20
        until(lambda: watch.was_low, "the low disk to be seen", 30)
        disk.free_bytes = before
        threading.Event().wait(0.5)
        assert watch.verdict() is None
    failed = Completed(code=1, signal=None, seconds=1.0, ending=Ending.EXITED)
    with pytest.raises(DiskFull, match="because of other steps on it"):
        judge(failed, Limits(), limits_met(failed, None, watch))


def test_an_ended_command_does_not_wait_for_its_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over millions of files takes minutes, and a cancelled build has less than two seconds."""
    tools, watched, started = tmp_path / "tools", tmp_path / "watched", tmp_path / "started"
    tools.mkdir()
    watched.mkdir()
    (tools / "du").write_text(f"#!/bin/sh\n: > {started}\nexec sleep 60\n")
    (tools / "du").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    with DiskWatch(watched, limit_bytes=1, floor_bytes=2**62):
        until = time.monotonic() + 20
        while not started.exists():
            assert time.monotonic() < until
            threading.Event().wait(0.01)
        over_at = time.monotonic()
    assert time.monotonic() - over_at < 20
