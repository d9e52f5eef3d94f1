"""Whether a host takes one more step, by what its scratch disk has left."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import Settings
from workers.isolation.admission import disk_reason
from workers.isolation.disk import FLOOR_BYTES


@pytest.fixture
def free_bytes(tmp_path: Path) -> int:
    disk = os.statvfs(tmp_path)
    return disk.f_bavail * disk.f_frsize


def settings_with(tmp_path: Path, reserve_bytes: int, *, running: int) -> Settings:
    settings = Settings(data=tmp_path, disk_reserve_bytes=reserve_bytes)
    for number in range(running):
        (settings.work / f"step-{number}").mkdir(parents=True)
    return settings


def test_a_step_starts_where_the_disk_has_its_part_beside_those_of_running_steps(
    tmp_path: Path, free_bytes: int
) -> None:
    assert disk_reason(settings_with(tmp_path, (free_bytes - FLOOR_BYTES) // 8, running=5)) is None


def test_no_step_starts_where_running_steps_may_use_the_rest_of_the_disk(tmp_path: Path, free_bytes: int) -> None:
    settings = settings_with(tmp_path, (free_bytes - FLOOR_BYTES) // 3, running=3)
    said = disk_reason(settings)
    assert said is not None
    assert "3 running steps may still use" in said
    assert "FARM_DISK_RESERVE_BYTES" in said
    assert disk_reason(replace(settings, disk_reserve_bytes=0)) is None


def test_only_work_folders_of_steps_count(tmp_path: Path, free_bytes: int) -> None:
    settings = settings_with(tmp_path, (free_bytes - FLOOR_BYTES) // 3, running=1)
    for name in ("kept-step-1", "room-1", "filling-1"):
        (settings.work / name).mkdir()
    assert disk_reason(settings) is None
