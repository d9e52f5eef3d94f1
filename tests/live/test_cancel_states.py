"""A cancel within two seconds in every state: then no process, mount, cgroup, work folder or half-made root is left.

A real farm on this machine, with a worker more for an emulated arch. Each test brings one build into one state, for
real, and measures from `cancel` until everything is gone.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from farm import Farm, queues
from farm.client.handle import BuildHandle
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.outcome import Outcome, Status
from farm.repositories import RepositoryKind, RepositoryName, open_repositories
from farm.up.embedded import Embedded, running_farm
from tests.emulator import FOREIGN, need_emulator
from tests.fetching import Server, http_server
from tests.packages import commit_all, git, make_git, make_srpm
from tests.promises import Stopwatch
from tests.rpms import read_repository
from tests.waiting import until
from workers.isolation import cgroups

pytestmark = pytest.mark.live
WITHIN_S = 60.0
CANCELLED_WITHIN_S = 2.0
NATIVE = Arch.X86_64
NOWHERE = Arch.PPC64LE  # no worker of this farm builds for it


@dataclass(frozen=True, kw_only=True)
class Siege:
    """The farm, and what belongs to it while nothing runs."""

    farm: Farm
    settings: Settings
    embedded: Embedded
    server: Server
    folder: Path
    idle: frozenset[str]

    def start(self, **what: object) -> BuildHandle:
        return self.farm.enqueue(target="demo", **{"arches": [NATIVE], **what})  # type: ignore[arg-type]

    def says(self, words: str) -> bool:
        """Whether the log of a step that runs now has these words."""
        for log in self.settings.work.glob("step-*/log"):
            with suppress(FileNotFoundError):
                if words.encode() in log.read_bytes():
                    return True
        return False

    def runs(self, build: BuildHandle, kind: str) -> bool:
        steps = self.farm.build(build).steps
        return any(step.kind == kind and step.status is Status.RUNNING for step in steps)

    def cancel(self, build: BuildHandle) -> None:
        """Cancel it; nothing of it is left in time."""
        watch = Stopwatch()
        self.farm.cancel(build)
        until(lambda: self._is_over(build), lambda: f"the end of {self._left()}")
        is_kept, took_s = watch.within(CANCELLED_WITHIN_S), watch.clock_s
        # A stopped attempt reports nothing, and the outcome stays.
        result = build.wait(timeout_s=WITHIN_S)
        assert result.outcome is Outcome.CANCELLED
        assert is_kept, f"gone after {took_s:.2f} s"

    def _is_over(self, build: BuildHandle) -> bool:
        return self.farm.build(build).status is Status.FINISHED and not self._left()

    def _left(self) -> list[str]:
        return sorted(left(self.settings) - self.idle)


def left(settings: Settings) -> set[str]:
    """Processes, mounts, groups and folders that have to do with the data folder. Workers themselves have not."""
    data = bytes(settings.data)
    own = Path("/proc/self/mountinfo").read_bytes()
    found = {f"mount {line.split()[4].decode()}" for line in own.splitlines() if data in line}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mounts, words = (folder / "mountinfo").read_bytes(), (folder / "cmdline").read_bytes()
            places = [(folder / name).readlink() for name in ("cwd", "root")]
            if (
                (mounts != own and data in mounts)
                or data in words
                or any(one.is_relative_to(settings.data) for one in places)
            ):
                found.add(f"process {folder.name} {words!r:.100}")
    mine = {str(pid) for pid in _descendants(os.getpid())}
    groups = [path for root in cgroups.place().folders for path in root.glob("farm-*-*") if path.is_dir()]
    found |= {f"group {path}" for path in groups if path.name.split("-")[2] in mine}
    found |= {f"folder {path}" for path in settings.work.iterdir()}
    found |= {f"folder {path}" for path in settings.templates.glob("*/*/new-*")}
    found |= {f"file {path}" for path in (settings.cache / "downloads").glob("*.part")}
    return found


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Siege]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "tester", "FARM_ALLOW_NETWORKS": "127.0.0.0/8"})
    with ExitStack() as stack:
        embedded = stack.enter_context(running_farm(settings, build_slots=2))
        stack.callback(_foreign_worker(embedded))
        farm = stack.enter_context(Farm.connect(settings))
        server = stack.enter_context(http_server())
        for name in ("work", "templates", "cache"):
            (data / name).mkdir(exist_ok=True)
        folder = tmp_path_factory.mktemp("sources")
        idle = frozenset(left(settings))
        yield Siege(farm=farm, settings=settings, embedded=embedded, server=server, folder=folder, idle=idle)


def _foreign_worker(embedded: Embedded) -> Callable[[], None]:
    """One more worker, for the emulated arch; what ends it."""
    argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", "foreign@%h", "-c", "1"]
    argv += ["-Q", queues.build_queue(FOREIGN), "--without-gossip", "--without-mingle"]
    with (embedded.settings.data / "foreign.log").open("wb") as log:
        worker = subprocess.Popen(
            argv, env=embedded._environment("build"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
        )

    def end() -> None:
        worker.terminate()
        worker.wait(timeout=30)

    return end


def _spec(folder: Path, name: str, *, header: str = "", script: str = "", files: str = "") -> Path:
    """A git repository with one spec."""
    repository = folder / name
    repository.mkdir()
    tags = f"Name: {name}\nVersion: 1.0\nRelease: 1\nSummary: x\nLicense: MIT\n{header}\n"
    (repository / f"{name}.spec").write_text(f"{tags}%description\nx\n{script}\n%files\n{files}")
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit_all(repository, "Import")
    return repository


# --- before it runs ---------------------------------------------------------------------------------------------------


def test_while_dnf_fills_the_template(siege: Siege) -> None:
    """First, while there is none: so it is new for this arch."""
    build = siege.start(git=str(make_git("hello-noarch", siege.folder / "template")))
    until(lambda: siege.says("Installing  "), "dnf to install packages")
    siege.cancel(build)


def test_while_it_waits_for_a_worker(siege: Siege) -> None:
    build = siege.start(git=str(make_git("hello-c", siege.folder / "waits")), arches=[NOWHERE])
    until(lambda: _has(siege, build, "srpm", Status.FINISHED), "the source package")
    siege.cancel(build)


def test_while_it_is_dispatched_and_no_worker_takes_it(siege: Siege) -> None:
    worker = siege.embedded.processes["source"]
    os.kill(worker, signal.SIGSTOP)
    try:
        build = siege.start(git=str(make_git("hello-noarch", siege.folder / "dispatched")))
        until(lambda: _has(siege, build, "fetch", Status.DISPATCHED), "the message to be sent")
        siege.cancel(build)
    finally:
        os.kill(worker, signal.SIGCONT)
    other = siege.start(git=str(make_git("hello-noarch", siege.folder / "other")))
    assert other.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED, "the queue goes on behind it"
    assert siege.farm.build(build).outcome is Outcome.CANCELLED


def _has(siege: Siege, build: BuildHandle, kind: str, status: Status) -> bool:
    return any(step.kind == kind and step.status is status for step in siege.farm.build(build).steps)


# --- fetching ---------------------------------------------------------------------------------------------------------


def test_while_a_git_server_says_nothing(siege: Siege) -> None:
    asked, done = threading.Event(), threading.Event()

    def stall(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        done.wait(WITHIN_S)

    siege.server.answers["/stalls.git/info/refs"] = stall
    build = siege.start(git=siege.server.url("/stalls.git"))
    until(asked.is_set, "git to ask")
    try:
        siege.cancel(build)
    finally:
        done.set()


@pytest.mark.parametrize("is_silent", [False, True], ids=["trickles", "falls-silent"])
def test_while_a_download_makes_no_progress(siege: Siege, is_silent: bool) -> None:
    asked, done = threading.Event(), threading.Event()

    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        with suppress(OSError):
            while not done.wait(WITHIN_S if is_silent and asked.is_set() else 0.05):
                request.wfile.write(b"x")
                request.wfile.flush()
                asked.set()

    siege.server.answers["/slow.src.rpm"] = trickle
    build = siege.start(srpm=siege.server.url("/slow.src.rpm"))
    until(asked.is_set, "the first bytes to be sent")
    try:
        siege.cancel(build)
    finally:
        done.set()


def test_while_a_tarball_is_made_of_the_tree(siege: Siege) -> None:
    repository = _spec(siege.folder, "large", header="Source0: large-1.0.tar.xz")
    (repository / "data").write_bytes(os.urandom(40_000_000))
    git(repository, "config", "core.looseCompression", "0")
    commit_all(repository, "Add much")
    build = siege.start(git=str(repository))
    until(lambda: siege.says("$ xz "), "xz")
    siege.cancel(build)


# --- in a root --------------------------------------------------------------------------------------------------------


def test_while_the_source_package_is_made(siege: Siege) -> None:
    repository = _spec(siege.folder, "parses", header="%global x %(trap '' TERM; sleep 86397)\nBuildArch: noarch")
    build = siege.start(git=str(repository))
    until(lambda: _sleeps(86397), "rpmbuild to read the spec")
    siege.cancel(build)


def test_while_it_builds(siege: Siege) -> None:
    build = siege.start(srpm=make_srpm("never-ends", siege.folder))
    until(lambda: siege.says("never ends\n"), "the build")
    siege.cancel(build)


def test_while_it_builds_in_an_emulator(siege: Siege) -> None:
    need_emulator()
    build = siege.start(srpm=make_srpm("never-ends", siege.folder), arches=[FOREIGN])
    until(lambda: siege.says("never ends\n"), "the build")
    siege.cancel(build)


def _sleeps(seconds: int) -> bool:
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if words.read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
    return False


# --- after the build --------------------------------------------------------------------------------------------------

_HUGE_FILES = "/usr/share/huge\n"
_HUGE = """%define _binary_payload w0.ufdio
%global __os_install_post %{nil}
BuildArch: noarch"""
_HUGE_SCRIPT = """%install
mkdir -p %{buildroot}/usr/share/huge
truncate -s 400M %{buildroot}/usr/share/huge/file"""


def test_while_a_huge_package_is_stored_and_then_uploaded(siege: Siege) -> None:
    """Both in one, since it takes seconds to make: the first build is cancelled while its package is stored."""
    repository = str(_spec(siege.folder, "huge", header=_HUGE, script=_HUGE_SCRIPT, files=_HUGE_FILES))
    build = siege.start(git=repository)
    until(lambda: siege.says("phase collect") and siege.runs(build, "build"), "the package to be stored")
    siege.cancel(build)
    again = siege.start(git=repository)
    until(lambda: siege.says("phase publish"), "the package to be uploaded")
    siege.cancel(again)
    backend = open_repositories(siege.settings)
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=NATIVE)
    published = [one for version in backend.versions(name) for one in read_repository(version.url)]
    assert not [one for one in published if one.startswith("huge-")]
