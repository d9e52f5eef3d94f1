"""Real groups with groups below them, as systemd-nspawn makes them; version 2 where some controller of it is free."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from plumbum import local

from farm.model.target import Limits
from workers.core.process import PATH
from workers.isolation import cgroups
from workers.isolation.cgroups import Cgroup, CgroupKind, CgroupPlace, members, remove_group

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes groups")

LIMITS = Limits(processes=64, memory_bytes=256 * 2**20)


@pytest.fixture
def where() -> CgroupPlace:
    if cgroups.place().kind is CgroupKind.NONE:
        pytest.skip("no cgroup can be made here")
    return cgroups.place()


@contextmanager
def started(script: str, *folders: Path) -> Iterator[int]:
    """A shell that is in these groups from its start."""
    joins = "".join(f"echo 0 > {folder}/cgroup.procs; " for folder in folders)
    process = local["/bin/sh"].popen(["-c", f"{joins} echo in; {script}"], new_session=True, env={"PATH": PATH})
    try:
        assert process.stdout.readline() == b"in\n"
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def inner(group: Path) -> Path:
    folder = group / "payload" / "build"
    folder.mkdir(parents=True)
    (group / "supervisor").mkdir()
    return folder


def test_processes_in_a_builds_own_groups_end_with_the_group(where: CgroupPlace) -> None:
    with ExitStack() as stack:
        with Cgroup(where, LIMITS) as group:
            folders = [join.parent for join in group.joins]
            payloads = [inner(folder) for folder in folders]
            pid = stack.enter_context(started("sleep 60; true", *payloads))
            assert all(pid in members(folder) for folder in folders)
            assert pid not in {one for folder in folders for one in cgroups._own_members(folder)}
        assert not any(folder.exists() for folder in folders)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None


def test_a_dead_workers_groups_are_swept_with_all_below_them(where: CgroupPlace) -> None:
    with ExitStack() as stack:
        with Cgroup(where, LIMITS) as group:
            names = [join.parent for join in group.joins]
        dead = [folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194303-")) for folder in names]
        pid = stack.enter_context(started("sleep 60; true", *[inner(folder) for folder in dead]))
        cgroups.sweep(where)
        assert not any(folder.exists() for folder in dead)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None


def test_a_dead_workers_groups_are_swept_although_their_processes_fork_all_the_time(where: CgroupPlace) -> None:
    """Each of these processes lives for no longer than it takes to start the next one."""
    with ExitStack() as stack:
        with Cgroup(where, LIMITS) as group:
            names = [join.parent for join in group.joins]
        dead = [folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194303-")) for folder in names]
        for folder in dead:
            folder.mkdir()
        stack.enter_context(started("next() { next & }; next; next; next", *dead))
        assert cgroups.sweep(where) >= len(dead)
        assert not any(folder.exists() for folder in dead)


def test_a_kill_because_the_host_is_out_of_memory_is_not_over_the_limit(where: CgroupPlace) -> None:
    if where.kind is not CgroupKind.V1:
        pytest.skip("groups of version 2 have to be delegated first")
    parents = tuple((name, folder / f"farm-test-{os.getpid()}") for name, folder in where.parents)
    host = CgroupPlace(kind=where.kind, parents=parents)
    with ExitStack() as stack:
        for folder in host.folders:
            folder.mkdir()
            stack.callback(remove_group, folder)
        (dict(parents)["memory"] / "memory.limit_in_bytes").write_text(str(LIMITS.memory_bytes // 4))
        group = stack.enter_context(Cgroup(host, LIMITS))
        with started("tail /dev/zero", *(join.parent for join in group.joins)) as pid:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert cgroups._field(group._text("memory", "memory.oom_control"), "oom_kill") >= 1
        assert group.memory_kills() == 0


@pytest.fixture
def version_2() -> Iterator[Path]:
    """A new group of version 2 in which a controller can be turned on for those below it."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(words[1]) for words in lines if words[2] == "cgroup2"), None)
    if top is None or not (free := (top / "cgroup.controllers").read_text().split()):
        pytest.skip("version 2 has no controller here")
    control = top / "cgroup.subtree_control"
    added = [] if control.read_text().split() else free[:1]
    folder = top / f"farm-test-{os.getpid()}"
    try:
        control.write_text(" ".join(f"+{name}" for name in added))
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no group of version 2 can be made here: {error}")
    try:
        yield folder
        assert remove_group(folder)
    finally:
        control.write_text(" ".join(f"-{name}" for name in added))


def test_version_2_is_delegated_while_a_process_forks(version_2: Path) -> None:
    controllers = (version_2 / "cgroup.controllers").read_text().split()
    with started("while :; do sleep 0.001 & sleep 0.001 & wait; done", version_2):
        cgroups._delegate(version_2, controllers)
        assert set(controllers) <= set((version_2 / "cgroup.subtree_control").read_text().split())
        assert not cgroups._own_members(version_2)


def test_version_2_kills_a_whole_group_at_once(version_2: Path) -> None:
    if not (version_2 / "cgroup.kill").exists():
        pytest.skip("the kernel is older than 5.14")
    with started("while :; do sleep 9 & sleep 0.001; done", inner(version_2)) as pid:
        cgroups._kill_members(version_2)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
        assert remove_group(version_2)
        version_2.mkdir()
