"""A whole farm under the accounts that `farm keys acl` prints: what people and processes do, without one denial."""

import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm import Farm, queues
from farm.cli.main import app
from farm.config import Settings
from farm.model.outcome import Outcome, Status
from tests.attacks.conftest import ADMIN, Broker
from tests.hosts_farm import BUILD, HostsFarm, _answers
from tests.packages import make_srpm
from tests.waiting import until
from workers.agent.denial import EXIT_CODE

pytestmark = pytest.mark.live
_FLOWER_PORT = 5797


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path, broker: Broker) -> Iterator[HostsFarm]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    given = {"FARM_OWNER": "tester", "FARM_RETRY_DELAY_S": "0.2", "FARM_BROKER_URL": broker.url(queues.CLIENT)}
    place = HostsFarm(Settings.from_env({"FARM_DATA": str(data), **given}), given)
    as_scheduler = {"FARM_BROKER_URL": broker.url("scheduler")}
    try:
        for name in ("scheduler", "standby"):
            place._start(name, [sys.executable, "-m", "farm.scheduler"], as_scheduler)
            until(lambda: (data / "farm.db").exists() and _answers(place.settings), "the database")
        with Farm.connect(place.settings) as farm:
            place.farm = farm
            for name, queue in (("source@base", queues.SOURCE), ("publish@base", queues.PUBLISH), ("build@one", BUILD)):
                place.start_worker(name, queue, env={"FARM_BROKER_URL": broker.url(queue)})
            argv = [sys.executable, "-m", "celery", "-A", "farm.app", "flower"]
            argv += ["--address=127.0.0.1", f"--port={_FLOWER_PORT}"]
            place._start(
                "flower", argv, {"FARM_BROKER_URL": broker.url("flower"), "FLOWER_UNAUTHENTICATED_API": "true"}
            )
            yield place
    finally:
        place.end_all()


@pytest.fixture(autouse=True)
def _nothing_is_denied(broker: Broker) -> Iterator[None]:
    yield
    assert broker.denials() == []


def farm(place: HostsFarm, *words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={**place._env, "COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def enqueue(place: HostsFarm, folder: Path, package: str = "hello-noarch") -> int:
    return place.farm.enqueue(srpm=make_srpm(package, folder), target="demo", arches=["x86_64"]).id


def builds(place: HostsFarm, build: int) -> bool:
    return any(step.kind == "build" and step.status is Status.RUNNING for step in place.farm.build(build).steps)


def test_a_build_is_waited_for_its_log_read_and_its_packages_published(place: HostsFarm, tmp_path: Path) -> None:
    srpm = make_srpm("hello-noarch", tmp_path)
    said = farm(place, "build", "--srpm", str(srpm), "-t", "demo", "-a", "x86_64", "--wait")
    assert "succeeded" in said
    assert "rpmbuild" in farm(place, "log", "1", "--step", "build")
    assert "build@one" in farm(place, "workers")
    attempts = [attempt.label for step in place.farm.build(1).steps for attempt in step.attempts]
    assert attempts == ["1.fetch.1", "1.srpm.1", "1.build.x86_64.1", "1.upload.x86_64.1"], "no message was sent again"


def test_a_running_build_is_followed_cancelled_and_retried(place: HostsFarm, tmp_path: Path) -> None:
    build = enqueue(place, tmp_path, "never-ends")
    until(lambda: builds(place, build), "it to run")
    log = place.farm.log(build, follow=True)
    assert next(iter(log))
    place.farm.cancel(build)
    until(lambda: place.farm.build(build).status is Status.FINISHED, "its end")
    until(lambda: not place.farm.running_on(), "its worker to be free")
    place.farm.retry(build)
    until(lambda: builds(place, build), "it to run again")
    place.farm.cancel(build)


def test_a_host_is_drained_and_undrained(place: HostsFarm, tmp_path: Path, broker: Broker) -> None:
    place.start_worker("build@two", BUILD, env={"FARM_BROKER_URL": broker.url(BUILD)})
    farm(place, "workers", "drain", "two", "--wait")
    build = enqueue(place, tmp_path)
    assert place.farm.wait(build, timeout_s=60).outcome is Outcome.SUCCEEDED
    farm(place, "workers", "undrain", "two")
    place.signal("build@two", signal.SIGTERM)
    place.ended("build@two")


def test_the_second_scheduler_takes_over(place: HostsFarm, tmp_path: Path) -> None:
    place.signal("scheduler", signal.SIGKILL)
    place.ended("scheduler")
    build = enqueue(place, tmp_path)
    assert place.farm.wait(build, timeout_s=90).outcome is Outcome.SUCCEEDED


def test_leases_that_redis_forgot_are_restored(place: HostsFarm, tmp_path: Path, broker: Broker) -> None:
    build = enqueue(place, tmp_path, "never-ends")
    until(lambda: builds(place, build), "it to run")
    with broker.client(ADMIN) as client:
        client.flushall()
        until(lambda: list(client.scan_iter("farm:lease:*")), "the lease to be there again")
    place.farm.cancel(build)
    until(lambda: not place.farm.running_on(), "its worker to be free")
    assert place.farm.build(build).steps[-1].status is Status.FINISHED


def test_flower_shows_its_pages(place: HostsFarm) -> None:
    base = f"http://127.0.0.1:{_FLOWER_PORT}"
    until(lambda: _page(f"{base}/"), "Flower")
    for page in ("workers", "tasks", "broker", "worker/build@one", "api/workers?refresh=1", "api/queues/length"):
        _page(f"{base}/{page}")
    assert "build@one" in _page(f"{base}/workers")


def _page(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code}"
    except OSError:
        return ""


def test_a_worker_that_is_denied_something_says_so_and_ends(place: HostsFarm, broker: Broker) -> None:
    """It has the account of another role, which is denied its queue."""
    url = broker.url("build.aarch64")
    place._start("build@wrong", _worker("build@wrong", "build.ppc64le"), {"FARM_BROKER_URL": url})
    assert place.ended("build@wrong", 60) == EXIT_CODE
    said = place.log("build@wrong")
    assert said.count("The broker's ACL denies account 'build.aarch64'") == 1
    assert "farm keys acl" in said
    assert "build@wrong" not in {worker.name for worker in place.farm.workers()}
    with broker.client(ADMIN) as client:
        client.acl_log_reset()


def test_a_worker_whose_claims_are_denied_ends_too(place: HostsFarm, broker: Broker, tmp_path: Path) -> None:
    """A process of the pool meets the denial, and the worker's main process none."""
    account = "build.aarch64"
    place._start("build@arm", _worker("build@arm", account), {"FARM_BROKER_URL": broker.url(account)})
    until(lambda: "build@arm" in {worker.name for worker in place.farm.workers()}, "it to register")
    with broker.client(ADMIN) as client:
        rules = next(line for line in client.acl_list() if line.startswith(f"user {account} "))
        claims = re.compile(r"\([^()]*farm:offer:[^()]*hincrby[^()]*\)")
        assert claims.search(rules)
        words = re.findall(r"\([^)]*\)|[^ ]+", claims.sub("", rules))[2:]
        client.execute_command("ACL", "SETUSER", account, "reset", *words)
    build = place.farm.enqueue(srpm=make_srpm("hello-c", tmp_path), target="demo", arches=["aarch64"]).id
    assert place.ended("build@arm", 90) == EXIT_CODE
    assert place.log("build@arm").count(f"The broker's ACL denies account {account!r}") == 1
    place.farm.cancel(build)
    with broker.client(ADMIN) as client:
        client.acl_log_reset()


def _worker(name: str, queue: str) -> list[str]:
    argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", name, "-Q", queue, "-c", "1"]
    return [*argv, "--without-gossip", "--without-mingle"]
