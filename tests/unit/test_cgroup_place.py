"""Finding a place for groups, in trees that look like the kernel's and are not."""

import errno
from pathlib import Path, PosixPath

import pytest

from workers.isolation import cgroups
from workers.isolation.cgroups import CgroupKind, place

_CONTROLLERS = ("memory", "pids")


class _Tree(PosixPath):
    """A fake group of version 2 for delegation: a process in it keeps its controllers off. While it is emptied,
    another process comes in, as often as `forks` says."""

    def write_text(self, data: str, *_: object, **__: object) -> int:
        if self.name == "cgroup.subtree_control":
            if (self.parent / "cgroup.procs").read_text():
                raise OSError(errno.EBUSY, "Device or resource busy", str(self))
            data = data.replace("+", "")
        elif self.name == "cgroup.procs":
            members = self.parent.parent / "cgroup.procs"
            left = [pid for pid in members.read_text().split() if pid != data]
            forks = self.parent.parent / "forks"
            if int(forks.read_text()):
                left.append(str(int(data) + 1))
                super(_Tree, forks).write_text(str(int(forks.read_text()) - 1))
            return super(_Tree, members).write_text("\n".join(left))
        return super().write_text(data)


def _tree(folder: Path, *, forks: int) -> _Tree:
    for name, text in (("cgroup.subtree_control", ""), ("cgroup.procs", "100"), ("forks", str(forks))):
        (folder / name).write_text(text)
    return _Tree(folder)


@pytest.mark.parametrize("forks", [0, 1, 15])
def test_processes_that_are_forked_meanwhile_are_moved_too(tmp_path: Path, forks: int) -> None:
    cgroups._delegate(_tree(tmp_path, forks=forks))
    assert (tmp_path / "cgroup.subtree_control").read_text().split() == ["memory", "pids"]
    assert (tmp_path / "cgroup.procs").read_text() == ""


def test_a_group_that_never_empties_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="busy"):
        cgroups._delegate(_tree(tmp_path, forks=10**6))


def test_a_place_that_was_not_to_be_had_is_looked_for_again(tmp_path: Path) -> None:
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    own.write_text("")
    lines = [f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0\n" for name in ("memory", "pids", "cpuacct")]
    mounts.write_text("".join(lines))
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpuacct").mkdir()
    assert place(mounts, own).kind is CgroupKind.NONE
    (tmp_path / "pids").mkdir()
    found = place(mounts, own)
    assert found.kind is CgroupKind.V1
    assert [path for folder in found.folders for path in folder.iterdir()] == []
    mounts.unlink()
    assert place(mounts, own) == found, "what worked once is not tried again"
