"""The place of a siege: a folder, file systems of its own, and a cgroup that everything it starts lives in.

The cgroup is what makes an end possible: whatever a killed worker left behind is still in it.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.siege.commands import CommandFailed, run
from tests.siege.net import remove_left
from workers.isolation.cgroups import find_place

SCRATCH_MIB = 1400  # a command does not start below 512 MiB free
STORE_MIB = 400
_GONE_S = 20.0
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift; exec "$@"'


_FOLDERS = Path("/var/tmp")


def tag_of(number: int) -> str:
    """Names the things of one siege of this process, so that `sweep_dead` knows whose they are."""
    return f"sg{os.getpid()}-{number}"


def sweep_dead() -> int:
    """Remove what sieges left whose process was killed, which closes nothing; how many sieges. A folder that a siege
    kept for a person to see has nothing mounted in it, and stays."""
    count = 0
    for folder in _FOLDERS.glob("farm-sg*-*"):
        found = re.fullmatch(r"farm-(sg(\d+)-\d+)", folder.name)
        if found is None or Path("/proc", found[2]).exists():
            continue
        left = Ground(found[1], is_left=True)
        if left.mounts():
            left.close(keep=False)
            remove_left(found[1])
            count += 1
    return count


class Ground:
    """Use `close` in the end, whatever happened. `folder` has what a person may want to see afterwards."""

    def __init__(self, tag: str, *, is_left: bool = False) -> None:
        """With `is_left` what a siege of this tag left is taken over, to be closed."""
        self.tag = tag
        self.folder = _FOLDERS / f"farm-{tag}"
        self._mounts: list[Path] = []
        self._thaw: list[Path] = []
        self.data = self.folder / "d"
        self.log = self.folder / "log"
        mounts = Path("/proc/self/mounts").read_text()
        place = find_place(mounts, Path("/proc/self/cgroup").read_text())
        self.cgroups = tuple(parent / f"farm-{tag}" for parent in place.folders)
        if is_left:
            self._mounts = [
                path for line in mounts.splitlines() if self.folder in (path := Path(line.split()[1])).parents
            ]
            self._thaw = [path for path in self._mounts if self.data in path.parents]
            return
        self.folder.mkdir(mode=0o755)
        for folder in (self.data, self.log):
            folder.mkdir()
        for group in self.cgroups:
            group.mkdir()

    # --- processes ----------------------------------------------------------------------------------------------

    def joining(self, argv: list[str]) -> list[str]:
        """The command as one that begins by joining the siege's cgroup."""
        return ["sh", "-c", _JOIN, "join", *(str(group / "cgroup.procs") for group in self.cgroups), "--", *argv]

    def pids(self) -> set[int]:
        """Every process of the siege, also those in build roots."""
        found = set()
        for file in self.cgroups[0].rglob("cgroup.procs"):
            with suppress(OSError):
                found |= {int(word) for word in file.read_text().split()}
        return found

    def rooms(self) -> list[Path]:
        """Cgroups that workers made below the siege's."""
        return [path for group in self.cgroups for path in group.rglob("farm-*") if path.is_dir()]

    # --- file systems -------------------------------------------------------------------------------------------

    def mount_scratch(self, host: str) -> Path:
        """A small file system in memory, for one host's build roots."""
        where = self.folder / "scratch" / host
        where.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={SCRATCH_MIB}m,mode=755", "siege", where)
        self._mounts.append(where)
        return where

    def mount_store(self) -> Path:
        """A small ext4 for artifacts, which can be full, and can be frozen."""
        image, where = self.folder / "store.img", self.data / "artifacts"
        where.mkdir()
        with image.open("wb") as file:
            file.truncate(STORE_MIB * 2**20)
        run("mkfs.ext4", "-q", "-m", "0", image)
        run("mount", "-o", "loop", image, where)
        self._mounts.append(where)
        self._thaw.append(where)
        return where

    def mounts(self) -> set[Path]:
        return set(self._mounts)

    # --- the end ------------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        """End every process of the siege."""
        until = time.monotonic() + _GONE_S
        while (pids := self.pids()) and time.monotonic() < until:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.thaw()
            time.sleep(0.05)

    def thaw(self) -> None:
        for where in self._thaw:
            with suppress(CommandFailed):  # it is not frozen
                run("fsfreeze", "--unfreeze", where)

    def close(self, *, keep: bool) -> None:
        """With `keep` the folder stays, without what was mounted in it."""
        self.thaw()
        self.kill_all()
        for where in reversed(self._mounts):
            _unmount(where)
        self._mounts.clear()
        for group in self.cgroups:
            for path in sorted(_folders(group), key=lambda path: len(path.parts), reverse=True):
                with suppress(OSError):
                    path.rmdir()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def _unmount(where: Path) -> None:
    """A process that died a moment ago may still hold the mount; one that holds it for longer keeps a detached one."""
    for _ in range(20):
        try:
            run("umount", where)
            return
        except CommandFailed:
            time.sleep(0.1)
    with suppress(CommandFailed):
        run("umount", "--lazy", where)


def _folders(group: Path) -> Iterator[Path]:
    yield group
    yield from (path for path in group.rglob("*") if path.is_dir())
