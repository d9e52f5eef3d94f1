"""The parts of the native engine that are decisions: places of cgroups, the cache, listings, headers, outcomes."""

import fcntl
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from farm.errors import DiskFull, LeaseLost, NetworkTrouble, RootTrouble
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import LIMIT_RANGES, Limits, RepositorySource, Target
from farm.service.limits import limit_words
from workers.core.run import Completed, Ending
from workers.core.untrusted import read_left
from workers.formats.rpm import rpmbuild
from workers.formats.rpm.dnf import target_repositories
from workers.formats.rpm.filler import target_key
from workers.isolation import pids, sandbox
from workers.isolation.cgroups import CgroupKind, find_place
from workers.isolation.outcomes import LimitsMet, judge
from workers.isolation.sandbox import Bind, Confinement, Overlay
from workers.isolation.scratch import is_orphan, scratch_name
from workers.roots import cache as shelves
from workers.roots.cache import DirectoryCache
from workers.roots.session import last_error

LIMITS = Limits(wall_s=60, silence_s=30, log_bytes=2**20, memory_bytes=2**30, disk_bytes=3 * 2**30)
NEVER = threading.Event()


# --- cgroups


def test_version_1_needs_every_controller_and_prefers_its_own_group(tmp_path: Path) -> None:
    (tmp_path / "memory/mine").mkdir(parents=True)
    mounts = "".join(f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0\n" for name in ("memory", "pids", "cpuacct"))
    found = find_place(mounts, "4:memory:/mine\n8:pids:/other\n2:cpu,cpuacct:/\n")
    assert found.kind is CgroupKind.V1
    assert dict(found.parents) == {
        "memory": tmp_path / "memory/mine",
        "pids": tmp_path / "pids",  # a group outside of the mount, as in a container, becomes the mount itself
        "cpuacct": tmp_path / "cpuacct",
    }


def test_version_2_is_taken_where_version_1_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "unit.service/farm-worker").mkdir(parents=True)
    found = find_place(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n", "0::/unit.service/farm-worker\n")
    assert (found.kind, found.folders) == (CgroupKind.V2, (tmp_path / "unit.service",))
    assert find_place("proc /proc proc rw 0 0\n", "").kind is CgroupKind.NONE


def test_scratch_and_groups_of_the_living_are_not_leftovers() -> None:
    nowhere = Path("/nowhere")
    assert not is_orphan(scratch_name("room", 1), "room", nowhere)
    reused = scratch_name("room", 1).replace(pids.owner(), f"{os.getpid()}-1")
    assert is_orphan(reused, "room", nowhere), "the number is used again by another process"
    assert not is_orphan(f"kept-{reused}", "room", nowhere)
    assert not is_orphan("room-of-a-person", "room", nowhere)
    assert pids.is_alive(*(int(part) for part in pids.owner().split("-")))


# --- shelves


def test_a_folder_is_made_once_however_many_want_it(tmp_path: Path) -> None:
    cache, made, seen = DirectoryCache(tmp_path, keep=3), [], []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text("x")

    def use() -> None:
        with cache.use("key", make, stop=NEVER) as folder:
            seen.append((folder / "content").read_text())

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), seen) == (1, ["x"] * 8)


def test_a_failed_make_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    cache = DirectoryCache(tmp_path, keep=3)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise DiskFull("no space")

    with pytest.raises(DiskFull), cache.use("key", fail, stop=NEVER):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]
    with cache.use("key", lambda _: None, stop=NEVER) as folder:
        assert not list(folder.iterdir())


def test_a_wait_for_another_that_makes_the_same_root_ends_with_the_time_of_the_step(tmp_path: Path) -> None:
    cache = DirectoryCache(tmp_path, keep=3)

    def make(_: Path) -> None:
        with cache.use("key", lambda _: None, stop=NEVER, deadline=time.monotonic() + 0.1):
            pass

    with pytest.raises(RootTrouble, match="time was over"), cache.use("key", make, stop=NEVER):
        pass


def test_the_least_recently_used_is_removed_and_one_in_use_stays(tmp_path: Path) -> None:
    cache = DirectoryCache(tmp_path, keep=2)
    with cache.use("a", lambda _: None, stop=NEVER):
        os.utime(tmp_path / "a", (1, 1))
        for at, key in enumerate("bcd"):
            with cache.use(key, lambda _: None, stop=NEVER):
                pass
            os.utime(tmp_path / key, (10 + at, 10 + at))
        cache.sweep(tmp_path / "alive")
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"a", "c", "d"}
    cache.sweep(tmp_path / "alive")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"c", "d"}


def test_two_processes_can_remove_old_folders_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, key in enumerate("abcd"):
        with DirectoryCache(tmp_path, keep=9).use(key, lambda _: None, stop=NEVER):
            pass
        os.utime(tmp_path / key, (10 + at, 10 + at))
    remove = shelves.remove_tree

    def remove_after_another(folder: Path) -> None:
        monkeypatch.setattr(shelves, "remove_tree", remove)
        DirectoryCache(tmp_path, keep=1).sweep(tmp_path / "alive")
        remove(folder)

    monkeypatch.setattr(shelves, "remove_tree", remove_after_another)
    with DirectoryCache(tmp_path, keep=2).use("e", lambda _: None, stop=NEVER) as made:
        assert made.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "e.lock"]


def test_an_old_folder_that_cannot_be_removed_does_not_fail_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DirectoryCache(tmp_path, keep=1).use("a", lambda _: None, stop=NEVER):
        pass

    def fail(folder: Path) -> None:
        raise RootTrouble(f"{folder} cannot be removed")

    monkeypatch.setattr(shelves, "remove_tree", fail)
    with DirectoryCache(tmp_path, keep=1).use("b", lambda _: None, stop=NEVER) as made:
        assert made.is_dir()


def test_half_made_folders_of_the_dead_are_swept(tmp_path: Path) -> None:
    (tmp_path / scratch_name("new", 1)).mkdir()
    (tmp_path / scratch_name("new", 1).replace(pids.owner(), f"{os.getpid()}-1")).mkdir()
    assert DirectoryCache(tmp_path, keep=2).sweep(tmp_path / "alive") == 1
    assert [path.name for path in tmp_path.iterdir()] == [scratch_name("new", 1)]


def test_unused_folders_are_shed_oldest_first_until_it_is_enough(tmp_path: Path) -> None:
    cache = DirectoryCache(tmp_path, keep=9)
    for place, key in enumerate("abcd"):
        with cache.use(key, lambda _: None, stop=NEVER) as made:
            pass
        os.utime(made, (place, place))

    def left() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir() if path.is_dir())

    with cache.use("a", lambda _: None, stop=NEVER) as made:
        os.utime(made, (0, 0))
        assert cache.shed(lambda: len(left()) <= 2) == 2
        assert left() == ["a", "d"], "one that is in use stays, however old it is"
    assert cache.shed(lambda: True) == 0
    assert DirectoryCache(tmp_path / "none", keep=1).shed(lambda: False) == 0


def test_a_wait_for_another_process_that_makes_it_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    holder = os.open(tmp_path / "key.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(LeaseLost), DirectoryCache(tmp_path, keep=2).use("key", lambda _: None, stop=stop):
        pass
    os.close(holder)


# --- roots


def test_a_rebuilt_local_repository_gives_a_new_template(tmp_path: Path) -> None:
    target = make_target(RepositorySource(name="base", baseurl=f"file://{tmp_path}/{{arch}}", gpgcheck=False))
    repositories = target_repositories(target, Arch.X86_64)
    with pytest.raises(NetworkTrouble, match=r"repository base has no .*repomd\.xml"):
        target_key(target, repositories)
    repomd = tmp_path / "x86_64/repodata/repomd.xml"
    repomd.parent.mkdir(parents=True)
    repomd.write_text("1")
    first = target_key(target, repositories)
    assert target_key(target, repositories) == first
    repomd.write_text("2")
    assert target_key(target, repositories) != first


def make_target(*repositories: RepositorySource) -> Target:
    return Target(
        name="t", distribution="t", release="1", arches=(Arch.X86_64,), repositories=repositories, packages=("bash",)
    )


# --- sandbox


CONFINED = Confinement(helper=Path("/h/enter"), filter=Path("/h/filter"), first_id=1000)


def test_an_overlay_and_its_layers_are_shown_under_names_that_fit_any_path() -> None:
    overlay = Overlay(lowers=(Path("/a:b"), Path("/c,d")), upper=Path("/e f/upper"), work=Path("/e f/work"))
    words = sandbox.enter(
        ["tool", Path("/merged")], CONFINED, overlays=[(overlay, Path("/merged"))], joins=(), limits=LIMITS
    )
    options = "lowerdir=/mnt/0:/mnt/1,upperdir=/mnt/2/upper,workdir=/mnt/2/work,userxattr"
    assert words[words.index("--overlay") + 1] == options
    assert [words[at + 1] for at, word in enumerate(words) if word == "--bind"] == ["/a:b", "/c,d", "/e f"]
    assert words[-2:] == ["tool", "/mnt/overlay0"]


def test_a_session_has_no_network_no_capability_and_no_host_path() -> None:
    words = sandbox.recipe(["true"], CONFINED, root=Bind(path=Path("/r"), inside="/"), binds=())
    assert {"--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"} <= set(words)
    assert words[words.index("--cap-drop") + 1] == "ALL"
    binds = [words[at + 1] for at, word in enumerate(words) if str(word).endswith("bind")]
    assert binds == [Path("/r"), "/proc/sys", "/mnt/pts", "/mnt/shm", Path("/h/enter")]
    shown = [words[at + 1] for at, word in enumerate(words) if word == "--ro-bind-try"]
    assert {str(path).rpartition("/")[0] for path in shown} <= {"/sys/devices/system", "/sys/kernel/mm"}


def test_no_program_of_the_root_runs_before_it_is_the_build_user() -> None:
    words = sandbox.recipe(["sh", "x"], CONFINED, root=Bind(path=Path("/r"), inside="/"), binds=())
    inside = words[words.index("--") + 1 :]
    assert inside == ["/run/farm/enter", "inside", "60990", "/run/farm/entered", "--", "sh", "x"]


def test_a_session_has_ids_of_its_own_and_a_filter() -> None:
    words = sandbox.enter(["true"], CONFINED, joins=(Path("/g/cgroup.procs"),), limits=LIMITS)
    assert words[words.index("--map") + 1 :][:2] == ["1000", "65536"]
    assert words[words.index("--seccomp") + 1] == "/h/filter"
    assert words[words.index("--cgroup") + 1] == "/g/cgroup.procs"
    assert "--as" not in words


def test_the_build_user_of_a_session_is_a_user_of_its_own_on_the_host() -> None:
    room = CONFINED.for_session()
    assert room.build_id in range(1000 + 2 * 65536, 1000 + 3 * 65536)
    words = sandbox.enter(["true"], room, joins=(), limits=LIMITS)
    assert words[words.index("--user") + 1 :][:2] == ["60990", str(room.build_id)]
    assert "--user" not in sandbox.enter(["true"], CONFINED, joins=(), limits=LIMITS), "a session that is no room"
    unconfined = replace(CONFINED, first_id=None)
    assert unconfined.for_session().build_id == 60990


def test_without_cgroups_resource_limits_stand_in() -> None:
    words = sandbox.enter(["true"], CONFINED, joins=(), limits=LIMITS)
    assert words[words.index("--nproc") + 1] == str(LIMITS.processes)
    assert words[words.index("--as") + 1] == str(LIMITS.memory_bytes)


def test_only_regular_files_of_a_bounded_size_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    assert read_left(tmp_path / "file", limit_bytes=5) == b"12345"
    for name in ("link", "fifo", "missing", "."):
        assert read_left(tmp_path / name, limit_bytes=5) is None
    assert read_left(tmp_path / "file", limit_bytes=4) is None


# --- rpm


def test_no_macro_of_a_build_moves_the_farms_folders() -> None:
    build = BuildOptions(defines=(("_topdir", "/x"), ("a", "b c")), with_=("tests",), without=("docs",))
    words = rpmbuild.options(make_target(), build, source_packages_to="/out")
    defines = [words[at + 1] for at, word in enumerate(words) if word == "--define"]
    assert defines.index("_topdir /x") < defines.index("_topdir /builddir/build")
    assert "a b c" in defines
    assert words[-4:] == ["--with", "tests", "--without", "docs"]


def test_rpmbuilds_words_tell_exclusion_and_unmet_requirements() -> None:
    assert (
        rpmbuild.excluded(b"x\nerror: Architecture is not included: x86_64\n") == "Architecture is not included: x86_64"
    )
    assert rpmbuild.excluded(b"Architecture is excluded: x86_64\n") is None
    text = b"error: Failed build dependencies:\n\tfoo >= 2 is needed by t-1-1.x86_64\n"
    assert rpmbuild.unmet(text) == ("foo >= 2",)
    assert rpmbuild.unmet(b"\tfoo is needed by t\n") == ()


# --- ends


_RAISE = "; --limit {}=… or the target's limits raise it"
_KILLED = LimitsMet(memory_kills=1)
_REFUSED = LimitsMet(forks_refused=3)


@pytest.mark.parametrize(
    ("ending", "code", "met", "outcome", "reason"),
    [
        (Ending.EXITED, 0, LimitsMet(), Outcome.SUCCEEDED, None),
        (Ending.EXITED, 0, _KILLED, Outcome.SUCCEEDED, None),
        (Ending.EXITED, 0, _REFUSED, Outcome.SUCCEEDED, None),
        (Ending.EXITED, 1, LimitsMet(), Outcome.FAILED, None),
        (Ending.EXITED, None, LimitsMet(), Outcome.FAILED, None),
        (Ending.EXITED, 1, _KILLED, Outcome.OVER_LIMIT, "used more memory than its limit of 1 GiB" + _RAISE),
        (Ending.EXITED, None, _KILLED, Outcome.OVER_LIMIT, "used more memory than its limit of 1 GiB" + _RAISE),
        (
            Ending.EXITED,
            1,
            _REFUSED,
            Outcome.OVER_LIMIT,
            "wanted more processes and threads than its limit of 4096" + _RAISE,
        ),
        (Ending.OVER_DISK, None, LimitsMet(), Outcome.OVER_LIMIT, "used more disk than its limit of 3 GiB" + _RAISE),
        (
            Ending.FLOODED,
            None,
            LimitsMet(),
            Outcome.OVER_LIMIT,
            "flooded the log: wrote more than 4 times its limit of 1 MiB" + _RAISE,
        ),
        (Ending.TIMED_OUT, None, LimitsMet(), Outcome.TIMED_OUT, "did not end within its limit of 60 s"),
        (
            Ending.TIMED_OUT,
            None,
            _REFUSED,
            Outcome.TIMED_OUT,
            "did not end within its limit of 60 s, and its limit of 4096 processes had refused it more",
        ),
        (Ending.STALLED, None, LimitsMet(), Outcome.STALLED, "wrote nothing and used no CPU for 30 s" + _RAISE),
    ],
)
def test_each_end_has_its_outcome_and_names_its_limit(
    ending: Ending, code: int | None, met: LimitsMet, outcome: Outcome, reason: str | None
) -> None:
    done = Completed(code=code, signal=None if code is not None else 15, seconds=1, ending=ending)
    said = judge(done, LIMITS, met)
    name = re.search("--limit ([a-z]+)=", said[1] or "")
    assert said == (outcome, reason and reason.format(name[1] if name else ""))
    names = {limit_words(field, 1).partition("=")[0] for field in LIMIT_RANGES}
    assert name is None or name[1] in names, "what is said to raise it is there"


def test_a_file_over_the_size_limit_names_the_disk_limit() -> None:
    done = Completed(code=1, signal=None, seconds=1, tail=b"line 2:  7 File size limit exceededdd if=/dev/zero\n")
    outcome, reason = judge(done, LIMITS, LimitsMet())
    assert (outcome, reason) == (
        Outcome.OVER_LIMIT,
        "wrote a file larger than its disk limit of 3 GiB" + _RAISE.format("disk"),
    )


def test_a_full_host_is_not_the_packages_fault() -> None:
    with pytest.raises(DiskFull):
        judge(Completed(code=None, signal=15, seconds=1, ending=Ending.DISK_FULL), LIMITS, LimitsMet())


def test_the_last_error_is_printable_and_short() -> None:
    assert last_error(b"error: one\nerror: line 3: \x1b[31mtwo\nmore\n") == r"error: line 3: \x1b[31mtwo"
    assert last_error(b"nothing of the kind") is None
    assert len(last_error(b"error: " + b"x" * 5000) or "") <= 300
