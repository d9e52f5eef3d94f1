"""`farm up` and SIGKILL: to one of its processes after the other, and to everything at once."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest
import redis

from farm import Farm
from farm.client.handle import BuildHandle
from farm.config import Settings
from farm.model.build import Step
from farm.model.outcome import Outcome, Status
from farm.repositories.staging import locked
from tests.databases import Cluster, NoPostgresql, cluster
from tests.fetching import Answer, _send, http_server
from tests.packages import make_srpm
from tests.up import Up, farm_up, kill_all, leftovers, processes, published
from tests.waiting import until

pytestmark = pytest.mark.live
ENV = {"FARM_LEASE_S": "5", "FARM_RETRY_DELAY_S": "0.1", "FARM_FLOWER_PORT": "0", "FARM_ALLOW_NETWORKS": "127.0.0.0/8"}


@pytest.fixture
def data(tmp_path: Path, demo_distribution: Path) -> Path:
    return new_data(tmp_path / "d", demo_distribution)


def new_data(folder: Path, distribution: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "distribution").symlink_to(distribution)
    return folder


@pytest.fixture
def nap(tmp_path: Path) -> Callable[..., BuildHandle]:
    """Enqueue a build that takes so many seconds; the version of its package is `serial`."""
    srpm = make_srpm("naps", tmp_path)

    def enqueue(farm: Farm, serial: str, nap_s: float, **options: object) -> BuildHandle:
        defines = {"serial": serial, "nap_s": str(nap_s)}
        return farm.enqueue(**{"srpm": srpm, "target": "demo", "arches": ["x86_64"], "defines": defines, **options})  # type: ignore[arg-type]

    return enqueue


def step(farm: Farm, build: BuildHandle, kind: str) -> Step | None:
    return next((step for step in farm.build(build.id).steps if step.kind == kind), None)


def runs(farm: Farm, build: BuildHandle, kind: str = "build") -> None:
    def is_running() -> bool:
        found = step(farm, build, kind)
        return found is not None and found.status is Status.RUNNING

    until(is_running, f"{kind} of build {build.id} to run")


def attempts(farm: Farm, build: BuildHandle, kind: str = "build") -> int:
    found = step(farm, build, kind)
    return len(found.attempts) if found else 0


def answers(settings: Settings) -> bool:
    with redis.Redis.from_url(settings.redis) as client, suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_each_of_its_processes_may_be_killed_and_builds_go_on(data: Path, nap: Callable[..., BuildHandle]) -> None:
    with farm_up(data, "--workers", "2", env=ENV) as up, Farm.connect(up.settings) as farm:
        first = nap(farm, "1", 3)
        runs(farm, first)
        up.kill("-n build@")
        assert "build was ended by SIGKILL" in up.says("it is started again in 0.5 s")
        up.kill("farm.scheduler")
        up.says("scheduler was ended by SIGKILL")
        up.kill("flower")
        up.says("flower was ended by SIGKILL")
        assert first.wait(timeout_s=60).outcome is Outcome.SUCCEEDED
        assert attempts(farm, first) == 2, "its pool processes died with the worker, and were noticed"
        second = nap(farm, "2", 8)
        runs(farm, second)
        up.kill(str(up.settings.socket))
        up.says("redis was ended by SIGKILL")
        until(lambda: answers(up.settings), "its next life")
        third = nap(farm, "3", 0)
        for build in (second, third):
            assert build.wait(timeout_s=90).outcome is Outcome.SUCCEEDED
        assert attempts(farm, second) == 1, "its worker still ran it"
        assert published(up.settings) == [f"naps-{serial}-1.demo1.x86_64.rpm" for serial in (1, 2, 3)]
        up.drain()
        until(lambda: leftovers(up.settings) == [], lambda: f"nothing to be left: {leftovers(up.settings)}")
        assert processes(up.settings) == []


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[list[tuple[str, Event]]]:
    """URLs of a src.rpm that are not answered before the event beside them is set."""
    content = make_srpm("hello-noarch", tmp_path).read_bytes()

    def answer(opened: Event, request: BaseHTTPRequestHandler) -> None:
        opened.wait(120)
        with suppress(OSError):  # the client may have been killed
            _send(request, Answer(content))

    with http_server() as server:
        found = []
        for number in range(2):
            path, opened = f"/{number}/hello-noarch-1.0-1.src.rpm", Event()
            server.answers[path] = partial(answer, opened)
            found.append((server.url(path), opened))
        yield found
        for _, opened in found:
            opened.set()


@dataclass(frozen=True, kw_only=True)
class Siege:
    """A farm that is killed, and what it is given to do."""

    data: Path
    nap: Callable[..., BuildHandle]
    gated: str
    failing: Path
    opened: Event
    server: Cluster | None = None

    def up(self) -> AbstractContextManager[Up]:
        url = self.server.url if self.server else ""
        return farm_up(self.data, "--workers", "2", env=ENV, database_url=url)

    def kill(self, settings: Settings) -> None:
        kill_all(settings)
        if self.server:
            self.server.kill()
            self.server.start()


def is_killed_in_the_middle_of_everything(siege: Siege) -> None:
    nap = siege.nap
    with siege.up() as up, Farm.connect(up.settings) as farm:
        before = nap(farm, "0", 0)
        assert before.wait(timeout_s=60).outcome is Outcome.SUCCEEDED
        with locked(up.settings.repositories_dir / "demo/x86_64/os/state/lock", timeout_s=5):
            uploading = nap(farm, "1", 0)
            runs(farm, uploading, "upload")
            fetching = farm.enqueue(srpm=siege.gated, target="demo", arches=["x86_64"])
            runs(farm, fetching, "fetch")
            building = [nap(farm, serial, 20) for serial in ("2", "3")]  # longer than all that comes before the kill
            for build in building:
                runs(farm, build)
            failing = farm.enqueue(srpm=siege.failing, target="demo", arches=["x86_64"])
            waiting = nap(farm, "4", 0)
            elsewhere = nap(farm, "5", 0, arches=["ppc64le"])
            until(lambda: len(farm.build(waiting.id).steps) == 4, "the last ones to wait for a slot")
            siege.kill(up.settings)
            assert up.process.wait(60) < 0
    siege.opened.set()
    with siege.up() as up, Farm.connect(up.settings) as farm:
        for build in (uploading, fetching, *building, waiting):
            assert farm.handle(build.id).wait(timeout_s=90).outcome is Outcome.SUCCEEDED
        assert farm.handle(failing.id).wait(timeout_s=60).outcome is Outcome.FAILED
        assert step(farm, elsewhere, "build") is not None
        assert farm.build(elsewhere.id).status is Status.RUNNING
        assert [attempts(farm, build) for build in building] == [2, 2]
        assert attempts(farm, uploading) == 1, "what had been built is not built again"
        assert attempts(farm, before, "upload") == 1
        naps = [f"naps-{serial}-1.demo1.x86_64.rpm" for serial in range(5)]
        assert published(up.settings) == ["hello-noarch-1.0-1.demo1.noarch.rpm", *naps]
        farm.cancel(elsewhere.id)
        up.drain()
        until(lambda: leftovers(up.settings) == [], lambda: f"nothing to be left: {leftovers(up.settings)}")
        assert processes(up.settings) == []


def test_everything_killed_at_once_goes_on_at_the_next_start_as_if_nothing_had_been(
    tmp_path: Path, demo_distribution: Path, nap: Callable[..., BuildHandle], gates: list[tuple[str, Event]]
) -> None:
    """On SQLite and on PostgreSQL, which is killed too; both at once, since they mostly wait."""
    with ExitStack() as stack:
        failing = make_srpm("fails-check", tmp_path)
        servers: list[Cluster | None] = [None]
        with suppress(NoPostgresql):
            servers.append(stack.enter_context(cluster("killed", is_killed=True)))
        sieges = [
            Siege(
                data=new_data(tmp_path / str(number), demo_distribution),
                nap=nap,
                gated=gates[number][0],
                failing=failing,
                opened=gates[number][1],
                server=server,
            )
            for number, server in enumerate(servers)
        ]
        with ThreadPoolExecutor(len(sieges)) as pool:
            for one in [pool.submit(is_killed_in_the_middle_of_everything, siege) for siege in sieges]:
                one.result()
