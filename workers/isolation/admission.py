"""Decides whether a host's disk has space for one more step, beside the space that running steps may still use.

Each step stays within its own limit, but all steps together can still fill the disk. The watch on the disk (disk.py)
then ends some of them; a step that is not started loses no work.
"""

import os
from pathlib import Path

from farm.config import Settings
from workers.isolation.disk import FLOOR_BYTES
from workers.isolation.scratch import STEP_PREFIX

_GIB = 2**30


def disk_reason(settings: Settings) -> str | None:
    """The reason why no step may start here now; None if one may. Raises OSError."""
    reserve = settings.disk_reserve_bytes
    if not reserve:
        return None
    disk = os.statvfs(_existing(settings.work))
    free, running = disk.f_bavail * disk.f_frsize, _running(settings.work)
    if free >= FLOOR_BYTES + reserve * (running + 1):
        return None
    steps = f"{running} running steps" if running != 1 else "1 running step"
    return (
        f"the disk has {free / _GIB:.1f} GiB free, {steps} may still use {reserve * running / _GIB:.1f} GiB of it, and "
        f"one more needs {(FLOOR_BYTES + reserve) / _GIB:.1f} GiB; free some, or lower FARM_DISK_RESERVE_BYTES"
    )


def _running(work: Path) -> int:
    """The steps of all workers that use this disk, also those of another host that shares the folder."""
    return sum(1 for _ in work.glob(f"{STEP_PREFIX}-*"))


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
