"""The contract of every build engine, tested on each: the native one in real roots, and mock's with a stand-in that
builds with the host's rpmbuild. With FARM_TEST_MOCK_CONFIG, on a host that has mock, also on mock itself."""

import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import LeaseLost
from farm.formats.rpm.rpmfile import read_binary
from farm.formats.rpm.settings import MockSettings, RpmSettings
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import EngineName, RepositorySource, Target
from tests.packages import make_srpm, package_dir
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.formats.base import BuildRequest, Made, SourceRequest
from workers.formats.rpm.engine import BuildEngine
from workers.formats.rpm.mock.engine import MockEngine
from workers.formats.rpm.mock.host import MockHost
from workers.formats.rpm.native import NativeEngine
from workers.isolation import cgroups
from workers.isolation.cgroups import CgroupKind

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="a root, and a network namespace, take root"),
]

STAND_IN = Path(__file__).parent.parent / "tools/mock"
_PLAIN = BuildOptions()
_MACROS = (("dist", ".t1"),)
_attempts = itertools.count(1)


@dataclass
class Bench:
    """An engine with a data folder, and the log of its last attempt."""

    engine: BuildEngine
    settings: Settings
    target: Target
    log: bytes = b""

    @contextmanager
    def context(self, stop: threading.Event | None = None, **limits: int) -> Iterator[StepContext]:
        folder = self.settings.work / f"contract{next(_attempts)}"
        (folder / "work").mkdir(parents=True)
        wanted = replace(self.target.limits, **limits)
        with StepLog(folder / "log", limit_bytes=wanted.log_bytes) as log:
            try:
                yield StepContext(
                    attempt=folder.name,
                    workdir=folder / "work",
                    log=log,
                    store=DirectoryStore(self.settings.artifacts),
                    settings=self.settings,
                    limits=wanted,
                    stop=stop or threading.Event(),
                    deadline=time.monotonic() + wanted.wall_s,
                )
            finally:
                assert {path.name for path in (folder / "work").iterdir()} <= {"results", "sources"}
                self.log = log.path.read_bytes()

    def srpm(self, name: str, options: BuildOptions = _PLAIN) -> Made:
        with self.context() as context:
            sources = context.workdir / "sources"
            shutil.copytree(package_dir(name), sources)
            request = SourceRequest(
                target=self.target, arch=Arch.X86_64, options=options, sources=sources, recipe=f"{name}.spec"
            )
            return self.engine.make_source(request, context)

    def again(self, srpm: Path) -> Made:
        with self.context() as context:
            request = SourceRequest(target=self.target, arch=Arch.X86_64, options=_PLAIN, package=srpm)
            return self.engine.make_source(request, context)

    def rpms(
        self, made: Made, options: BuildOptions = _PLAIN, stop: threading.Event | None = None, **limits: int
    ) -> Made:
        assert made.facts is not None, (made.reason, self.log)
        (srpm,) = made.results.iterdir()
        with self.context(stop, **limits) as context:
            request = BuildRequest(
                target=self.target,
                arch=Arch.X86_64,
                options=options,
                source=srpm,
                requires=made.facts.requires,
                repositories=(),
            )
            return self.engine.build(request, context)


def _target(name: str, **more: object) -> Target:
    plain = Target(
        name=name,
        distribution="demo",
        release="1",
        arches=(Arch.X86_64,),
        repositories=(),
        packages=("demo-build",),
        table=RpmSettings(macros=_MACROS).table,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def native(demo_distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path_factory.mktemp("native"))})
    source = RepositorySource(name="demo", baseurl=f"file://{demo_distribution}/{{arch}}", gpgcheck=False)
    return Bench(engine=NativeEngine(settings), settings=settings, target=_target("demo", repositories=(source,)))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("mock")
    program = Path(shutil.copy(STAND_IN, folder / "mock"))
    settings = Settings.from_env({"FARM_DATA": str(folder / "data")})
    mock = MockSettings(config="demo-{arch}", isolation="simple")
    target = _target("mocked", engine=EngineName.MOCK, table=RpmSettings(macros=_MACROS, mock=mock).table)
    host = MockHost(program=program, version="6.7", account=None, can_nspawn=False)
    return Bench(engine=MockEngine(settings, host=host), settings=settings, target=target)


@pytest.fixture(scope="module")
def real_mock() -> Iterator[Bench]:
    config = os.environ.get("FARM_TEST_MOCK_CONFIG")
    if not config or shutil.which("mock") is None:
        pytest.skip("needs mock, and in FARM_TEST_MOCK_CONFIG the name of a configuration for x86_64 to build with")
    table = RpmSettings(macros=_MACROS, mock=MockSettings(config=config)).table
    target = _target("mocked", engine=EngineName.MOCK, table=table)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)  # unlike pytest's own folders, it lets mock's account in
        settings = Settings.from_env({"FARM_DATA": folder})
        yield Bench(engine=MockEngine(settings), settings=settings, target=target)


@pytest.fixture(params=["native", "stand_in", "real_mock"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Afterwards no session's folder is left, and no mount or process with the data folder."""
    found: Bench = request.getfixturevalue(request.param)
    yield found
    rooms = [str(path) for pattern in ("*/room-*", "*/*/room-*") for path in found.settings.work.glob(pattern)]
    assert rooms + _using(found.settings.data) == []


def _using(data: Path) -> list[str]:
    """Mounts and processes, this one's aside, that have to do with a folder."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(data) in line]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.name != str(os.getpid()) and str(data).encode() in (folder / "cmdline").read_bytes():
                found.append(f"process {folder.name}: {(folder / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    return found


def _names(run: Made) -> list[str]:
    return sorted(path.name for path in run.results.iterdir())


def test_a_source_package_is_made_with_the_targets_macros_and_its_header_read(bench: Bench) -> None:
    made = bench.srpm("hello-c")
    assert made.outcome is Outcome.SUCCEEDED, bench.log
    assert _names(made) == ["hello-c-1.0-1.t1.src.rpm"]
    assert made.facts is not None
    assert (made.facts.identity, made.facts.requires) == ("hello-c-1.0-1.t1.src", ("gcc",))
    assert made.facts.is_independent is False


def test_a_source_package_made_elsewhere_is_made_again(bench: Bench, tmp_path: Path) -> None:
    given = make_srpm("hello-noarch", tmp_path, defines=(("dist", ".elsewhere"),))
    made = bench.again(given)
    assert made.outcome is Outcome.SUCCEEDED, bench.log
    assert _names(made) == ["hello-noarch-1.0-1.t1.src.rpm"]
    assert made.facts is not None
    assert made.facts.is_independent is True


def test_binary_packages_come_of_it_and_the_root_is_known(bench: Bench) -> None:
    made = bench.srpm("hello-c")
    run = bench.rpms(made)
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert "hello-c-1.0-1.t1.x86_64.rpm" in _names(run)
    assert not [name for name in _names(run) if name.endswith(".src.rpm")]
    package = read_binary(run.results / "hello-c-1.0-1.t1.x86_64.rpm")
    assert package.source == "hello-c-1.0-1.t1.src.rpm"
    bash = [package for package in run.root if package.identity.startswith("bash-")]
    assert len(bash) == 1
    assert len(bash[0].digest) == 64
    assert (run.peak_memory_bytes or 0) > 2**20


def test_options_reach_the_spec(bench: Bench) -> None:
    options = BuildOptions(with_=("extra",), without=("docs",), defines=(("flavour", "sweet & %{_arch}"),))
    run = bench.rpms(bench.srpm("options", options), options)
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert _names(run) == ["options-1.0-1.t1.noarch.rpm", "options-extra-1.0-1.t1.noarch.rpm"]


def test_a_spec_that_does_not_parse_fails(bench: Bench) -> None:
    made = bench.srpm("does-not-parse")
    assert (made.outcome, made.facts, _names(made)) == (Outcome.FAILED, None, [])
    assert b"error: " in bench.log


@pytest.mark.parametrize("name", ["fails-prep", "fails-build", "fails-check", "unpackaged-files"])
def test_a_build_that_fails_has_no_results_and_its_words_are_in_the_log(bench: Bench, name: str) -> None:
    run = bench.rpms(bench.srpm(name))
    assert (run.outcome, _names(run)) == (Outcome.FAILED, []), bench.log
    assert b"error: " in bench.log


def test_a_requirement_without_a_provider_is_named(bench: Bench) -> None:
    run = bench.rpms(bench.srpm("unresolvable"))
    assert (run.outcome, run.reason) == (
        Outcome.UNRESOLVABLE,
        "nothing provides no-such-library-devel >= 4.2",
    ), bench.log


def test_generated_requirements_are_installed(bench: Bench) -> None:
    run = bench.rpms(bench.srpm("dynamic-buildrequires"))
    assert run.outcome is Outcome.SUCCEEDED, bench.log
    assert _names(run) == ["dynamic-buildrequires-1.0-1.t1.noarch.rpm"]


def test_an_arch_that_the_spec_excludes_is_excluded(bench: Bench) -> None:
    made = bench.srpm("exclusivearch-other")
    assert made.facts is not None, "the source package is made on any arch"
    assert made.facts.exclusive_arches == ("s390x",)
    run = bench.rpms(made)
    assert (run.outcome, run.reason) == (Outcome.EXCLUDED, "Architecture is not included: x86_64"), bench.log


def test_there_is_no_network_but_loopback(bench: Bench) -> None:
    run = bench.rpms(bench.srpm("tries-network"))
    assert run.outcome is Outcome.FAILED
    assert b"REACHED" not in bench.log
    assert b"interfaces: lo \n" in bench.log


def test_a_build_without_end_ends_at_its_limit(bench: Bench) -> None:
    made = bench.srpm("never-ends")
    run = bench.rpms(made, wall_s=2)
    assert (run.outcome, _names(run)) == (Outcome.TIMED_OUT, []), bench.log


def test_a_silent_build_that_does_nothing_is_stalled(bench: Bench) -> None:
    run = bench.rpms(bench.srpm("never-ends"), silence_s=1)
    assert run.outcome is Outcome.STALLED, bench.log


def test_a_silent_build_that_computes_outlives_its_limit_of_silence(bench: Bench) -> None:
    options = BuildOptions(defines=(("busy", "1"),))
    run = bench.rpms(bench.srpm("never-ends", options), options, silence_s=1, wall_s=4)
    assert run.outcome is Outcome.TIMED_OUT, bench.log


@pytest.mark.parametrize(
    ("name", "limits", "words"),
    [
        ("fills-memory", {"memory_bytes": 128 * 2**20}, "used more memory than its limit of 128 MiB"),
        ("fills-disk", {"disk_bytes": 32 * 2**20}, "wrote a file larger than its disk limit of 32 MiB"),
        ("forks-without-end", {"processes": 100}, "wanted more processes and threads than its limit of 100"),
    ],
)
def test_a_command_that_takes_more_than_its_limit_is_over_it(
    bench: Bench, name: str, limits: dict[str, int], words: str
) -> None:
    if cgroups.place().kind is CgroupKind.NONE and name != "fills-disk":
        pytest.skip("without cgroups it is not told from another failure")
    run = bench.rpms(bench.srpm(name), **limits)
    assert (run.outcome, _names(run)) == (Outcome.OVER_LIMIT, []), bench.log
    assert (run.reason or "").startswith(words)


def test_a_flood_of_words_ends_and_the_log_is_cut(bench: Bench) -> None:
    run = bench.rpms(bench.srpm("floods-log"), log_bytes=100_000)
    assert (run.outcome, "flooded the log" in (run.reason or "")) == (Outcome.OVER_LIMIT, True), run.reason
    assert len(bench.log) < 101_000


def test_stop_ends_it(bench: Bench) -> None:
    made = bench.srpm("never-ends")
    stop, stopped = threading.Event(), threading.Event()

    def build() -> None:
        with pytest.raises(LeaseLost):
            bench.rpms(made, stop=stop)
        stopped.set()

    thread = threading.Thread(target=build)
    thread.start()
    logs = bench.settings.work
    until = time.monotonic() + 30
    while not any(b"never ends\n" in log.read_bytes() for log in logs.glob("contract*/log")):
        assert time.monotonic() < until
        threading.Event().wait(0.02)
    stop.set()
    assert stopped.wait(60)
    thread.join()
