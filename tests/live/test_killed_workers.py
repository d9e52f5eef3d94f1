"""The limits that are promised, in real time: how soon the dead are missed, and how soon an emptied Redis is filled.

One farm with a worker of its own and two more, as if on hosts `one` and `two`; nothing of its timing is changed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from farm import Farm
from farm.client.handle import BuildHandle
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.build import Attempt
from farm.model.outcome import Outcome, Status
from farm.queues import build_queue
from farm.up.embedded import running_farm
from tests.packages import make_srpm
from tests.promises import Stopwatch
from tests.up import BASE, leftovers, published

pytestmark = pytest.mark.live
WORKER_LIMIT_S = 45.0
CHILD_LIMIT_S = 5.0
EMPTIED_LIMIT_S = 30.0
WITHIN_S = 120.0


@dataclass(kw_only=True)
class Place:
    settings: Settings
    farm: Farm
    workers: "dict[str, subprocess.Popen[bytes]]"
    srpm: Path

    def nap(self, serial: int, nap_s: float) -> BuildHandle:
        defines = {"serial": str(serial), "nap_s": str(nap_s)}
        return self.farm.enqueue(srpm=self.srpm, target="demo", arches=["x86_64"], defines=defines)

    def attempts(self, build: int) -> tuple[Attempt, ...]:
        steps = [step for step in self.farm.build(build).steps if step.kind == "build"]
        return steps[0].attempts if steps else ()

    def running(self, builds: list[BuildHandle]) -> dict[str, int]:
        """By host, the build whose newest `build` attempt runs there."""
        newest = [(build.id, attempts[-1]) for build in builds if (attempts := self.attempts(build.id))]
        return {(one.worker or "").partition("@")[2]: id_ for id_, one in newest if one.status is Status.RUNNING}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("w")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    settings = Settings.from_env({"FARM_DATA": str(data)})
    with ExitStack() as stack:
        stack.enter_context(running_farm(settings, build_slots=1))
        workers = {host: stack.enter_context(worker(settings, host)) for host in ("one", "two")}
        farm = stack.enter_context(Farm.connect(settings))
        await_(lambda: len(farm.workers()) == 5, "the workers")
        yield Place(settings=settings, farm=farm, workers=workers, srpm=make_srpm("naps", data / "srpm"))


@contextmanager
def worker(settings: Settings, host: str) -> "Iterator[subprocess.Popen[bytes]]":
    argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", f"build@{host}", "-c", "1"]
    argv += ["-Q", build_queue(Arch.X86_64), "--without-gossip", "--without-mingle", "-l", "INFO"]
    with (settings.data / f"log/{host}.log").open("ab") as log:
        env = {**BASE, "FARM_DATA": str(settings.data)}
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def await_(is_so: Callable[[], object], what: str, within_s: float = WITHIN_S) -> float:
    """How many seconds it took."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < within_s, f"waited {within_s:g} s for {what}"
        time.sleep(0.05)
    return time.monotonic() - start


def test_an_emptied_redis_costs_seconds_and_no_build_that_runs(place: Place) -> None:
    builds = [place.nap(serial, 5) for serial in range(3)]
    await_(lambda: len(place.running(builds)) == 3, "a build on each worker")
    with redis.Redis.from_url(place.settings.redis) as client:
        client.flushall()
    watch, following = Stopwatch(), place.nap(3, 0)
    assert following.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    assert watch.within(EMPTIED_LIMIT_S)
    for build in builds:
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
        assert len(place.attempts(build.id)) == 1, "its worker still ran it"
    assert published(place.settings) == [f"naps-{serial}-1.demo1.x86_64.rpm" for serial in range(4)]


def test_a_dead_worker_and_a_dead_pool_process_are_noticed_and_their_steps_run_elsewhere(place: Place) -> None:
    builds = [place.nap(serial, 4) for serial in range(10, 13)]
    await_(lambda: len(place.running(builds)) == 3, "a build on each worker")
    on = place.running(builds)
    os.killpg(place.workers["two"].pid, signal.SIGKILL)
    watch = Stopwatch()
    child = next(iter(children(place.workers["one"].pid)))
    os.kill(child, signal.SIGKILL)

    child_watch = Stopwatch()
    await_(lambda: place.attempts(on["one"])[0].status is Status.FINISHED, "the pool process to be missed")
    assert child_watch.within(CHILD_LIMIT_S)
    await_(lambda: len(place.attempts(on["two"])) == 2, "its worker to be missed")
    await_(lambda: on["two"] in place.running(builds).values(), "its step to run elsewhere")
    assert watch.within(WORKER_LIMIT_S)

    for build in builds:
        assert build.wait(timeout_s=WITHIN_S).outcome is Outcome.SUCCEEDED
    first, second = place.attempts(on["two"])
    assert (first.outcome, first.worker) == (Outcome.ERRORED, "build@two")
    assert (second.worker or "") != "build@two"
    assert "build@two" in (first.reason or "")
    (undisturbed,) = set(on.values()) - {on["one"], on["two"]}
    assert [len(place.attempts(on["one"])), len(place.attempts(undisturbed))] == [2, 1]
    with worker(place.settings, "two"):
        await_(lambda: not leftovers(place.settings), "the sweep of what the dead left")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
