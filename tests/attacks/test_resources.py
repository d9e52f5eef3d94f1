"""A hostile step attacks the machine's CPU and its own groups: real groups, if this machine has them."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from plumbum import local

from farm.config import Settings
from farm.errors import DiskFull
from farm.model.outcome import Outcome
from farm.model.target import Limits
from farm.targets.load import find_target
from tests.contract.test_cgroups import started
from tests.line import Line
from tests.promises import Stopwatch
from tests.waiting import until
from workers.isolation import cgroups
from workers.isolation.cgroups import Cgroup, CgroupKind, CgroupPlace
from workers.isolation.freezer import freezer_path, stray_freezers, thaw

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes groups")

LIMITS = Limits(processes=256, memory_bytes=256 * 2**20)
_LOOPS = 24
_SHARE_S = 3.0


@pytest.fixture
def where() -> CgroupPlace:
    if cgroups.place().kind is not CgroupKind.V1:
        pytest.skip("these groups are of version 1")
    return cgroups.place()


@pytest.fixture
def freezers(where: CgroupPlace) -> Path:
    folders = dict(where.parents)
    if "freezer" not in folders:
        pytest.skip("no freezer is mounted here")
    return folders["freezer"]


def folders_of(group: Cgroup) -> tuple[Path, ...]:
    return tuple(join.parent for join in group.joins)


@pytest.fixture
def stray(freezers: Path) -> Iterator[Path]:
    """A freezer group outside of the step's own, as a process can make that mounts the hierarchy again."""
    folder = freezers / f"farm-test-stray-{os.getpid()}" / "inner"
    folder.mkdir(parents=True)
    yield folder
    for group in (folder, folder.parent):
        with suppress(OSError):
            (group / "freezer.state").write_text("THAWED")
        with suppress(OSError):
            group.rmdir()


@pytest.mark.parametrize("place", ["own", "inner", "above", "stray"])
def test_a_step_that_freezes_itself_is_gone_within_two_seconds(where: CgroupPlace, stray: Path, place: str) -> None:
    """In its own group, in one below, with the freezing group above its own, and in one that is not the step's."""
    with ExitStack() as stack:
        with Cgroup(where, LIMITS) as group:
            own = next(folder for folder in folders_of(group) if "/freezer/" in str(folder))
            deep = own / "a" / "b"
            deep.mkdir(parents=True)
            joined = {"own": own, "inner": deep, "above": deep, "stray": stray}[place]
            frozen = {"own": own, "inner": deep, "above": deep.parent, "stray": stray.parent}[place]
            others = [folder for folder in folders_of(group) if folder != own]
            pid = stack.enter_context(started("sleep 60; true", joined, *others))
            (frozen / "freezer.state").write_text("FROZEN")
            until(lambda: "FROZEN" in (frozen / "freezer.state").read_text(), "the group to be frozen")
            watch = Stopwatch()
        assert watch.within(2)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
        assert not any(folder.exists() for folder in folders_of(group))
        assert place != "stray" or not stray.exists()


def test_a_dead_workers_frozen_step_is_swept(where: CgroupPlace, freezers: Path) -> None:
    with ExitStack() as stack:
        with Cgroup(where, LIMITS) as group:
            names = folders_of(group)
        dead = [folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194303-")) for folder in names]
        for folder in dead:
            folder.mkdir()
        pid = stack.enter_context(started("sleep 60; true", *dead))
        (freezers / dead[0].name / "freezer.state").write_text("FROZEN")
        watch = Stopwatch()
        cgroups.sweep(where)
        assert watch.within(2)
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
        assert not any(folder.exists() for folder in dead)


def test_the_farms_own_frozen_group_is_left_as_it_is(freezers: Path) -> None:
    """An operator who runs the farm in a group may freeze it; only a step's groups are thawed."""
    own = freezer_path("self")
    assert stray_freezers([os.getpid()], freezers, own) == []


def test_many_sessions_have_the_share_of_one_step(where: CgroupPlace) -> None:
    """By the time that the kernel counted, on the one processor that both are held to."""
    if not where.shares_cpu:
        pytest.skip("no cpu controller is mounted here")
    with ExitStack() as stack:
        hog, honest = stack.enter_context(Cgroup(where, LIMITS)), stack.enter_context(Cgroup(where, LIMITS))
        loop = "taskset -cp 0 $$ >/dev/null; while :; do :; done"
        many = f"for n in $(seq {_LOOPS}); do setsid sh -c '{loop}' & done; wait"
        stack.enter_context(started(many, *folders_of(hog)))
        stack.enter_context(started(loop, *folders_of(honest)))
        threading.Event().wait(0.5)  # all of them are there
        before = (hog.cpu_s() or 0, honest.cpu_s() or 0)
        threading.Event().wait(_SHARE_S)
        of_hog, of_honest = (hog.cpu_s() or 0) - before[0], (honest.cpu_s() or 0) - before[1]
        hog.kill()
        honest.kill()
    assert of_honest > of_hog / 2, f"{_LOOPS} sessions had {of_hog:.2f} s beside {of_honest:.2f} s"


def test_version_2_thaws_the_groups_below(tmp_path: Path) -> None:
    """The kernel kills frozen groups of version 2; groups that are left must not be frozen."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.freeze").write_text("1\n")
    thaw([tmp_path / "a", tmp_path / "b", tmp_path / "gone"])
    assert [(tmp_path / name / "cgroup.freeze").read_text() for name in ("a", "b")] == ["0", "0"]


def test_version_2_gives_each_step_one_weight(tmp_path: Path) -> None:
    place = CgroupPlace(kind=CgroupKind.V2, parents=(("", tmp_path),))
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert place.shares_cpu
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    assert not place.shares_cpu


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Path:
    folder = tmp_path_factory.mktemp("farm")
    (folder / "demo").mkdir()
    (folder / "demo/distribution").symlink_to(demo_distribution)
    return folder


def line_of(data: Path, folder: Path, **more: str) -> Line:
    folder.mkdir(exist_ok=True)
    settings = Settings.from_env({"FARM_DATA": str(data), **more})
    return Line(settings, find_target(settings, "demo"), folder)


@pytest.mark.live
@pytest.mark.parametrize(
    "build",
    [
        "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); : > file-$n; done",
        "seq -f file-%.0f 200000 | xargs touch",
    ],
)
def test_a_step_that_makes_all_the_files_of_a_disk_ends_itself_and_not_its_neighbour(
    data: Path, tmp_path: Path, build: str
) -> None:
    """200,000 empty files on a disk with space for 40,000, beside a step that makes a few. Where they come quicker than
    any watch, the neighbour may meet the full disk: then it is tried again, and is no failed package."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    local["mount"]("-t", "tmpfs", "-o", "size=2g,nr_inodes=40000", "tmpfs", scratch)
    try:
        greedy = line_of(data, tmp_path / "greedy", FARM_SCRATCH=str(scratch))
        honest = line_of(data, tmp_path / "honest", FARM_SCRATCH=str(scratch))
        with ThreadPoolExecutor(2) as pool:
            slow = pool.submit(honest.spec, build="for n in $(seq 80); do touch file-$n; sleep 0.1; done")
            until(lambda: honest.ended_in == "build", "the honest build", 90)
            result = greedy.spec(build=build)
            with suppress(DiskFull):
                assert slow.result(60).outcome is Outcome.SUCCEEDED, honest.log[-500:]
        assert result.outcome is Outcome.OVER_LIMIT
        assert "made most of the files that its host had space for" in (result.reason or "")
    finally:
        local["umount"](scratch)


@pytest.mark.live
def test_results_that_only_their_own_user_may_read_are_taken(data: Path, tmp_path: Path) -> None:
    """The source package is read in a session of another user, the package by the reader of headers."""
    line = line_of(data, tmp_path / "line")
    head = '%{lua: posix.umask("rwx------")}'
    result = line.spec(head=head, build="chmod 700 /builddir/results")
    assert result.outcome is Outcome.SUCCEEDED, line.log[-2000:]
    assert result.output is not None


@pytest.mark.live
def test_a_step_that_makes_more_files_than_its_limit_is_over_it(data: Path, tmp_path: Path) -> None:
    """By the walk over its files, so it takes no account of what others make on the disk meanwhile."""
    line = line_of(data, tmp_path / "line")
    result = line.spec(build="seq -f file-%.0f 60000 | xargs touch; sleep 60", files=20_000)
    assert result.outcome is Outcome.OVER_LIMIT
    assert result.reason == "made more files than its limit of 20000; --limit files=… or the target's limits raise it"
