"""Reports of megabytes: the scheduler reads one only when its token is the holder's, and each holder sends one."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from farm import queues, wire
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.build import BuildRequest
from farm.model.outcome import Status
from farm.model.source import Source, SourceKind
from farm.steps.registry import step_type
from farm.store.store import Store
from tests.messages import report_of, worker_facts
from tests.redis_server import redis_server
from tests.scheduling import scheduling
from tests.waiting import until

ARTIFACT = {"name": "x", "kind": "log", "sha256": "0", "size_bytes": 1}
LABEL = "1.fetch.1"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_RETRY_DELAY_S": "60"})
    with redis_server(settings.socket):
        yield settings


def long_report(kind: str, size_bytes: int, **changed: Any) -> bytes:
    """As costly to read as a report can be."""
    report = json.loads(wire.encode_report(report_of(kind))) | changed
    report["result"]["artifacts"] = [ARTIFACT] * (size_bytes // len(json.dumps(ARTIFACT, separators=(",", ":"))))
    return json.dumps(report, separators=(",", ":")).encode()


def test_a_long_report_of_another_sender_costs_little(
    settings: Settings, client: redis.Redis, control: Control
) -> None:
    """It took the scheduler a second, and any host with the account of the role could send one after another."""
    body = long_report("build", 14 * 2**20)

    def receive(**more: Any) -> tuple[float, tuple[wire.AnyReport, ...]]:
        client.lpush("control:build.x86_64", body)
        began = time.process_time()
        inbox = control.receive(timeout_s=1, **more)
        took_s = time.process_time() - began
        control.acknowledge()
        return took_s, inbox.reports

    turned_away_s, nothing = receive(admit=lambda _: ())
    read_s, (trouble,) = receive()
    assert nothing == ()
    assert trouble.trouble is not None
    assert turned_away_s < read_s / 4


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        yield client


def sent(settings: Settings, store: Store, client: redis.Redis) -> int:
    """A build whose first message is in its queue."""
    source = Source(kind=SourceKind.GIT, url="https://example.org/hello.git")
    request = BuildRequest(source=source, target="demo", arches=(Arch.X86_64,))
    (build,) = store.add_batch([request], owner="ann").builds
    control = Control(settings)
    control.wake()
    control.close()
    until(lambda: client.hget(f"farm:offer:{LABEL}", "work"), "the offer")
    return build.id


def test_a_report_that_cannot_be_read_is_trouble_of_its_holder_alone(
    settings: Settings, client: redis.Redis, control: Control, leases: Leases
) -> None:
    """A holder could send such reports for as long as it had its lease."""
    store = Store.open(settings.database, create=True)
    with scheduling(settings):
        leases.announce(worker_facts("source@evil", names=(queues.SOURCE,)))
        build_id = sent(settings, store, client)
        leases.claim(LABEL, "its own", "source@evil", wait_s=0)
        bodies = {
            "another token": long_report("fetch", 2**19, attempt=LABEL, token="another"),
            "too long": long_report("fetch", 2 * 2**20, attempt=LABEL, token="its own"),
        }
        assert len(bodies["too long"]) > step_type("fetch").report_bytes
        client.lpush("control:source", bodies["another token"])
        client.lpush("control:bell", "1")
        until(lambda: not client.exists("control:source", "control:taken:source"), "it to be read")
        assert store.build(build_id).steps[0].status in (Status.DISPATCHED, Status.RUNNING)
        client.lpush("control:source", bodies["too long"])
        client.lpush("control:bell", "1")
        until(lambda: store.build(build_id).steps[0].status is Status.WAITING, "its trouble")
    (attempt,) = store.build(build_id).steps[0].attempts
    assert attempt.worker == "source@evil"
    assert "its report cannot be read: 'the report has " in (attempt.reason or "")
    store.close()
