"""Finds the things that a farm must not leave behind."""

from pathlib import Path

from farm.config import Settings

_PF_EXITING = 0x4  # a flag of the kernel (include/linux/sched.h)


def inside(settings: Settings) -> list[int]:
    """Processes in a build root of these settings, wherever they hang: their mount table has its folders in it."""
    own = Path("/proc/self/mountinfo").read_bytes()
    found = []
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            table = mounts.read_bytes()
            if table != own and bytes(settings.data) in table and not _is_ending(mounts.parent):
                found.append(int(mounts.parent.name))
        except OSError:
            continue
    return found


def _is_ending(process: Path) -> bool:
    """Whether the process has ended and the kernel removes it. Its cgroup no longer counts it."""
    flags = (process / "stat").read_text().rpartition(")")[2].split()[6]
    return bool(int(flags) & _PF_EXITING)
