"""Cgroups, version 1 and 2: limits on memory and processes, a share of the CPU, the usage, and the kill of a whole
process tree.

Owns: finding a place where this process may make groups, making, reading, killing, removing and sweeping them.
Where there is no such place, `place()` says so, and resource limits and the session replace the group.
"""

import errno
import functools
import os
import re
import select
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path

from farm.errors import RootTrouble
from farm.model.target import Limits
from workers.isolation.freezer import freezer_path, stray_freezers, thaw
from workers.isolation.pids import is_alive, pid_namespace, start_of

_MOUNTS = Path("/proc/self/mounts")
_OWN = Path("/proc/self/cgroup")
_V1_CONTROLLERS = ("memory", "pids", "cpuacct")
_V2_CONTROLLERS = ("memory", "pids")
#: Used where the host has them. With its own group of `cpu` a step gets one share of the CPU, however many sessions it
#: starts; without groups the kernel may give a share to each session. `freezer` holds the groups that a step makes.
_V1_OPTIONAL = ("cpu", "freezer")
_V2_OPTIONAL = ("cpu",)
#: One share each: the kernel's own default numbers.
_V1_SHARES = "1024"
_V2_WEIGHT = "100"
#: Version 2 allows processes in leaf groups only, so the worker moves itself into this one.
_LEAF = "farm-worker"
_NAME = re.compile(r"farm-(?P<namespace>\d+)-(?P<pid>\d+)-(?P<start>\d+)-\d+")
_GONE_S = 5.0
#: While a pool starts, its main process may fork a process into the group that another process is just emptying.
_DELEGATE_TRIES = 20
_PAUSE_S = 0.002
_numbers = count(1)


class CgroupKind(StrEnum):
    V1 = "v1"
    V2 = "v2"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class CgroupPlace:
    """The place where groups can be made: the parent folder by controller; for version 2 one folder for all."""

    kind: CgroupKind
    parents: tuple[tuple[str, Path], ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for _, path in self.parents))

    @property
    def shares_cpu(self) -> bool:
        """Whether each group has one share of the CPU."""
        if self.kind is CgroupKind.V2:
            control = self.folders[0] / "cgroup.subtree_control"
            return control.exists() and "cpu" in control.read_text().split()
        return "cpu" in dict(self.parents)


def find_place(mounts: str, own: str) -> CgroupPlace:
    """Read the place from the texts of /proc/self/mounts and /proc/self/cgroup, without a test."""
    paths = dict(line.split(":", 2)[1:] for line in own.splitlines() if line.count(":") >= 2)
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mounts.splitlines():
        _, where, kind, options = line.split(" ", 4)[:4]
        if kind == "cgroup2":
            v2 = _under(Path(where), paths.get("", "/").removesuffix(f"/{_LEAF}"))
        elif kind == "cgroup":
            for controller in set(options.split(",")) & {*_V1_CONTROLLERS, *_V1_OPTIONAL}:
                own_path = next((path for names, path in paths.items() if controller in names.split(",")), "/")
                v1[controller] = _under(Path(where), own_path)
    if set(v1) >= set(_V1_CONTROLLERS):
        return CgroupPlace(kind=CgroupKind.V1, parents=tuple(sorted(v1.items())))
    if v2 is not None:
        return CgroupPlace(kind=CgroupKind.V2, parents=(("", v2),))
    return CgroupPlace(kind=CgroupKind.NONE)


def place(mounts: Path = _MOUNTS, own: Path = _OWN) -> CgroupPlace:
    """The place where this process can make groups. Tested until a test succeeds once: a step without a group runs
    without limits."""
    try:
        return _tried_place(mounts, own)
    except OSError:
        return CgroupPlace(kind=CgroupKind.NONE)


@functools.lru_cache(maxsize=1)
def _tried_place(mounts: Path, own: Path) -> CgroupPlace:
    """Raises OSError where groups cannot be made now. The cache keeps no failure."""
    found = find_place(mounts.read_text(), own.read_text())
    if found.kind is CgroupKind.V2:
        folder = found.folders[0]
        _delegate(folder)
        with suppress(OSError):
            _delegate(folder, _V2_OPTIONAL)
    parents = []
    for controller, folder in found.parents:
        try:
            # Several threads of one process may test at the same time.
            probe = folder / f"farm-probe-{os.getpid()}-{next(_numbers)}"
            probe.mkdir()
            probe.rmdir()
        except OSError:
            if controller not in _V1_OPTIONAL:
                raise
        else:
            parents.append((controller, folder))
    return CgroupPlace(kind=found.kind, parents=tuple(parents))


class Cgroup:
    """The group of one command, and so a `workers.core.run.Tree`. A context manager: at its end all processes are
    killed and the group is removed."""

    def __init__(self, where: CgroupPlace, limits: Limits) -> None:
        self.kind = where.kind
        self._limits = limits
        name = f"farm-{pid_namespace()}-{os.getpid()}-{start_of(os.getpid())}-{next(_numbers)}"
        self._folders = {controller: parent / name for controller, parent in where.parents}
        self._refused_before_kill: int | None = None

    @property
    def joins(self) -> tuple[Path, ...]:
        """A process that writes 0 to each of these is in the group, and so is everything that it starts."""
        return tuple(folder / "cgroup.procs" for folder in self._all)

    @property
    def _all(self) -> tuple[Path, ...]:
        """The folders of the group, each once, since controllers may share a hierarchy."""
        return tuple(dict.fromkeys(self._folders.values()))

    def __enter__(self) -> "Cgroup":
        try:
            for folder in self._all:
                folder.mkdir()
            self._set_limits()
        except OSError as error:
            self._remove()
            raise RootTrouble(f"cgroup {error.filename} cannot be set up: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._remove()

    def cpu_s(self) -> float | None:
        if self.kind is CgroupKind.V1:
            return self._number("cpuacct", "cpuacct.usage", default=0) / 1e9
        return _field(self._text("", "cpu.stat"), "usage_usec") / 1e6

    def peak_memory_bytes(self) -> int | None:
        """The peak memory of the group, page cache included; None before Linux 5.19 on version 2."""
        if self.kind is CgroupKind.V1:
            return self._number("memory", "memory.max_usage_in_bytes", default=0) or None
        return self._number("", "memory.peak", default=0) or None

    def memory_kills(self) -> int:
        """The number of processes that the kernel killed because the group had reached its limit. Kills because the
        host was out of memory are not counted."""
        if self.kind is CgroupKind.V1:
            # Not memory.failcnt, which stays 0 on newer kernels. One refused request may be large, and then much of
            # the limit is still free.
            has_reached_it = (self.peak_memory_bytes() or 0) > self._limits.memory_bytes * 7 // 8
            return _field(self._text("memory", "memory.oom_control"), "oom_kill") if has_reached_it else 0
        events = self._text("", "memory.events")
        return _field(events, "oom_kill") if _field(events, "oom") else 0

    def forks_refused(self) -> int:
        """The number of processes and threads that the limit refused; 0 before Linux 4.8."""
        if self._refused_before_kill is not None:
            return self._refused_before_kill
        return _field(self._text("pids" if self.kind is CgroupKind.V1 else "", "pids.events"), "max")

    def kill(self) -> None:
        """Kill all processes of the group, also frozen ones. Forks are forbidden first, so that the kill comes to an
        end."""
        pids = self._folders.get("pids", self._folders.get(""))
        folders = self._all
        if pids and any(map(members, folders)):
            # Forks that are refused from here on must not count as refused by the limit.
            self._refused_before_kill = self.forks_refused()
            _forbid_forks(pids)
            _emptied(folders)

    def _set_limits(self) -> None:
        # A build always leaves some memory and processes to the host, whatever its limits are.
        memory = str(min(self._limits.memory_bytes, _host_memory_bytes()))
        processes = str(min(self._limits.processes, _host_processes()))
        if self.kind is CgroupKind.V1:
            (self._folders["pids"] / "pids.max").write_text(processes)
            (self._folders["memory"] / "memory.limit_in_bytes").write_text(memory)
            # The file that forbids swap as additional memory exists only if the kernel accounts for swap.
            swap = self._folders["memory"] / "memory.memsw.limit_in_bytes"
            if swap.exists():
                swap.write_text(memory)
            with suppress(
                FileNotFoundError
            ):  # version 1 counts the buffers of TCP and UDP apart, and only with a limit
                (self._folders["memory"] / "memory.kmem.tcp.limit_in_bytes").write_text(memory)
            if "cpu" in self._folders:
                (self._folders["cpu"] / "cpu.shares").write_text(_V1_SHARES)
            return
        (self._folders[""] / "pids.max").write_text(processes)
        (self._folders[""] / "memory.max").write_text(memory)
        for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1"), ("cpu.weight", _V2_WEIGHT)):
            with suppress(FileNotFoundError):
                (self._folders[""] / name).write_text(value)

    def _remove(self) -> None:
        for folder in self._all:
            if not remove_group(folder):
                raise RootTrouble(f"cgroup {folder} still has processes {_GONE_S:.0f} s after they were killed")

    def _text(self, controller: str, name: str) -> str:
        try:
            return (self._folders[controller] / name).read_text()
        except OSError:
            return ""

    def _number(self, controller: str, name: str, *, default: int) -> int:
        text = self._text(controller, name).strip()
        return int(text) if text.isdigit() else default


@functools.cache
def _host_memory_bytes() -> int:
    """Most of the host's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16 * 15


@functools.cache
def _host_processes() -> int:
    """A quarter of the process ids that the kernel has."""
    return int(Path("/proc/sys/kernel/pid_max").read_text()) // 4


def sweep(where: CgroupPlace) -> int:
    """Remove the groups of dead workers of this pid namespace, also those made elsewhere. Returns their number."""
    tops = dict.fromkeys(_top(folder) for folder in where.folders)
    dead = [Path(path) for top in tops for path, _, _ in os.walk(top) if _is_of_the_dead(Path(path).name)]
    for left in dead:  # before any is emptied: a process that may fork is as quick as one that kills
        _forbid_forks(left)
    return sum(_emptied((left,)) and remove_group(left) for left in dead)


def _is_of_the_dead(name: str) -> bool:
    found = _NAME.fullmatch(name)
    if not found or int(found["namespace"]) != pid_namespace():
        return False
    return not is_alive(int(found["pid"]), int(found["start"]))


def _emptied(folders: Sequence[Path]) -> bool:
    """Kill the processes in these groups until none is left; False if this does not come to an end."""
    until = time.monotonic() + _GONE_S
    strays: set[Path] = set()
    while pids := {pid for folder in folders for pid in members(folder)}:
        if time.monotonic() > until:
            return False
        for folder in folders:
            _kill_members(folder)
        # Only a thawed process dies, and nothing may freeze it again before.
        groups = stray_freezers(pids, _freezer_top(), freezer_path("self"))
        thaw([*groups, *(group for folder in folders for group in _with_inner(folder))])
        strays |= {group for group in groups if not any(group.is_relative_to(folder) for folder in folders)}
        select.select([], [], [], _PAUSE_S)
    for group in sorted(strays, reverse=True):
        with suppress(OSError):  # it has other processes
            group.rmdir()
    return True


def members(folder: Path) -> tuple[int, ...]:
    """The processes of the group and of groups below it, which programs like systemd-nspawn make."""
    return tuple(pid for group in _with_inner(folder) for pid in _own_members(group))


def remove_group(folder: Path) -> bool:
    """Remove the group and the groups below it. True if they are gone. The kernel answers busy for a moment after the
    last process died."""
    until = time.monotonic() + _GONE_S
    while True:
        try:
            for group in reversed(_with_inner(folder)):
                group.rmdir()
        except OSError as error:
            if not folder.exists():
                return True
            # A group below may be missing because its maker has just removed it.
            if error.errno not in (errno.EBUSY, errno.ENOENT) or time.monotonic() > until:
                return False
            select.select([], [], [], _PAUSE_S)
        else:
            return True


def _with_inner(folder: Path) -> list[Path]:
    """The group and all groups below it, each after its parent."""
    return [folder, *(Path(path, name) for path, names, _ in os.walk(folder) for name in names)]


def _own_members(folder: Path) -> tuple[int, ...]:
    try:
        return tuple(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    except OSError:
        return ()


def _forbid_forks(folder: Path) -> None:
    """Set the limit of processes to 0, if the group has one."""
    limit = folder / "pids.max"
    with suppress(OSError):
        if limit.exists():
            limit.write_text("0")


def _kill_members(folder: Path) -> None:
    """Kill once. Processes that fork meanwhile are killed too on version 2 from Linux 5.14 on."""
    whole = folder / "cgroup.kill"
    with suppress(OSError):
        if whole.exists():
            whole.write_text("1")
            return
    for pid in members(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@functools.lru_cache(maxsize=1)
def _freezer_top() -> Path | None:
    """The mount point of version 1's freezer hierarchy."""
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, options = line.split(" ", 4)[:4]
        if kind == "cgroup" and "freezer" in options.split(","):
            return Path(where)
    return None


def _under(mount: Path, own: str) -> Path:
    """The process's own group below the mount; in a container its path often does not match the mount."""
    inside = mount / own.lstrip("/")
    return inside if inside.is_dir() else mount


def _top(folder: Path) -> Path:
    """The mount that the group is in: a restarted worker may be in another group than the dead worker was."""
    while folder.parent.stat().st_dev == folder.stat().st_dev and folder != folder.parent:
        folder = folder.parent
    return folder


def _delegate(folder: Path, controllers: Sequence[str] = _V2_CONTROLLERS) -> None:
    """Turn on the controllers for groups below `folder`. Raises OSError if this process may not do so."""
    control = folder / "cgroup.subtree_control"
    wanted = " ".join(f"+{name}" for name in controllers)
    for tries_left in reversed(range(_DELEGATE_TRIES)):
        if set(controllers) <= set(control.read_text().split()):
            return
        try:
            control.write_text(wanted)
        except OSError as error:
            if error.errno != errno.EBUSY or not tries_left:
                raise
            _move_into_leaf(folder, _own_members(folder))


def _move_into_leaf(folder: Path, pids: Iterable[int]) -> None:
    leaf = folder / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in pids:
        with suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _field(text: str, name: str) -> int:
    """A line `name number` of a flat keyed file; 0 without it."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0
