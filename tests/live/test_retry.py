"""Retry on a real farm with real packages: from the failed step, with the recorded input, and no step runs twice.

The command line is used as a process, as a person has it.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.errors import WrongState
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import Step
from farm.model.outcome import Outcome, Status
from farm.model.work import AnyWork
from farm.queues import build_queue
from farm.up.embedded import running_farm
from tests.fake_workers import Answer, FakeWorkers, fail
from tests.packages import commit_all, make_git, make_srpm, package_dir
from tests.up import published, run_farm
from tests.waiting import until

pytestmark = pytest.mark.live
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Settings:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("r")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    return Settings.from_env({"FARM_DATA": str(data), "FARM_RETRY_DELAY_S": "0.1", "FARM_MAX_TROUBLES": "1"})


@pytest.fixture(scope="module")
def farm(settings: Settings) -> Iterator[Farm]:
    with running_farm(settings, build_slots=2), Farm.connect(settings) as farm:
        yield farm


def step(farm: Farm, build: int, kind: str, arch: Arch | None = None) -> Step:
    wanted = arch or (None if kind in ("fetch", "srpm") else Arch.X86_64)
    return next(step for step in farm.build(build).steps if (step.kind, step.arch) == (kind, wanted))


def attempts(farm: Farm, build: int) -> dict[str, int]:
    return {step.name: len(step.attempts) for step in farm.build(build).steps}


def digests(step: Step, kind: ArtifactKind) -> set[str]:
    (last,) = step.attempts[-1:]
    return {item.sha256 for item in last.artifacts if item.kind is kind}


def retry(settings: Settings, build: int, *words: str) -> None:
    done = run_farm(settings, "retry", str(build), *words)
    assert done.returncode == 0, done.stderr


def refused(settings: Settings, *words: str) -> str:
    done = run_farm(settings, *words)
    assert done.returncode == WrongState.exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def log(settings: Settings, build: int, kind: str, attempt: int, *words: str) -> str:
    done = run_farm(settings, "log", str(build), "--step", kind, "--attempt", str(attempt), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_that_failed_is_run_again_with_the_source_that_was_recorded(
    farm: Farm, settings: Settings, tmp_path: Path
) -> None:
    """The missing package is there now; the git branch has moved on to a spec that does not parse."""
    source = make_git("uses-libgreet", tmp_path)
    build = farm.enqueue(git=str(source), ref="main", target="demo", arches=["x86_64"])
    first = build.wait(timeout_s=WITHIN_S)
    assert first.outcome is Outcome.UNRESOLVABLE, first.reason
    srpm = digests(step(farm, build.id, "srpm"), ArtifactKind.SRPM)
    shutil.copy(package_dir("does-not-parse") / "does-not-parse.spec", source / "uses-libgreet.spec")
    commit_all(source, "Break it")
    provider = farm.enqueue(srpm=make_srpm("libgreet", tmp_path), target="demo", arches=["x86_64"])
    assert provider.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED

    retry(settings, build.id)
    second = build.wait(timeout_s=WITHIN_S)
    assert second.outcome is Outcome.SUCCEEDED, second.reason
    assert attempts(farm, build.id) == {"fetch": 1, "srpm": 1, "build x86_64": 2, "upload x86_64": 1}
    assert (second.commit, second.nevra) == (first.commit, first.nevra)
    assert digests(step(farm, build.id, "srpm"), ArtifactKind.SRPM) == srpm
    sources = settings.repositories_dir / "demo/source/packages"
    assert {path.parent.name for path in sources.rglob("uses-libgreet*.src.rpm")} == srpm

    assert "nothing provides libgreet-devel" in log(settings, build.id, "build", 1)
    logs = [log(settings, build.id, "build", number, "--arch", "x86_64") for number in (1, 2)]
    assert [f"attempt {build.id}.build.x86_64.{number}" in logs[number - 1] for number in (1, 2)] == [True, True]
    assert "gcc" in logs[1]
    assert "no step of build" in refused(settings, "retry", str(build.id))


def test_trouble_with_the_upload_costs_no_second_build(farm: Farm, settings: Settings, tmp_path: Path) -> None:
    defines = {"serial": "7", "nap_s": "2"}
    build = farm.enqueue(srpm=make_srpm("naps", tmp_path), target="demo", arches=["x86_64"], defines=defines)
    state = settings.repositories_dir / "demo/x86_64/os/state"
    until(lambda: len(farm.build(build.id).steps) == 4, "the build step")
    until(lambda: step(farm, build.id, "build").status is Status.RUNNING, "the build to run")
    state.parent.mkdir(parents=True, exist_ok=True)
    kept = state.rename(state.with_name("kept")) if state.exists() else None
    state.touch()  # where a folder should be
    troubled = build.wait(timeout_s=WITHIN_S)
    assert (troubled.outcome, len(step(farm, build.id, "upload").attempts)) == (Outcome.ERRORED, 2)
    assert "naps-7-1.demo1.x86_64.rpm" not in (published(settings) if kept else [])
    built = step(farm, build.id, "build")
    state.unlink()
    if kept:
        kept.rename(state)

    retry(settings, build.id)
    assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert attempts(farm, build.id) == {"fetch": 1, "srpm": 1, "build x86_64": 1, "upload x86_64": 3}
    assert published(settings).count("naps-7-1.demo1.x86_64.rpm") == 1
    packages = settings.repositories_dir / "demo/x86_64/os/packages"
    assert {path.parent.name for path in packages.rglob("naps-7*.rpm")} == digests(built, ArtifactKind.RPM)
    assert log(settings, build.id, "upload", 1) != log(settings, build.id, "upload", 3)

    # Once more, though it succeeded: the same package, and still there once.
    retry(settings, build.id, "--step", "upload")
    assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert published(settings).count("naps-7-1.demo1.x86_64.rpm") == 1


def test_one_arch_is_run_again_and_the_other_is_left_alone(farm: Farm, settings: Settings, tmp_path: Path) -> None:
    may_end = threading.Event()

    def answer(work: AnyWork) -> Answer:
        if work.attempt.endswith(".2"):
            may_end.wait(WITHIN_S)
        return fail(f"cc: {work.attempt} is no good")

    elsewhere = FakeWorkers(settings, slots=1, names=(build_queue(Arch.AARCH64),), answer=answer, host="two")
    with elsewhere:
        srpm = make_srpm("naps", tmp_path)
        build = farm.enqueue(srpm=srpm, target="demo", arches=["x86_64", "aarch64"], defines={"serial": "8"})
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.FAILED
        once = {"fetch": 1, "srpm": 1, "build x86_64": 1, "upload x86_64": 1, "build aarch64": 1, "upload aarch64": 0}
        assert attempts(farm, build.id) == once

        number = str(build.id)
        assert "no step of build" in refused(settings, "retry", number, "--arch", "x86_64")
        assert "runs once for all arches" in refused(settings, "retry", number, "--step", "srpm", "--arch", "aarch64")
        words = refused(settings, "retry", number, "--step", "upload", "--arch", "aarch64")
        assert "needs the results of build aarch64, which is failed; retry that instead" in words

        elsewhere.announce()
        retry(settings, build.id, "--arch", "aarch64")
        until(lambda: attempts(farm, build.id)["build aarch64"] == 2, "the second attempt")
        until(lambda: step(farm, build.id, "build", Arch.AARCH64).status is Status.RUNNING, "it to run")
        assert f"farm cancel {number}" in refused(settings, "retry", number)
        may_end.set()
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.FAILED
        assert attempts(farm, build.id) == {**once, "build aarch64": 2}

        elsewhere.announce()
        retry(settings, build.id, "--step", "build")
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.FAILED
        assert attempts(farm, build.id) == {**once, "build aarch64": 3}, "of one kind, only what did not succeed"

    retry(settings, build.id, "--step", "build", "--arch", "x86_64")
    until(lambda: attempts(farm, build.id)["upload x86_64"] == 2, "the other arch, which was named")
    assert attempts(farm, build.id)["build aarch64"] == 3
    assert "there is no build 999" in run_farm(settings, "retry", "999").stderr
