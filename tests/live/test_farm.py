"""The whole farm as its users have it: Redis, Celery workers as processes, rpmbuild in roots, dnf, all of them real."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from farm import Farm
from farm.client import Event
from farm.config import Settings
from farm.errors import FarmAlreadyRunning
from farm.model.artifact import ArtifactKind
from farm.model.build import Step
from farm.model.outcome import Outcome, Status
from farm.targets.load import SHIPPED
from farm.up.embedded import Embedded, running_farm
from tests.leftovers import inside
from tests.packages import commit_all, git, make_git, make_srpm
from tests.promises import Stopwatch
from tests.waiting import until

pytestmark = pytest.mark.live
WITHIN_S = 90.0
_GREEDY = ("fills-memory", "fills-disk")
_PACKAGE_LIMITS = """
[[package_limits]]
packages = ["fills-memory", "fills-d*"]
memory_bytes = 134_217_728 # 128 MiB
disk_bytes = 67_108_864 # 64 MiB
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Settings:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    (data / "targets").mkdir()
    (data / "targets/demo.toml").write_text((SHIPPED / "demo.toml").read_text() + _PACKAGE_LIMITS)
    env = {
        "FARM_DATA": str(data),
        "FARM_TARGETS": str(data / "targets"),
        "FARM_LEASE_S": "3",
        "FARM_RETRY_DELAY_S": "0.2",
        "FARM_OWNER": "tester",
    }
    return Settings.from_env(env)


@pytest.fixture(scope="module")
def embedded(settings: Settings) -> Iterator[Embedded]:
    with running_farm(settings, build_slots=2) as embedded:
        yield embedded


@pytest.fixture
def farm(settings: Settings, embedded: Embedded) -> Iterator[Farm]:
    embedded.check()
    with Farm.connect(settings) as farm:
        yield farm


def _dnf(farm: Farm, *words: str) -> str:
    url = farm.repository("demo", "x86_64").baseurl
    argv = ["dnf", "-q", f"--repofrompath=farm,{url}", "--repo=farm", "--setopt=metadata_expire=0", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def test_a_src_rpm_becomes_a_package_that_dnf_finds(farm: Farm, tmp_path: Path) -> None:
    events: list[Event] = []
    build = farm.enqueue(srpm=make_srpm("hello-c", tmp_path), target="demo", arches=["x86_64"])
    result = build.wait(timeout_s=WITHIN_S, on_event=events.append)
    assert result.outcome is Outcome.SUCCEEDED, result.reason
    assert [str(step.kind) for step in result.steps] == ["fetch", "srpm", "build", "upload"]
    assert "hello-c" in _dnf(farm, "repoquery", "hello-c")
    assert events
    assert all(event.build == result.id for event in events)


def test_every_attempt_keeps_its_log_root_phases_and_memory(farm: Farm, tmp_path: Path) -> None:
    build = farm.enqueue(srpm=make_srpm("hello-c", tmp_path), target="demo", arches=["x86_64"])
    result = build.wait(timeout_s=WITHIN_S)
    for step in result.steps:
        (attempt,) = step.attempts
        assert [a for a in attempt.artifacts if a.kind is ArtifactKind.LOG], step.name
    built = next(step for step in result.steps if step.kind == "build").attempts[0]
    assert "rpmbuild" in {phase.name for phase in built.phases}
    assert built.peak_memory_bytes
    record = next(a for a in built.artifacts if a.kind is ArtifactKind.RECORD and "root" in a.name)
    text = farm.read(record).decode()
    assert "demo-build-" in text
    assert "digest" in text


def test_a_git_ref_is_resolved_and_its_commit_recorded(farm: Farm, tmp_path: Path) -> None:
    repository = make_git("libgreet", tmp_path)
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "v1")
    (repository / "later").write_text("not in the tag")
    commit_all(repository, "Go on")
    build = farm.enqueue(git=str(repository), ref="v1", target="demo", arches=["x86_64"])
    result = build.wait(timeout_s=WITHIN_S)
    assert (result.outcome, result.commit) == (Outcome.SUCCEEDED, commit), result.reason


def test_a_later_build_uses_what_an_earlier_one_made(farm: Farm, tmp_path: Path) -> None:
    for name in ("libgreet", "uses-libgreet"):
        result = farm.enqueue(srpm=make_srpm(name, tmp_path), target="demo", arches=["x86_64"]).wait(timeout_s=WITHIN_S)
        assert result.outcome is Outcome.SUCCEEDED, result.reason


@pytest.mark.parametrize(
    ("package", "outcome", "reason"),
    [
        ("fails-check", Outcome.FAILED, "FAIL"),
        ("does-not-parse", Outcome.FAILED, ""),
        ("unresolvable", Outcome.UNRESOLVABLE, "nothing provides"),
        ("exclusivearch-other", Outcome.EXCLUDED, "x86_64"),
    ],
)
def test_how_a_package_ends_has_a_word_and_a_reason(
    farm: Farm, tmp_path: Path, package: str, outcome: Outcome, reason: str
) -> None:
    source = make_git(package, tmp_path)  # a spec that does not parse makes no src.rpm
    result = farm.enqueue(git=str(source), target="demo", arches=["x86_64"]).wait(timeout_s=WITHIN_S)
    assert result.outcome is outcome, result.reason
    assert reason in (result.reason or "")
    assert all(len(step.attempts) <= 1 for step in result.steps), "a package's failure is not retried"


def test_a_ref_that_does_not_exist_fails_the_fetch(farm: Farm, tmp_path: Path) -> None:
    build = farm.enqueue(git=str(make_git("hello-noarch", tmp_path)), ref="nope", target="demo")
    result = build.wait(timeout_s=WITHIN_S)
    assert (result.outcome, result.steps[0].outcome) == (Outcome.FAILED, Outcome.FAILED)
    assert "nope" in (result.reason or "")


def test_a_running_build_is_cancelled_within_two_seconds(farm: Farm, settings: Settings, tmp_path: Path) -> None:
    build = farm.enqueue(srpm=make_srpm("never-ends", tmp_path), target="demo", arches=["x86_64"])
    until(lambda: _step(farm, build.id, "build").status is Status.RUNNING, "the build to run")
    until(lambda: inside(settings), "rpmbuild")
    watch = Stopwatch()
    farm.cancel(build)
    until(lambda: not inside(settings), "its processes to be gone")
    assert watch.within(2.0)
    result = build.wait(timeout_s=10)
    assert result.outcome is Outcome.CANCELLED
    assert "tester" in (result.reason or "")
    until(lambda: not list(settings.work.iterdir()), "its work folder to be gone")


def test_a_build_that_never_ends_is_timed_out(farm: Farm, tmp_path: Path) -> None:
    build = farm.enqueue(srpm=make_srpm("never-ends", tmp_path), target="demo", arches=["x86_64"], timeout_s=2)
    assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.TIMED_OUT


def test_a_package_has_the_limits_of_its_real_name_and_a_build_its_own(farm: Farm, tmp_path: Path) -> None:
    """The name of the repository, which is the guess, has none."""
    memory, disk = (str(make_git(name, tmp_path).rename(tmp_path / f"nameless{name}")) for name in _GREEDY)
    own = {"disk_bytes": 32 * 2**20}
    builds = [
        farm.enqueue(git=memory, target="demo", arches=["x86_64"]),
        farm.enqueue(git=disk, target="demo", arches=["x86_64"]),
        farm.enqueue(git=disk, target="demo", arches=["x86_64"], limits=own),
    ]
    ended = [build.wait(timeout_s=WITHIN_S) for build in builds]
    assert [build.outcome for build in ended] == [Outcome.OVER_LIMIT] * 3
    found = [re.search(r"build x86_64: .*limit of ([0-9]+ MiB);", build.reason or "") for build in ended]
    assert [one and one[1] for one in found] == ["128 MiB", "64 MiB", "32 MiB"]
    assert [dict(build.options.limits.given) for build in ended] == [{}, {}, own]
    for build in builds:
        assert b"[farm] over_limit: " in b"".join(farm.log(build, "build"))


def test_a_failed_build_is_retried_from_the_failed_step(farm: Farm, tmp_path: Path) -> None:
    build = farm.enqueue(srpm=make_srpm("fails-check", tmp_path), target="demo", arches=["x86_64"])
    first = build.wait(timeout_s=WITHIN_S)
    farm.retry(build, step="build", arch="x86_64")
    second = build.wait(timeout_s=WITHIN_S)
    assert second.outcome is Outcome.FAILED
    attempts = {step.kind: len(step.attempts) for step in second.steps}
    assert attempts["build"] == 2
    assert attempts["srpm"] == 1
    assert first.finished_at != second.finished_at


def test_a_worker_that_dies_in_the_middle_costs_an_attempt_and_nothing_else(
    farm: Farm, settings: Settings, embedded: Embedded, tmp_path: Path
) -> None:
    srpm = make_srpm("never-ends", tmp_path)
    build = farm.enqueue(srpm=srpm, target="demo", arches=["x86_64"], timeout_s=6)
    until(lambda: _step(farm, build.id, "build").status is Status.RUNNING, "the build to run")
    until(lambda: inside(settings), "rpmbuild")
    for child in _children(embedded.processes["build"]):
        os.kill(child, signal.SIGKILL)
    until(lambda: len(_step(farm, build.id, "build").attempts) == 2, "a second attempt")
    first = _step(farm, build.id, "build").attempts[0]
    assert first.outcome is Outcome.ERRORED
    assert "lease" in (first.reason or "") or "lost" in (first.reason or "")
    assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.TIMED_OUT  # the second attempt ran as the package asks


def test_redis_may_be_emptied_at_any_moment(farm: Farm, settings: Settings, tmp_path: Path) -> None:
    builds = [
        farm.enqueue(srpm=make_srpm(name, tmp_path), target="demo", arches=["x86_64"])
        for name in ("hello-c", "hello-noarch", "subpackages")
    ]
    with redis.Redis(unix_socket_path=str(settings.socket)) as client:
        until(lambda: farm.build(builds[0]).steps[0].status is not Status.READY, "the first step to go out")
        client.flushall()
    for build in builds:
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED


def test_a_second_farm_on_the_same_data_is_refused(settings: Settings, embedded: Embedded) -> None:
    with pytest.raises(FarmAlreadyRunning, match=str(os.getpid())), running_farm(settings):
        pass


def test_nothing_is_left_behind(farm: Farm, settings: Settings) -> None:
    assert not inside(settings)
    until(lambda: not list(settings.work.iterdir()), "the sweep of what a killed worker left")
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(settings.data) not in mounts


def _step(farm: Farm, build_id: int, kind: str) -> Step:
    """The step of that kind; until there is one, one that has not begun."""
    steps = [step for step in farm.build(build_id).steps if step.kind == kind]
    return steps[0] if steps else Step(kind=kind, arch=None, status=Status.WAITING)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
