"""The contract of a process tree with workers.core.run: the same tests on /proc and on cgroups."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from plumbum import local

from farm.errors import LeaseLost
from farm.model.target import Limits
from tests.promises import Stopwatch
from workers.core.log import StepLog
from workers.core.process import PATH
from workers.core.run import Ending, SessionTree, Tree, run
from workers.isolation import cgroups
from workers.isolation.cgroups import Cgroup, CgroupKind

LIMITS = Limits(processes=64, memory_bytes=256 * 2**20)


@pytest.fixture
def group() -> Iterator[Cgroup]:
    if os.geteuid() != 0 or cgroups.place().kind is CgroupKind.NONE:
        pytest.skip("no cgroup can be made here")
    with Cgroup(cgroups.place(), LIMITS) as group:
        yield group


@pytest.fixture(params=["session", "cgroup"])
def started(request: pytest.FixtureRequest) -> Iterator[tuple[int, Tree]]:
    """A shell that computes, with a child that sleeps, and the tree that holds both."""
    joins: tuple[Path, ...] = ()
    if request.param == "cgroup":
        joins = request.getfixturevalue("group").joins
    script = "".join(f"echo 0 > {join}; " for join in joins) + "sleep 60 & while :; do :; done"
    process = local["/bin/sh"].popen(["-c", script], new_session=True, env={"PATH": PATH})
    tree: Tree = request.getfixturevalue("group") if joins else SessionTree(process.pid)
    try:
        yield process.pid, tree
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_cpu_time_is_counted(started: tuple[int, Tree]) -> None:
    _, tree = started
    assert within(5, lambda: (tree.cpu_s() or 0) > 0.1)


def test_every_process_dies(started: tuple[int, Tree]) -> None:
    pid, tree = started
    assert within(5, lambda: len(session(pid)) == 2)
    tree.kill()
    assert within(5, lambda: not session(pid))


def test_a_process_that_leaves_its_session_dies_with_the_cgroup(group: Cgroup, tmp_path: Path) -> None:
    joins = "".join(f"echo 0 > {join}; " for join in group.joins)
    script = joins + "setsid sh -c 'echo $$ > pid; exec sleep 60' & until [ -s pid ]; do :; done"
    with StepLog(tmp_path / "log", limit_bytes=10**6) as log:
        done = run(["sh", "-c", script], cwd=tmp_path, timeout_s=10, log=log, tree=group)
    assert done.code == 0
    left = int((tmp_path / "pid").read_text())
    assert within(5, lambda: state(left) in ("", "Z"))


def test_a_fork_bomb_ends_at_the_deadline_and_leaves_no_process(group: Cgroup, tmp_path: Path) -> None:
    joins = "".join(f"echo 0 > {join}; " for join in group.joins)
    script = joins + "bomb() { bomb | bomb & }; bomb; while :; do :; done"
    with StepLog(tmp_path / "log", limit_bytes=10**8) as log:
        done = run(["sh", "-c", script], cwd=tmp_path, timeout_s=0.5, log=log, tree=group, ok_codes=None)
    assert done.ending is Ending.TIMED_OUT
    assert not [pid for join in group.joins for pid in cgroups.members(join.parent)]


_DEAF = "trap '' TERM INT HUP; setsid sh -c \"trap '' TERM; while :; do sleep 60; done\" & while :; do sleep 60; done"
# A shell gives up when it may not fork; this does not.
_BOMB = f"""exec {sys.executable} -S -E -c '
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
'"""


@pytest.mark.parametrize("script", [_DEAF, _BOMB], ids=["deaf to TERM", "fork bomb"])
def test_stop_ends_all_of_it_in_less_than_a_second(group: Cgroup, tmp_path: Path, script: str) -> None:
    joins = "".join(f"echo 0 > {join}; " for join in group.joins)
    stop, watches, kept = threading.Event(), list[Stopwatch](), list[bool]()

    def stopped() -> None:
        with StepLog(tmp_path / "log", limit_bytes=10**8) as log, pytest.raises(LeaseLost):
            run(["sh", "-c", joins + script], cwd=tmp_path, timeout_s=60, log=log, tree=group, stop=stop)
        kept.append(watches[0].within(1))

    thread = threading.Thread(target=stopped)
    thread.start()
    least = 3 if script is _DEAF else LIMITS.processes
    assert within(10, lambda: len(cgroups.members(group.joins[0].parent)) >= least)
    watches.append(Stopwatch())
    stop.set()
    thread.join()
    assert not [pid for join in group.joins for pid in cgroups.members(join.parent)]
    assert kept == [True]


def test_a_tool_of_our_own_has_a_moment_to_clean_up_when_it_is_stopped(tmp_path: Path) -> None:
    """As git does, which takes its lock files away."""
    stop = threading.Event()
    script = "trap ': > cleaned; exit 1' TERM; : > ready; while :; do :; done"

    def stopped() -> None:
        with StepLog(tmp_path / "log", limit_bytes=10**6) as log, pytest.raises(LeaseLost):
            run(["sh", "-c", script], cwd=tmp_path, timeout_s=60, log=log, stop=stop)

    thread = threading.Thread(target=stopped)
    thread.start()
    assert within(10, (tmp_path / "ready").exists)
    stop.set()
    thread.join()
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize(
    ("script", "refused"), [("true & wait $!", False), ("for i in $(seq 80); do sleep 9 & done", True)]
)
def test_a_refused_fork_is_counted_and_the_kill_is_not(
    group: Cgroup, tmp_path: Path, script: str, refused: bool
) -> None:
    """Forks that are refused during the kill do not count as refused by the limit."""
    joins = "".join(f"echo 0 > {join}; " for join in group.joins)
    busy = "while :; do (:) ; done & "
    with StepLog(tmp_path / "log", limit_bytes=10**6) as log:
        run(["sh", "-c", joins + busy + script], cwd=tmp_path, timeout_s=10, log=log, tree=group, ok_codes=None)
    assert (group.forks_refused() > 0) is refused


def test_memory_ends_at_its_limit_and_is_counted(group: Cgroup, tmp_path: Path) -> None:
    joins = "".join(f"echo 0 > {join}; " for join in group.joins)
    with StepLog(tmp_path / "log", limit_bytes=10**6) as log:
        done = run(
            ["sh", "-c", joins + "tail /dev/zero"], cwd=tmp_path, timeout_s=30, log=log, tree=group, ok_codes=None
        )
    assert done.code != 0
    assert group.memory_kills() >= 1
    assert (group.peak_memory_bytes() or LIMITS.memory_bytes) > LIMITS.memory_bytes // 2


def test_a_group_is_gone_after_its_use_and_a_dead_workers_is_swept() -> None:
    where = cgroups.place()
    if os.geteuid() != 0 or where.kind is CgroupKind.NONE:
        pytest.skip("no cgroup can be made here")
    with Cgroup(where, replace(LIMITS, processes=8)) as group:
        folders = [join.parent for join in group.joins]
        assert all(folder.is_dir() for folder in folders)
        dead = [folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194303-")) for folder in folders]
        for folder in dead:
            folder.mkdir()
        cgroups.sweep(where)
        assert not any(folder.exists() for folder in dead)
        assert all(folder.is_dir() for folder in folders), "the living keep theirs"
    assert not any(folder.exists() for folder in folders)


def session(leader: int) -> list[int]:
    """Living processes of that session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def within(seconds: float, is_true: object) -> bool:
    until = time.monotonic() + seconds
    while not is_true():  # type: ignore[operator]
        if time.monotonic() > until:
            return False
        threading.Event().wait(0.01)
    return True
