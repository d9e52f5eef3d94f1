"""Hosts taken out of work and back, by people and by the farm; old and new workers side by side. All of it real."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import wire
from farm.model.build import Step
from farm.model.outcome import Outcome, Status
from farm.model.worker import HoldKind
from tests.hosts_farm import BUILD, HostsFarm, hosts_farm
from tests.leftovers import inside
from tests.packages import make_srpm
from tests.waiting import until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[HostsFarm]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    with hosts_farm(tmp_path_factory.mktemp("h"), demo_distribution, {"FARM_RETRY_DELAY_S": "0.2"}) as place:
        place.start_worker("build@one", BUILD)
        place.start_worker("build@two", BUILD)
        yield place


@pytest.fixture(autouse=True)
def _nothing_is_held(place: HostsFarm) -> Iterator[None]:
    yield
    for host in {hold.host for hold in place.farm.host_holds().values()}:
        place.farm.undrain_host(host)


def build_step(place: HostsFarm, build_id: int) -> Step:
    steps = [step for step in place.farm.build(build_id).steps if step.kind == "build"]
    return steps[0] if steps else Step(kind="build", arch=None, status=Status.WAITING)


def runs_on(place: HostsFarm, build_id: int) -> str:
    """The worker that builds it, when rpmbuild is under way."""
    until(lambda: build_step(place, build_id).status is Status.RUNNING and inside(place.settings), "it to run")
    attempt = build_step(place, build_id).attempts[-1]
    assert attempt.worker is not None
    return attempt.worker


def enqueue(place: HostsFarm, tmp_path: Path, package: str = "hello-noarch", *, nap_s: int = 0) -> int:
    defines = [("nap_s", str(nap_s))]
    return place.farm.enqueue(srpm=make_srpm(package, tmp_path), target="demo", arches=["x86_64"], defines=defines).id


def ends(place: HostsFarm, build_id: int) -> Outcome | None:
    return place.farm.wait(build_id, timeout_s=60).outcome


def test_a_drained_host_finishes_what_it_runs_and_takes_nothing_new_even_after_a_restart(
    place: HostsFarm, tmp_path: Path
) -> None:
    first = enqueue(place, tmp_path, "never-ends")
    busy = runs_on(place, first)
    host = busy.partition("@")[2]
    other = "build@two" if host == "one" else "build@one"
    place.farm.drain_host(host, reason="new disks")
    for _ in range(3):
        build = enqueue(place, tmp_path)
        assert ends(place, build) is Outcome.SUCCEEDED
        assert build_step(place, build).attempts[-1].worker == other
    assert build_step(place, first).status is Status.RUNNING, "what ran there goes on"
    place.farm.cancel(first)
    place.signal(busy, signal.SIGTERM)
    place.ended(busy)
    place.start_worker(busy, BUILD)
    place.farm.drain_host(other.partition("@")[2])
    waiting = enqueue(place, tmp_path)
    until(lambda: "no worker for x86_64" in (build_step(place, waiting).waits_for or ""), "the reason")
    assert "is drained by tester: new disks" in (build_step(place, waiting).waits_for or "")
    assert place.farm.undrain_host(host).kind is HoldKind.DRAINED
    assert ends(place, waiting) is Outcome.SUCCEEDED
    assert build_step(place, waiting).attempts[-1].worker == busy


def test_steps_of_a_host_are_handed_back_at_once_when_asked(place: HostsFarm, tmp_path: Path) -> None:
    build = enqueue(place, tmp_path, "never-ends")
    busy = runs_on(place, build)
    place.farm.drain_host(busy.partition("@")[2], hands_back=True)
    until(lambda: len(build_step(place, build).attempts) == 2, "another attempt")
    until(lambda: build_step(place, build).status is Status.RUNNING, "it to run elsewhere")
    first, second = build_step(place, build).attempts
    assert (first.outcome, first.worker) == (Outcome.CANCELLED, busy)
    assert "is drained by tester" in (first.reason or "")
    assert second.worker != busy
    place.farm.cancel(build)
    until(lambda: not inside(place.settings), "everything to be gone")


def test_a_worker_that_is_stopped_at_once_hands_back_its_step(place: HostsFarm, tmp_path: Path) -> None:
    build = enqueue(place, tmp_path, "never-ends")
    busy = runs_on(place, build)
    place.signal(busy, signal.SIGQUIT)
    place.ended(busy)
    until(lambda: len(build_step(place, build).attempts) == 2, "another attempt")
    attempt = build_step(place, build).attempts[0]
    assert (attempt.outcome, attempt.reason) == (Outcome.CANCELLED, f"{busy} was stopped")
    place.farm.cancel(build)
    place.start_worker(busy, BUILD)


def test_a_worker_of_another_version_is_given_nothing_and_the_farm_says_so(place: HostsFarm, tmp_path: Path) -> None:
    """Old and new side by side: neither takes a message of the other's for its own."""
    place.start_worker("build@newer", BUILD, slots=2, version=1)
    for name in ("one", "two"):
        place.farm.drain_host(name)
    build = enqueue(place, tmp_path)
    until(lambda: "speaks version" in (build_step(place, build).waits_for or ""), "the reason")
    assert f"build@newer speaks version {wire.VERSION + 1}" in (build_step(place, build).waits_for or "")
    for name in ("one", "two"):
        place.farm.undrain_host(name)
    assert ends(place, build) is Outcome.SUCCEEDED
    assert build_step(place, build).attempts[-1].worker in ("build@one", "build@two")
    place.signal("build@newer", signal.SIGTERM)
    place.ended("build@newer")


def test_a_newer_scheduler_takes_over_and_steps_of_old_workers_are_not_lost(place: HostsFarm, tmp_path: Path) -> None:
    builds = [enqueue(place, tmp_path, "naps", nap_s=6) for _ in range(2)]
    for build in builds:
        until(lambda build=build: build_step(place, build).status is Status.RUNNING, "both to run")
    place.signal("scheduler", signal.SIGTERM)
    place.ended("scheduler")
    place.start_scheduler("newer", version=1)
    for build in builds:
        until(lambda build=build: build_step(place, build).outcome is Outcome.SUCCEEDED, "the old workers' reports")
        assert len(build_step(place, build).attempts) == 1
    until(
        lambda: all("speaks version" in (place.farm.build(build).steps[-1].waits_for or "") for build in builds),
        "uploads to wait for new workers",
    )
    place.signal("newer", signal.SIGTERM)
    place.ended("newer")
    place.start_scheduler()
    for build in builds:
        assert ends(place, build) is Outcome.SUCCEEDED


def test_a_host_with_trouble_for_several_packages_is_quarantined_and_says_why(place: HostsFarm, tmp_path: Path) -> None:
    place.signal("build@one", signal.SIGTERM)
    place.ended("build@one")
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", full], check=True)
    try:
        _quarantine(place, tmp_path, full)
    finally:
        subprocess.run(["umount", "--lazy", full], check=True)
    place.start_worker("build@one", BUILD)


def _quarantine(place: HostsFarm, tmp_path: Path, full: Path) -> None:
    place.start_worker("build@bad", BUILD, env={"FARM_SCRATCH": str(full), "FARM_DISK_RESERVE_BYTES": "0"})
    builds = [enqueue(place, tmp_path) for _ in range(12)]
    assert {ends(place, build) for build in builds} == {Outcome.SUCCEEDED}
    hold = place.farm.host_holds()[f"{BUILD}@bad"]
    assert hold.kind is HoldKind.QUARANTINED
    assert "trouble with 3 builds in a row" in hold.reason
    assert hold.until_at is not None
    place.signal("build@bad", signal.SIGTERM)
    place.ended("build@bad")
