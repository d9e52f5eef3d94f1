"""Frozen groups: a process in a frozen group does not die of SIGKILL before it is thawed.

Finds the frozen groups of processes that cgroups.py kills, and thaws them. Does not kill.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_V1, _V2 = ("freezer.state", "THAWED"), ("cgroup.freeze", "0")


def thaw(groups: Iterable[Path]) -> None:
    """Thaw these groups, of either version; outer groups first, since a frozen group freezes those below it."""
    for group in groups:
        for name, value in (_V1, _V2):
            switch = group / name
            with suppress(OSError):
                if switch.exists() and switch.read_text().strip() != value:
                    switch.write_text(value)


def stray_freezers(pids: Iterable[int], top: Path | None, own: str) -> list[Path]:
    """The freezer groups of version 1 that these processes sit in, and those above, from the top down.

    `top` is the mount point of that hierarchy; without it there are none. A process can have moved itself there out of
    the group that it was started in. `own` is the path of this process's own group: the group and its parents are left
    alone, since other programs made them.
    """
    if top is None:
        return []
    kept = {top / own.lstrip("/"), *(top / own.lstrip("/")).parents}
    found: dict[Path, None] = {}
    for pid in pids:
        path = freezer_path(pid)
        if not path or ".." in Path(path).parts:  # outside of this process's own namespace
            continue
        group = top / path.lstrip("/")
        found |= dict.fromkeys(one for one in (group, *group.parents) if one not in kept and one.is_relative_to(top))
    return sorted(found)


def freezer_path(pid: int | str) -> str:
    """The process's group in the freezer hierarchy of version 1; empty if it has none."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, names, path = line.split(":", 2)
        if "freezer" in names.split(","):
            return path
    return ""
