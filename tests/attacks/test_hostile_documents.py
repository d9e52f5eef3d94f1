"""Documents that a hostile sender writes into Redis: each costs itself alone, and the farm goes on beside them."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from rich.console import Console

from farm import queues, wire
from farm.broker import bounds
from farm.broker.control import Control
from farm.broker.leases import LIVE_LOG_BYTES, Leases
from farm.cli import tables
from farm.config import Settings
from farm.errors import FarmNotRunning
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build
from farm.model.outcome import Outcome, Status
from farm.model.work import StepResult
from farm.scheduler.guard import Guard
from farm.service.watch import listen
from farm.steps.build import BuildResult
from farm.store.store import Store
from tests.fake_workers import FakeWorkers
from tests.messages import report_of, worker_facts
from tests.redis_server import redis_server
from tests.scheduling import HELLO, scheduling
from tests.waiting import until

EVIL = "build.x86_64"
DEEP = b"[" * 100_000


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_RETRY_DELAY_S": "0.01"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        yield client


def facts(**changed: Any) -> bytes:
    return json.dumps(json.loads(wire.to_json(worker_facts("build@evil"))) | changed).encode()


FACTS = {
    "slots of 2^63": facts(slots=2**63),
    "slots of 2^200": facts(slots=2**200),
    "slots of 1025": facts(slots=1025),
    "slots of 0": facts(slots=0),
    "negative slots": facts(slots=-5),
    "slots of 2^40": facts(slots=2**40),
    "100,000 queues": facts(queues=[f"q{n}" for n in range(100_000)]),
    "another queue": facts(queues=["publish"]),
    "control": facts(queues=["control"]),
    "two queues": facts(queues=[EVIL, "publish"]),
    "the name of another worker": facts(name="publish@one", host="one"),
    "the host of another worker": facts(host="one"),
    "a date without a zone": facts(started_at="2026-01-01T00:00:00"),
    "a date at the end of time": facts(started_at="9999-12-31T23:59:59-12:00"),
    "a date at its beginning": facts(started_at="0001-01-01T00:00:00+12:00"),
    "a version of 2^70": facts(speaks=2**70),
    "memory of 2^64": facts(memory_bytes=2**64),
    "a disk of -1": facts(disk_free_bytes=-1),
    "1,000 engines": facts(engines=["e"] * 1000),
    "10,000 characters of why": facts(unfit="x" * 10_000),
    "consumes others": facts(consumes=["publish", "source"]),
    "arches again and again": facts(arches=["x86_64"] * 500),
    "a NUL": facts(version="1\0"),
    "deep JSON": b'{"name":' + DEEP,
    "not UTF-8": b"\xff\xfe",
    "17 MB": facts(unfit="x" * 17_000_000),
    "a number": b"1",
    "nothing": b"",
}


def put_facts(client: redis.Redis, document: bytes, role: str = EVIL, name: str = "build@evil") -> None:
    client.sadd(f"farm:workers:{role}", name)
    client.set(f"farm:worker:{role}:{name}", document)


def build_one(settings: Settings, store: Store) -> Build:
    (build,) = store.add_batch([HELLO], owner="ann").builds
    control = Control(settings)
    control.wake()
    control.close()
    until(lambda: store.build(build.id).status is Status.FINISHED, "the end of an honest build", within_s=30)
    return store.build(build.id)


@contextmanager
def honest_farm(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.database, create=True)
    try:
        with scheduling(settings), FakeWorkers(settings) as workers:
            done = threading.Event()

            def announce() -> None:
                while not done.wait(5):
                    workers.announce()

            beat = threading.Thread(target=announce)
            beat.start()
            try:
                yield store
            finally:
                done.set()
                beat.join()
    finally:
        store.close()


@pytest.mark.parametrize("what", FACTS)
def test_facts_out_of_bounds_make_no_worker(client: redis.Redis, leases: Leases, what: str) -> None:
    put_facts(client, FACTS[what])
    put_facts(client, wire.to_json(worker_facts("build@good")), name="build@good")
    found = leases.workers()
    assert [worker.name for worker in found] == ["build@good"]
    Console(file=io.StringIO()).print(tables.worker_table(found, {}, {}, 200))


def test_an_honest_farm_builds_beside_all_of_them(settings: Settings, client: redis.Redis) -> None:
    for number, document in enumerate(FACTS.values()):
        put_facts(client, document, name=f"build@evil{number}")
        put_facts(client, document)
    client.rpush(f"farm:worker:{EVIL}:build@list", "x")
    client.sadd(f"farm:workers:{EVIL}", "build@list", b"\xff" * 1000, *(f"build@no{n}" for n in range(50_000)))
    with honest_farm(settings) as store:
        assert build_one(settings, store).outcome is Outcome.SUCCEEDED
        until(lambda: client.scard(f"farm:workers:{EVIL}") < 100, "the register to be pruned")


def test_a_key_of_another_type_stops_nothing(settings: Settings, client: redis.Redis) -> None:
    client.set("control:build.aarch64", "not a list")
    client.set("farm:workers:build.aarch64", "not a set")
    with honest_farm(settings) as store:
        assert build_one(settings, store).outcome is Outcome.SUCCEEDED


def report(**changed: Any) -> bytes:
    return json.dumps(json.loads(wire.encode_report(report_of("build"))) | changed).encode()


def result(**changed: Any) -> dict[str, Any]:
    return json.loads(wire.encode_report(report_of("build")))["result"] | changed


DOCUMENTS = {
    "rubbish": b"rubbish",
    "deep JSON": b'{"v":3,"kind":' + DEEP,
    "a deep notice": b'{"notice":' + DEEP,
    "not UTF-8": b"\xff" * 100,
    "a nudge": b"wake",
    "an upload's": report(attempt="1.upload.1"),
    "another arch's": report(attempt="1.build.aarch64.1"),
    "no label": report(attempt="x" * 5000),
    "a date without a zone": report(started_at="2026-01-01T00:00:00"),
    "a date at the end of time": report(finished_at="9999-12-31T23:59:59-12:00"),
    "memory of 2^64": report(result=result(peak_memory_bytes=2**64)),
    "no finite seconds": report(result=result(phases=[{"name": "x", "seconds": 1e309}])),
    "1 MB of reason": report(result=result(reason="x" * 1_000_000)),
    "30,000 artifacts": report(
        result=result(artifacts=[{"name": "x", "kind": "log", "sha256": "0", "size_bytes": 1}] * 30_000)
    ),
    "a worker's name of 10,000 characters": report(worker="w" * 10_000),
    "a notice of another role's attempt": wire.encode_notice(
        wire.Notice(notice=wire.NoticeKind.HANDED_BACK, attempt="1.upload.1", token="t", worker="w@h")
    ),
}


@pytest.mark.parametrize("what", sorted(set(DOCUMENTS) - {"a nudge"}))
def test_a_document_out_of_bounds_is_dropped_alone(client: redis.Redis, control: Control, what: str) -> None:
    good = report_of("build")
    client.lpush(f"control:{EVIL}", DOCUMENTS[what])
    control.report(good)
    inbox = control.receive(timeout_s=1)
    assert ([one for one in inbox.reports if not _is_unreadable(one)], inbox.notices) == ([good], ())
    assert not inbox.is_woken


def _is_unreadable(report: wire.AnyReport) -> bool:
    """Whether it is the trouble that takes the place of a report that cannot be read."""
    return report.trouble is not None and "its report cannot be read: " in report.trouble.message


def test_documents_that_are_too_long_never_leave_redis(client: redis.Redis, control: Control) -> None:
    for _ in range(20):
        client.lpush(f"control:{EVIL}", b"x" * 17_000_000)
    honest = report_of("upload")
    control.report(honest)
    read = client.info("stats")["total_net_output_bytes"]
    assert control.receive(timeout_s=1).reports == (honest,), "another role's report waits for no flood"
    while control.receive(timeout_s=0.01).has_more:
        pass
    assert client.llen(f"control:{EVIL}") == 0
    assert client.info("stats")["total_net_output_bytes"] - read < 1_000_000


def test_a_list_with_too_many_documents_is_cut_and_honest_senders_wait(client: redis.Redis, control: Control) -> None:
    for _ in range(30):
        client.lpush(f"control:{EVIL}", *(b"x" for _ in range(1000)))
    with pytest.raises(FarmNotRunning, match="documents wait"):
        control.report(report_of("build"))
    control.report(report_of("upload"))
    assert control.receive(timeout_s=1).reports
    assert client.llen(f"control:{EVIL}") <= 20_000


def test_a_package_that_makes_a_report_too_long_fails_and_no_host_is_blamed(control: Control) -> None:
    """Were the report dropped, its worker would count as lost."""
    many = tuple(
        Artifact(name=f"p{n}.rpm", kind=ArtifactKind.RPM, sha256="0" * 64, size_bytes=1, identity="n" * 60)
        for n in range(21_500)
    )
    log = Artifact(name="build.log", kind=ArtifactKind.LOG, sha256="0" * 64, size_bytes=1)
    built = StepResult(outcome=Outcome.SUCCEEDED, artifacts=(*many, log), output=BuildResult(rpms=many))
    source = report_of("srpm")
    assert source.result is not None
    requires = replace(source.result.output, build_requires=("x",) * 110_000)  # type: ignore[type-var]
    for report in (
        replace(report_of("build"), result=built),
        replace(source, result=replace(source.result, output=requires)),
    ):
        control.report(report)
        (found,) = control.receive(timeout_s=1).reports
        assert (found.attempt, found.trouble) == (report.attempt, None)
        assert found.result is not None
        assert found.result.outcome is Outcome.FAILED
        assert "makes too much to report" in (found.result.reason or "")
        control.acknowledge()


def test_trouble_in_very_many_words_arrives_in_fewer(control: Control) -> None:
    trouble = wire.TroubleReport(code="network", retryable=True, message="x" * 1_000_000)
    control.report(replace(report_of("fetch"), result=None, trouble=trouble))
    (found,) = control.receive(timeout_s=1).reports
    assert found.trouble is not None
    assert len(found.trouble.message) < 10_000


def test_an_honest_farm_builds_beside_a_flood(settings: Settings) -> None:
    done = threading.Event()

    def flood() -> None:
        with redis.Redis.from_url(settings.redis, protocol=2) as client:
            while not done.is_set():
                client.lpush(f"control:{EVIL.replace('x86_64', 'aarch64')}", *DOCUMENTS.values())
                client.publish("farm:events", b"garbage")
                time.sleep(0.01)

    with honest_farm(settings) as store:
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            assert build_one(settings, store).outcome is Outcome.SUCCEEDED
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("event", [b"garbage", b"[1]", b"null", b"\xff", b'{"build":"1"}', DEEP, b"x" * 100_000])
def test_an_event_of_another_form_is_passed_over(leases: Leases, client: redis.Redis, event: bytes) -> None:
    events = listen(leases, 0.05)
    assert next(events) is None
    client.publish("farm:events", event)
    leases.publish({"build": 7, "step": None, "status": "finished"})
    found = next(one for one in events if one is not None)
    assert found["build"] == 7
    events.close()


def test_no_more_of_a_live_log_is_read_than_a_worker_shows(leases: Leases, client: redis.Redis) -> None:
    client.setrange("farm:log:1.build.x86_64.1", 200_000_000, "x")
    assert len(leases.read_log("1.build.x86_64.1", 0)) == LIVE_LOG_BYTES
    assert leases.read_log("1.build.x86_64.1", LIVE_LOG_BYTES) == b""
    assert leases.read_log("1.build.x86_64.1", 2**62) == b""


def test_a_job_that_fails_keeps_no_other_from_running(caplog: pytest.LogCaptureFixture) -> None:
    guard, ran = Guard(), []

    def fail() -> None:
        raise OverflowError("2^63")

    for _ in range(20):
        assert not guard.run("bad", fail)
        assert guard.run("good", lambda: ran.append(1))
    assert len(ran) == 20
    assert [record.action for record in caplog.records] == ["guard", "guard"], "the first, and the tenth"

    def judge(items: Any) -> Any:
        if 3 in items:
            raise OverflowError("3")
        return items

    assert guard.split("items", range(6), judge) == [0, 1, 2, 4, 5]
    with pytest.raises(redis.ConnectionError):
        guard.run("away", lambda: (_ for _ in ()).throw(redis.ConnectionError("away")))


def test_bounds_are_no_tighter_than_an_honest_worker_needs() -> None:
    document = wire.to_json(replace(worker_facts("build@one"), slots=1024, unfit="x" * 255))
    assert bounds.decode_facts(EVIL, "build@one", document).slots == 1024
    requires = tuple(f"perl(Some::Module::{n})" for n in range(5000))
    srpm = report_of("srpm")
    assert srpm.result is not None
    output = replace(srpm.result.output, build_requires=requires)  # type: ignore[type-var]
    long = replace(srpm, result=replace(srpm.result, output=output))
    assert len(wire.encode_report(long)) < bounds.DOCUMENT_BYTES
    bounds.check_report(long, queues.SOURCE)
    bounds.check(msgspec.to_builtins(datetime.now(UTC)))
