"""Measures the memory of an idle farm: the proportional set size of each member with its children."""

from collections.abc import Mapping
from pathlib import Path


def memory_mib(processes: Mapping[str, int]) -> dict[str, float]:
    """MiB by name; a page shared by n processes counts a n-th in each."""
    parents = _parents()
    return {
        name: round(sum(_pss_kib(pid) for pid in _family(pid, parents)) / 1024, 1) for name, pid in processes.items()
    }


def _family(pid: int, parents: Mapping[int, int]) -> list[int]:
    children = [child for child, parent in parents.items() if parent == pid]
    return [pid, *(descendant for child in children for descendant in _family(child, parents))]


def _parents() -> dict[int, int]:
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name may hold anything, brackets included; what follows the last bracket is fields.
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
