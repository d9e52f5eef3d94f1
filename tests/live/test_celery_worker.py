"""One real Celery worker on a real Redis, as with pytest-celery: messages that it takes, acknowledges, holds and drops.

pytest-celery's nodes wrap containers of Docker; here they wrap processes that answer to the same names. The steps that
run are downloads from a server of the test's own, which answers when the test says so, and counts.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import chain
from pytest_celery import (
    CeleryBrokerCluster,
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from farm import queues, wire
from farm.artifacts import open_store
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.steps.fetch import FetchInput
from farm.steps.registry import step_type
from tests.artifacts import content_of
from tests.fetching import Server, http_server
from tests.messages import work_of
from tests.redis_server import redis_server
from tests.rpms import make_rpm
from tests.waiting import until

pytestmark = pytest.mark.live

ROOT = Path(__file__).parent.parent.parent
QUEUE = queues.SOURCE
SLOTS = 2
WITHIN_S = 30.0


class ProcContainer:
    """A process where pytest-celery has a container: with a log, a status, signals and an end."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], folder: Path, says: str) -> None:
        self.name = self.id = name
        self.celeryconfig = {"url": env["FARM_BROKER_URL"], "host_url": env["FARM_BROKER_URL"]}
        self._says = says
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def ready(self) -> bool:
        until(lambda: self._says in self.logs() or self.status != "running", f"{self.name} to be ready")
        return self.status == "running"

    def logs(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    def kill(self, signal: str | int = "SIGKILL") -> None:
        self.process.send_signal(_signal(signal))

    def reload(self) -> None:
        self.process.poll()

    def teardown(self) -> None:
        if self.status == "running":
            self.process.terminate()
            try:
                self.process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise


def _signal(name: str | int) -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


@dataclass
class Place:
    """One worker of two slots on one queue; the broker, whose end is the fixture's; and the server of the downloads."""

    settings: Settings
    setup: CeleryTestSetup
    broker: redis.Redis
    server: Server
    leases: Leases
    control: Control
    gate: threading.Event = field(default_factory=threading.Event)

    def offer(self, label: str, body: bytes = b"no RPM") -> None:
        """Work that ends once `gate` is open, as a failure unless `body` is a source package."""
        self.server.answers[f"/{label}.src.rpm"] = lambda request: self._answer(request, body)
        order = FetchInput(
            source=Source(kind=SourceKind.SRPM, url=self.server.url(f"/{label}.src.rpm")), arch=Arch.X86_64
        )
        work = replace(work_of("fetch"), attempt=label, input=order)
        self.leases.offer(work)  # type: ignore[arg-type]

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        assert self.gate.wait(WITHIN_S)
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def order(self, label: str, queue: str = QUEUE, kind: str = "fetch", **more: Any) -> Any:
        order = {"attempt": label, "v": wire.VERSION, **more}
        app = self.setup.app
        return app.signature(step_type(kind).task, kwargs=order, immutable=True, queue=queue, ignore_result=True)

    def send(self, label: str, queue: str = QUEUE, **more: Any) -> None:
        self.order(label, queue, **more).apply_async()

    def starts(self, label: str) -> int:
        """How many times the step ran."""
        return self.server.seen.count(f"/{label}.src.rpm")

    def started(self, *labels: str) -> None:
        until(lambda: all(self.starts(label) for label in labels), f"{labels} to start")

    def reported(self, *labels: str) -> list[wire.AnyReport]:
        """Wait until these, and no others, were reported."""
        found: list[wire.AnyReport] = []

        def are_all_there() -> bool:
            reports = self.control.receive(timeout_s=0.05).reports
            self.leases.close_attempts(report.attempt for report in reports)  # or else it is sent again
            self.control.acknowledge()
            found.extend(reports)
            return len(found) >= len(labels)

        until(are_all_there, f"the reports of {labels}")
        assert sorted(report.attempt for report in found) == sorted(labels)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("celery")
    redis_socket = folder / "redis.sock"
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "FARM_DATA": str(folder),
        "FARM_BROKER_URL": f"redis+socket://{redis_socket}",
        "FARM_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    settings = Settings.from_env(env)
    argv = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-n", "build@here"]
    argv += ["-Q", QUEUE, "-c", str(SLOTS), "-P", "prefork"]
    with redis_server(redis_socket), http_server() as server, redis.Redis.from_url(settings.redis) as broker:
        worker = CeleryTestWorker(ProcContainer("build", argv, env, folder, says="build@here ready."), app=None)
        try:
            app = CeleryTestSetup.create_setup_app({"broker_url": settings.broker}, "farm")
            setup = CeleryTestSetup(
                worker_cluster=CeleryWorkerCluster(worker),
                broker_cluster=CeleryBrokerCluster(CeleryTestBroker(_Redis(settings, broker), app=app)),
                backend_cluster=None,
                app=app,
            )
            assert setup.ready(control=True)
            leases, control = Leases(settings), Control(settings)
            yield Place(settings, setup, broker, server, leases, control)
            leases.close()
            control.close()
            app.close()
        finally:
            worker.teardown()


class _Redis:
    """The broker as a container; `redis_server` starts and ends it."""

    name = id = "redis"
    status = "running"

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.celeryconfig = {"url": settings.broker, "host_url": settings.broker}
        self._client = client

    def ready(self) -> bool:
        return bool(self._client.ping())


@pytest.fixture(autouse=True)
def _quiet(place: Place) -> Iterator[None]:
    """Each test begins and ends with nothing queued or unacknowledged, and with the worker alive."""
    place.gate = threading.Event()
    yield
    place.gate.set()
    until(lambda: not place.broker.llen(QUEUE), "the queue to be empty")
    assert place.setup.worker.container.status == "running"
    assert not any(place.broker.llen(queues.control_list(role)) for role in queues.CONTROL_ROLES), (
        "a report that no test expects"
    )


def test_only_its_own_queue_is_consumed(place: Place) -> None:
    place.offer("1.fetch.1")
    place.offer("2.fetch.1")
    place.gate.set()
    others = (queues.PUBLISH, queues.build_queue(Arch.X86_64), queues.build_queue(Arch.AARCH64))
    for queue in others:
        place.send("2.fetch.1", queue)
    place.send("1.fetch.1")
    (report,) = place.reported("1.fetch.1")
    assert report.result is not None
    assert report.result.outcome is Outcome.FAILED
    assert report.worker == "build@here"
    assert [place.broker.llen(queue) for queue in others] == [1, 1, 1]
    assert place.starts("2.fetch.1") == 0


def test_orders_that_are_not_to_be_done_are_dropped_and_the_slots_live_on(place: Place) -> None:
    place.offer("3.fetch.1")
    place.offer("4.fetch.1")
    place.leases.close_attempts(["4.fetch.1"])
    for _ in range(SLOTS):
        place.send("4.fetch.1")
        place.send("33.fetch.1")
        place.send("3.fetch.1", v=99)
        place.send("3.fetch.1", v=3, token="as version 3 had it", unknown="word")
        place.setup.app.send_task("farm.nonsense", queue=QUEUE, ignore_result=True)
        for label in ("3.fetch", "rubbish", "3.srpm.1", "3.build.x86_64.1", ["3.fetch.1"]):
            place.send(label)  # type: ignore[arg-type]
    place.gate.set()
    place.send("3.fetch.1")
    place.reported("3.fetch.1")
    worker = place.setup.worker
    worker.assert_log_exists("Dropped 33.fetch.1: attempt 33.fetch.1 is not expected")
    worker.assert_log_exists("Dropped 3.srpm.1: '3.srpm.1' is no attempt of farm.fetch")
    worker.assert_log_exists("Dropped 4.fetch.1: ")
    worker.assert_log_exists(f"Dropped 3.fetch.1: message version 99 is not {wire.VERSION}")
    assert (place.starts("3.fetch.1"), place.starts("4.fetch.1")) == (1, 0)


def test_a_running_step_is_acknowledged_and_a_busy_worker_holds_back_nothing(place: Place) -> None:
    labels = [f"5.fetch.{number}" for number in range(1, 2 * SLOTS + 1)]
    for label in labels:
        place.offer(label)
        place.send(label)
    until(lambda: sum(map(place.starts, labels)) == SLOTS, "both slots to be busy")
    running = [label for label in labels if place.starts(label)]
    assert place.broker.hlen("unacked") == 0, "nothing of Celery's is kept in Redis"
    assert place.broker.llen(QUEUE) == SLOTS, "another worker could take what this one has no slot for"
    assert {one.worker for one in place.leases.holders(running).values()} == {"build@here"}
    place.gate.set()
    place.reported(*labels)
    assert [place.starts(label) for label in labels] == [1] * len(labels)


def test_a_message_delivered_twice_runs_once(place: Place) -> None:
    place.offer("6.fetch.1")
    place.send("6.fetch.1")
    place.send("6.fetch.1")
    place.started("6.fetch.1")
    until(lambda: "Dropped 6.fetch.1" in place.setup.worker.logs(), "the second to be dropped")
    place.gate.set()
    place.reported("6.fetch.1")
    assert place.starts("6.fetch.1") == 1


def test_the_rest_of_a_chain_follows_a_success_and_nothing_else(place: Place, tmp_path: Path) -> None:
    """The second steps have no offers, so a worker that gets such a message logs that it dropped it."""
    good = make_rpm(tmp_path, arch="src").read_bytes()
    place.gate.set()
    for number, body in ((8, good), (9, b"no RPM")):
        place.offer(f"{number}.fetch.1", body)
        chain(place.order(f"{number}.fetch.1"), place.order(f"{number}.srpm.1", kind="srpm")).apply_async()
    reports = place.reported("8.fetch.1", "9.fetch.1")
    outcomes = {report.attempt: report.result.outcome for report in reports if report.result}
    assert outcomes["8.fetch.1"] is Outcome.SUCCEEDED
    until(lambda: "Dropped 8.srpm.1" in place.setup.worker.logs(), "the second step of the chain")
    # A slot takes these after whatever the failed step has sent.
    last = [f"10.fetch.{number}" for number in range(SLOTS)]
    for label in last:
        place.offer(label)
        place.send(label)
    place.reported(*last)
    assert "9.srpm.1" not in place.setup.worker.logs()


def test_killed_connections_run_nothing_twice_and_lose_no_report(place: Place) -> None:
    labels = [f"7.fetch.{number}" for number in range(1, 2 * SLOTS + 1)]
    for label in labels:
        place.offer(label)
        place.send(label)
    until(lambda: sum(map(place.starts, labels)) == SLOTS, "both slots to be busy")
    for kind in ("normal", "pubsub"):
        place.broker.client_kill_filter(_type=kind, skipme=True)
    place.setup.worker.assert_log_exists("Connection to broker lost")
    place.gate.set()
    place.reported(*labels)
    assert [place.starts(label) for label in labels] == [1] * len(labels)


def test_trouble_is_reported_with_its_host_and_its_log(place: Place) -> None:
    """The source package of this order is in no store."""
    work = replace(work_of("srpm"), attempt="11.srpm.1")
    place.leases.offer(work)
    place.send("11.srpm.1", kind="srpm")
    (report,) = place.reported("11.srpm.1")
    assert report.result is None
    assert report.trouble is not None
    assert (report.trouble.code, report.trouble.retryable) == ("input-missing", True)
    assert report.trouble.message.startswith(f"{socket.gethostname()}: no artifact")
    (log,) = report.trouble.artifacts
    content = content_of(open_store(place.settings), log.sha256)
    assert b"[farm] farm trouble (input-missing): no artifact" in content
