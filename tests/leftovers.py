"""Finds the things that a farm must not leave behind."""

from pathlib import Path

from farm.config import Settings


def inside(settings: Settings) -> list[int]:
    """Processes in a build root of these settings, wherever they hang: their mount table has its folders in it."""
    own = Path("/proc/self/mountinfo").read_bytes()
    found = []
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            table = mounts.read_bytes()
        except OSError:
            continue
        if table != own and bytes(settings.data) in table:
            found.append(int(mounts.parent.name))
    return found
