"""Bad load: ten thousand builds of one person before another's single one, and a broker that takes nothing more."""

import os
import threading
import time
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.errors import BrokerFull
from farm.model.arch import Arch
from farm.model.build import BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyWork
from farm.store.store import Store
from farm.up.embedded import running_farm
from tests.fake_workers import Answer, FakeWorkers, succeed
from tests.filled_redis import FilledRedis
from tests.packages import make_srpm
from tests.redis_server import redis_server
from tests.scheduling import scheduling
from tests.waiting import until

MANY = 10_000
SLOTS = 2
STEP_S = 0.02
WITHIN_S = 60.0


# --- one among ten thousand -------------------------------------------------------------------------------------


def request(name: str) -> BuildRequest:
    source = Source(kind=SourceKind.GIT, url=f"https://example.org/{name}.git", ref="main")
    return BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))


def work(one: AnyWork) -> Answer:
    threading.Event().wait(STEP_S)
    return succeed(one.kind, one.package)


def test_one_build_starts_at_once_among_ten_thousand_of_somebody_else(tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path)})
    with redis_server(settings.socket):
        Store.open(settings.database, create=True).close()
        with Farm.connect(settings) as farm, FakeWorkers(settings, slots=SLOTS, answer=work) as workers:
            farm.enqueue_many([request(f"many-{number}") for number in range(MANY)], owner="ann")
            with scheduling(settings):
                until(lambda: len(workers.done) > 20, "the first of ten thousand builds")
                before = len(workers.done)
                one = farm.enqueue_many([request("one")], owner="bob").builds[0]
                until(lambda: any(done.build_id == one.id for done in workers.done), "the one to start")
                ahead = [done for done in list(workers.done)[before:] if done.kind == "fetch"]
                result = one.wait(timeout_s=WITHIN_S)
                is_ann_going_on = farm.queue_counts()["source"][0] > MANY / 2
    assert result.outcome is Outcome.SUCCEEDED
    # Messages that were sent before it go first: a queue's free slots and one more, and the steps that slots worked on.
    before_it = [done.package for done in ahead].index("one")
    assert before_it <= 2 * SLOTS + 2, ahead
    assert is_ann_going_on


# --- a broker at its limit --------------------------------------------------------------------------------------


@pytest.mark.live
def test_a_full_broker_loses_nothing_and_the_farm_goes_on_when_it_has_memory(
    tmp_path: Path, demo_distribution: Path
) -> None:
    """It is full for longer than a lease lasts, with builds in every state: running, sent and waiting."""
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "distribution").symlink_to(demo_distribution)
    env = {"FARM_DATA": str(tmp_path), "FARM_LEASE_S": "3", "FARM_CLAIM_S": "5", "FARM_RETRY_DELAY_S": "0.2"}
    settings = Settings.from_env(env)
    srpm = make_srpm("naps", tmp_path / "srpms")
    with running_farm(settings, build_slots=1) as embedded, Farm.connect(settings) as farm:
        members = dict(embedded.processes)
        with FilledRedis(settings, limit_bytes=8 * 2**20) as filled:
            builds = [
                farm.enqueue(srpm=srpm, target="demo", arches=["x86_64"], defines=[("nap_s", nap_s), ("serial", nap_s)])
                for nap_s in ("6", "0.1", "0.2", "0.3")
            ]
            until(lambda: _is_running(farm, builds[0].id, "build"), "the first build to run")
            filled.fill()
            with pytest.raises(BrokerFull, match="nothing was enqueued"):
                farm.enqueue(srpm=srpm, target="demo")
            full_until = time.monotonic() + 2 * settings.lease_s + 3
            while time.monotonic() < full_until:
                embedded.check()
                time.sleep(0.1)
            assert len(farm.builds()) == len(builds)
            filled.free()
            results = [build.wait(timeout_s=WITHIN_S) for build in builds]
            assert dict(embedded.processes) == members, "a process ended and was started again"
            later = farm.enqueue(srpm=srpm, target="demo", arches=["x86_64"]).wait(timeout_s=WITHIN_S)
        assert [result.outcome for result in results] == [Outcome.SUCCEEDED] * len(builds), results
        (built,) = (step for step in results[0].steps if step.kind == "build")
        assert len(built.attempts) == 1, "the build that ran was not taken for lost"
        assert later.outcome is Outcome.SUCCEEDED
        versions = farm.repository_versions("demo", "x86_64")
        assert versions[0].packages == len(builds) + 1


def _is_running(farm: Farm, build_id: int, kind: str) -> bool:
    return any(step.kind == kind and step.status is Status.RUNNING for step in farm.build(build_id).steps)
