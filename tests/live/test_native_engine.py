"""The native engine with a real root, dnf, rpmbuild and the demo distribution; and its leftovers."""

import itertools
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import createrepo_c
import pytest
from plumbum import local

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import DiskFull, LeaseLost, NetworkTrouble, RootTrouble
from farm.formats.rpm.settings import RpmSettings
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from tests import contexts
from tests.packages import package_dir
from tests.promises import Stopwatch
from tests.waiting import until
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.base import BuildRequest, Made, SourceRequest
from workers.formats.registry import sweep
from workers.formats.rpm.engines import engine_for
from workers.formats.rpm.native import NativeEngine
from workers.isolation import cgroups, pids
from workers.isolation.pids import owner
from workers.isolation.sandbox import build_user_ids
from workers.isolation.scratch import scratch_name

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the native engine mounts overlays and needs root"),
]

_PLAIN = BuildOptions()
_attempts = itertools.count(1)


@pytest.fixture(scope="session")
def demo_target(demo_distribution: Path) -> Target:
    return contexts.demo_target(demo_distribution)


@dataclass
class Bench:
    """The engine with one data folder, so that the template is made once for all tests here."""

    settings: Settings
    target: Target
    log: bytes = b""
    phases: list[str] = field(default_factory=list)

    @property
    def engine(self) -> NativeEngine:
        engine = engine_for(self.target, self.settings)
        assert isinstance(engine, NativeEngine)
        return engine

    @contextmanager
    def context(self, stop: threading.Event | None = None, **limits: int) -> Iterator[StepContext]:
        self.settings.work.mkdir(parents=True, exist_ok=True)
        folder = self.settings.work / f"attempt{next(_attempts)}"
        (folder / "work").mkdir(parents=True)
        wanted = replace(self.target.limits, **limits)
        with StepLog(folder / "log", limit_bytes=wanted.log_bytes) as log:
            context = StepContext(
                attempt=folder.name,
                workdir=folder / "work",
                log=log,
                store=DirectoryStore(self.settings.artifacts),
                settings=self.settings,
                limits=wanted,
                stop=stop or threading.Event(),
                deadline=time.monotonic() + wanted.wall_s,
            )
            try:
                yield context
            finally:
                assert {path.name for path in context.workdir.iterdir()} <= {"results", "sources"}
                self.log, self.phases = log.path.read_bytes(), [phase.name for phase in context.phases]

    def srpm(self, name: str, options: BuildOptions = _PLAIN) -> Made:
        with self.context() as context:
            sources = context.workdir / "sources"
            shutil.copytree(package_dir(name), sources)
            request = SourceRequest(
                target=self.target,
                arch=Arch.X86_64,
                options=options,
                sources=sources,
                recipe=f"{name}.spec",
                source_date_epoch=1767323045,
            )
            return self.engine.make_source(request, context)

    def rpms(
        self,
        srpm: Made,
        options: BuildOptions = _PLAIN,
        stop: threading.Event | None = None,
        repositories: tuple[tuple[str, str], ...] = (),
        requires_arch: Arch | None = None,
        **limits: int,
    ) -> Made:
        assert srpm.facts is not None, srpm.reason
        (made,) = srpm.results.iterdir()
        request = BuildRequest(
            target=self.target,
            arch=Arch.X86_64,
            options=options,
            source=made,
            requires=srpm.facts.requires,
            repositories=repositories,
            requires_arch=requires_arch,
        )
        with self.context(stop, **limits) as context:
            return self.engine.build(request, context)

    def build(self, name: str, **arguments: Any) -> Made:
        return self.rpms(self.srpm(name), **arguments)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("farm")


@pytest.fixture
def bench(demo_target: Target, data: Path) -> Iterator[Bench]:
    """Afterwards there is no group, mount, process or scratch folder of any session."""
    yield Bench(settings=Settings.from_env({"FARM_DATA": str(data)}), target=demo_target)
    assert leftovers(data) == []


def leftovers(data: Path) -> list[str]:
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(data) in line]
    mine = f"-{os.getpid()}-"
    groups = [str(path) for root in cgroups.place().folders for path in root.glob("farm-*") if mine in path.name]
    rooms = [str(path) for path in data.glob("work/*/*/room-*")]
    return mounts + groups + rooms + [f"process {pid}" for pid in of_build_user()]


def of_build_user() -> list[str]:
    """The processes in a session of this test's process: their root is one of its templates."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        uid = re.search(r"^Uid:\t(\d+)\t", text, re.MULTILINE)
        if uid and int(uid[1]) in build_user_ids(Settings.first_root_id) and is_in_a_group_of_mine(status.parent):
            found.append(status.parent.name)
    return found


def is_in_a_group_of_mine(process: Path) -> bool:
    return f"farm-{pids.pid_namespace()}-{os.getpid()}-" in read(process / "cgroup")


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def names(run: Made) -> list[str]:
    return sorted(path.name for path in run.results.iterdir())


def test_a_trivial_c_package_builds_with_debuginfo_and_debugsource(bench: Bench) -> None:
    srpm = bench.srpm("hello-c")
    assert srpm.outcome is Outcome.SUCCEEDED, bench.log
    assert srpm.facts is not None
    assert srpm.facts.identity == "hello-c-1.0-1.demo1.src"
    assert (srpm.facts.requires, srpm.facts.is_independent) == (("gcc",), False)
    run = bench.rpms(srpm)
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert names(run) == [f"hello-c-{part}1.0-1.demo1.x86_64.rpm" for part in ("", "debuginfo-", "debugsource-")]
    assert bench.phases == ["template", "layer", "rpmbuild"]
    assert (run.peak_memory_bytes or 0) > 2**20


def test_the_root_is_recorded_with_each_packages_digest(bench: Bench) -> None:
    run = bench.build("hello-c")
    recorded = {package.identity.rsplit("-", 2)[0]: package.digest for package in run.root}
    assert {"demo-build", "bash", "gcc"} <= set(recorded)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in recorded.values())


def test_a_src_rpm_is_made_again_for_the_target(bench: Bench) -> None:
    (first,) = bench.srpm("hello-c").results.iterdir()
    other = replace(bench.target, table=RpmSettings(macros=(("dist", ".other2"),)).table)
    with bench.context() as context:
        request = SourceRequest(target=other, arch=Arch.X86_64, options=BuildOptions(), package=first)
        run = bench.engine.make_source(request, context)
    assert run.facts is not None, bench.log
    assert run.facts.identity == "hello-c-1.0-1.other2.src"
    assert names(run) == ["hello-c-1.0-1.other2.src.rpm"]


def test_a_spec_that_does_not_parse_shows_rpms_message(bench: Bench) -> None:
    run = bench.srpm("does-not-parse")
    assert (run.outcome, run.facts) == (Outcome.FAILED, None)
    assert (run.reason or "").startswith("error: ")


def test_a_requirement_that_nothing_provides_is_named(bench: Bench) -> None:
    run = bench.build("unresolvable")
    assert run.outcome is Outcome.UNRESOLVABLE
    assert run.reason == "nothing provides no-such-library-devel >= 4.2"
    assert names(run) == []


def test_an_arch_that_the_spec_excludes_is_excluded(bench: Bench) -> None:
    srpm = bench.srpm("exclusivearch-other")
    assert srpm.outcome is Outcome.SUCCEEDED, "the source package is made on any arch"
    assert srpm.facts is not None
    assert srpm.facts.exclusive_arches == ("s390x",)
    assert bench.rpms(srpm).outcome is Outcome.EXCLUDED


def test_dynamic_requirements_are_asked_for_and_installed(bench: Bench) -> None:
    run = bench.build("dynamic-buildrequires")
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert bench.phases == ["template", "layer", "rpmbuild", "layer", "rpmbuild"]


def test_requirements_that_another_one_brings_are_asked_for_and_recorded(bench: Bench) -> None:
    run = bench.build("macro-requires")
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert run.rounds == (("bc",), ("bc", "python3"))


def test_requirements_of_another_arch_are_not_asked_for(bench: Bench) -> None:
    """The first round is in the template, which says what this arch needs; the list has what no package provides."""
    srpm = bench.srpm("hello-c")
    assert srpm.facts is not None
    other = replace(srpm, facts=replace(srpm.facts, requires=("libasan8(aarch-64)",)))
    assert bench.rpms(other).outcome is Outcome.UNRESOLVABLE
    run = bench.rpms(other, requires_arch=Arch.AARCH64)
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert run.rounds == ((),), "gcc is in the template"


def test_a_failure_of_a_recipe_asks_for_no_other_round(bench: Bench) -> None:
    run = bench.build("fails-check", requires_arch=Arch.AARCH64)
    assert (run.outcome, run.rounds) == (Outcome.FAILED, ((),)), bench.log


def test_a_layer_is_made_once(bench: Bench) -> None:
    srpm = bench.srpm("dynamic-buildrequires")
    bench.rpms(srpm)
    bench.rpms(srpm)
    assert b"$ dnf" not in bench.log


def test_a_build_uses_what_another_build_made(bench: Bench, tmp_path: Path) -> None:
    made = bench.build("libgreet")
    assert made.outcome is Outcome.SUCCEEDED, bench.log
    repository = tmp_path / "repository"
    shutil.copytree(made.results, repository)
    # The wheel's own: its script is on the PATH of an activated environment only.
    tool = Path(createrepo_c.__file__).parent / "data/bin/createrepo_c"
    local[str(tool)]["--quiet", str(repository)].run(stdin=None)
    run = bench.build("uses-libgreet", repositories=(("farm", f"file://{repository}"),))
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert [package.identity for package in run.root if "libgreet-devel" in package.identity]


def test_a_repository_that_is_not_there_is_trouble_and_not_the_packages_fault(bench: Bench, tmp_path: Path) -> None:
    gone = f"file://{tmp_path}/gone"
    with pytest.raises(NetworkTrouble, match="repository farm has no"):
        bench.build("unresolvable", repositories=(("farm", gone),))


def test_a_disk_that_is_full_is_the_hosts_trouble(bench: Bench) -> None:
    """Within its own limit, and too quick for the watch on the disk."""
    srpm = bench.srpm("fills-disk")
    folder = bench.settings.work / f"attempt{next(_attempts) + 1}"
    folder.mkdir()
    local["mount"]("-t", "tmpfs", "-o", "size=48m", "tmpfs", folder)
    try:
        with pytest.raises(DiskFull, match=r"the disk (?:of .* is|was) nearly full"):
            bench.rpms(srpm)
        assert b"No space left on device" in bench.log
    finally:
        local["umount"](folder)


def test_a_sandbox_that_is_killed_from_outside_is_not_the_packages_fault(bench: Bench) -> None:
    srpm = bench.srpm("never-ends")

    def kill() -> None:
        until(of_build_user, "a process of the build user's")
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes()
                if words.startswith(b"bwrap") and is_in_a_group_of_mine(folder):
                    os.kill(int(folder.name), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RootTrouble, match="killed by signal 9 from outside"):
        bench.rpms(srpm)
    thread.join()


def test_the_flags_are_those_that_the_targets_macros_name(bench: Bench) -> None:
    run = bench.build("flags")
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert re.findall(rb"^the flags are: (.*)$", bench.log, re.MULTILINE) == [
        b"-O2 -g -pipe -Wall -Werror=format-security -Wp,-D_FORTIFY_SOURCE=2 -fstack-protector-strong"
    ]


def test_there_is_no_network(bench: Bench) -> None:
    run = bench.build("tries-network")
    assert run.outcome is Outcome.FAILED
    assert b"REACHED" not in bench.log
    assert b"interfaces: lo" in bench.log


@pytest.mark.parametrize("name", ["reads-outside", "writes-outside"])
def test_nothing_outside_the_root_can_be_read_or_written(bench: Bench, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    canary.chmod(0o666)
    options = BuildOptions(defines=(("canary", str(canary)),))
    run = bench.rpms(bench.srpm(name, options), options)
    reached = [line for line in bench.log.splitlines() if line.startswith(b"REACHED")]
    assert (reached, run.outcome) == ([], Outcome.SUCCEEDED)
    assert canary.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_many_files_count_as_one_large_one(bench: Bench) -> None:
    """The file size limit does not see them; the watch does, within seconds."""
    spec = "Name: many\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\n%description\n%build\n"
    spec += "i=0; while :; do i=$((i + 1)); dd if=/dev/zero of=/tmp/$i bs=1M count=8 2> /dev/null; done\n"
    with bench.context() as context:
        (context.workdir / "sources").mkdir()
        (context.workdir / "sources/many.spec").write_text(spec)
        request = SourceRequest(
            target=bench.target,
            arch=Arch.X86_64,
            options=BuildOptions(),
            sources=context.workdir / "sources",
            recipe="many.spec",
        )
        srpm = bench.engine.make_source(request, context)
    run = bench.rpms(srpm, disk_bytes=32 * 2**20, wall_s=60)
    assert (run.outcome, run.reason) == (
        Outcome.OVER_LIMIT,
        "used more disk than its limit of 32 MiB; --limit disk=… or the target's limits raise it",
    )


def test_stop_ends_everything_within_two_seconds(bench: Bench) -> None:
    srpm = bench.srpm("never-ends")
    stop, caught = threading.Event(), []

    def build() -> None:
        with pytest.raises(LeaseLost) as error:
            bench.rpms(srpm, stop=stop)
        caught.append(error.value)

    thread = threading.Thread(target=build)
    thread.start()
    until(of_build_user, "a process of the build user's")
    watch = Stopwatch()
    stop.set()
    thread.join()
    assert watch.within(2)
    assert caught


def test_two_at_once_share_one_template(bench: Bench) -> None:
    srpm = bench.srpm("hello-c")
    made: list[Made] = []
    threads = [threading.Thread(target=lambda: made.append(bench.rpms(srpm))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.outcome for run in made] == [Outcome.SUCCEEDED] * 2


def test_results_are_given_back_as_hostile_as_they_are(bench: Bench) -> None:
    run = bench.build("evil-names")
    assert run.outcome is Outcome.SUCCEEDED
    assert any(not path.name.isprintable() for path in run.results.iterdir())
    assert any(path.is_symlink() for path in run.results.iterdir())


def test_a_dead_workers_leftovers_are_swept(bench: Bench) -> None:
    dead = bench.settings.work / "attempt" / "work" / scratch_name("room", 1).replace(owner(), "4194303-1") / "build"
    dead.mkdir(parents=True)
    assert sweep(bench.settings) >= 1
    assert not dead.parent.exists()
