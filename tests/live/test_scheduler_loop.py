"""The scheduler's loop on a real Redis and a real database, with workers that build nothing."""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from farm import wire
from farm.artifacts import open_store
from farm.artifacts.directory import DirectoryStore
from farm.broker.control import Control
from farm.broker.leader import Lock, SchedulerLock
from farm.broker.leases import Leases, Touch
from farm.config import Settings
from farm.errors import FarmNotRunning
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.model.work import AnyWork, PinnedRepository, StepResult
from farm.repositories import RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from farm.scheduler.dispatch import Dispatcher
from farm.scheduler.keep_logs import LogKeeper
from farm.steps.base import Order
from farm.steps.build import BuildInput
from farm.steps.logs import LogsInput
from farm.steps.upload import UploadInput, UploadResult
from farm.store.store import Store
from tests.artifacts import content_of
from tests.fake_workers import Answer, FakeWorkers, fail, picked, succeed, token_of
from tests.messages import report_of
from tests.redis_server import redis_server
from tests.rpms import make_rpm
from tests.scheduling import scheduling
from tests.waiting import until

WITHIN_S = 15.0
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="no route to host")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_LEASE_S": "1", "FARM_RETRY_DELAY_S": "0.01"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.database, create=True)
    yield store
    store.close()


def request(name: str = "hello", *, arches: tuple[Arch, ...] = (Arch.X86_64,)) -> BuildRequest:
    source = Source(kind=SourceKind.GIT, url=f"https://me:secret@example.org/{name}.git")
    return BuildRequest(source=source, target="demo", arches=arches)


def enqueue(settings: Settings, store: Store, *requests: BuildRequest) -> list[int]:
    batch = store.add_batch(requests or [request()], owner="ann")
    control = Control(settings)
    control.wake()
    control.close()
    return [build.id for build in batch.builds]


def finished(store: Store, build_id: int) -> Build:
    until(lambda: store.build(build_id).status is Status.FINISHED, f"the end of build {build_id}")
    return store.build(build_id)


def test_a_build_goes_through_all_of_its_steps(settings: Settings, store: Store) -> None:
    with scheduling(settings), FakeWorkers(settings) as workers:
        build = finished(store, enqueue(settings, store)[0])
    assert (build.outcome, build.nevra, build.commit) == (Outcome.SUCCEEDED, "hello-1-1.src", "c0ffee")
    assert [step.name for step in build.steps] == ["fetch", "srpm", "build x86_64", "upload x86_64"]
    assert [len(step.attempts) for step in build.steps] == [1, 1, 1, 1]
    assert build.steps[2].attempts[0].worker == "build@one"
    fetch, upload = workers.done[0], workers.done[-1]
    assert "me:secret@" in repr(fetch.input)
    assert "secret" not in repr(workers.done[1:])
    assert isinstance(upload.input, UploadInput)
    assert upload.input.srpm is not None
    assert (upload.input.srpm.name, upload.input.arches) == ("hello-1-1.src.rpm", (Arch.X86_64,))


def given_to_builds(workers: FakeWorkers) -> list[tuple[PinnedRepository, ...]]:
    return [work.input.repositories for work in workers.done if isinstance(work.input, BuildInput)]


def test_a_build_is_given_what_the_one_before_it_published(settings: Settings, store: Store) -> None:
    """And not what its report says of it: version 1 at some address of the publisher's choice."""
    backend = open_repositories(settings)
    name = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
    package = make_rpm(settings.data, arch="x86_64")
    given = RepositoryPackage(
        path=package, sha256=hashlib.sha256(package.read_bytes()).hexdigest(), filename=package.name
    )

    def answer(work: AnyWork) -> Answer:
        if work.kind != "upload":
            return succeed(work.kind)
        backend.add(name, [given])
        said = UploadResult(versions=(("demo/x86_64/os", 1, "http://evil/"),))
        return StepResult(outcome=Outcome.SUCCEEDED, output=said)

    with scheduling(settings), FakeWorkers(settings, answer=answer) as workers:
        for _ in range(2):
            finished(store, enqueue(settings, store)[0])
    published = PinnedRepository(name="farm-demo-x86_64", url=backend.url(name, 1), version=1)
    assert given_to_builds(workers) == [(), (published,)]


def test_a_repository_whose_state_is_unknown_is_waited_for(settings: Settings, store: Store) -> None:
    settings = replace(settings, retry_delay_s=1.0)
    settings.repositories_dir.touch()  # where a folder should be
    with scheduling(settings), FakeWorkers(settings) as workers:
        build_id = enqueue(settings, store)[0]

        def waits_for() -> str:
            return "".join(step.waits_for or "" for step in store.build(build_id).steps if step.kind == "build")

        until(lambda: "retry in" in waits_for() and "repository demo/x86_64/os" in waits_for(), "the wait")
        settings.repositories_dir.unlink()
        build = finished(store, build_id)
    assert build.outcome is Outcome.SUCCEEDED
    assert given_to_builds(workers) == [()]


def test_a_record_that_cannot_be_read_ends_its_build_and_keeps_no_other_from_being_sent(
    settings: Settings, store: Store
) -> None:
    bad, good = enqueue(settings, store, request("bad"), request("good"))
    with scheduling(settings):
        with FakeWorkers(settings, names=("source",)):
            until(lambda: all(store.build(one).steps[1].outcome for one in (bad, good)), "both source packages")
        with sqlite3.connect(settings.data / "farm.db") as connection:
            connection.execute("UPDATE step SET output = '{}' WHERE job_id = ? AND kind = 'srpm'", (bad,))
        connection.close()
        with FakeWorkers(settings):
            assert finished(store, good).outcome is Outcome.SUCCEEDED
            ended = finished(store, bad)
    assert ended.outcome is Outcome.ERRORED
    assert "cannot be sent" in (ended.reason or "")


def test_a_step_of_an_extension_that_is_gone_ends_its_build_and_no_other(settings: Settings, store: Store) -> None:
    gone, good = enqueue(settings, store)[0], enqueue(settings, store)[0]
    with sqlite3.connect(settings.data / "farm.db") as connection:
        connection.execute("UPDATE step SET kind = 'taste' WHERE job_id = ? AND kind = 'fetch'", (gone,))
        connection.execute(
            "UPDATE step_need SET needs_kind = 'taste' WHERE job_id = ? AND needs_kind = 'fetch'", (gone,)
        )
    connection.close()
    with scheduling(settings), FakeWorkers(settings):
        assert finished(store, good).outcome is Outcome.SUCCEEDED
        ended = finished(store, gone)
    assert ended.outcome is Outcome.ERRORED
    assert "the module of step type taste is not in FARM_EXTENSIONS" in (ended.reason or "")


def test_the_logs_of_a_failed_build_are_handed_to_a_publisher(settings: Settings, store: Store) -> None:
    settings = replace(settings, upload_logs=True)

    def answer(work: AnyWork) -> Answer:
        return fail() if work.kind == "build" else succeed(work.kind)

    with scheduling(settings), FakeWorkers(settings, answer=answer) as workers:
        build = finished(store, enqueue(settings, store)[0])
    assert build.outcome is Outcome.FAILED
    given = workers.done[-1].input
    assert isinstance(given, LogsInput)
    assert [log.artifact.name for log in given.logs] == ["fetch.log", "srpm.log"]


def test_farm_trouble_is_tried_again_and_a_failed_package_is_not(settings: Settings, store: Store) -> None:
    tries: list[AnyWork] = []

    def answer(work: AnyWork) -> Answer:
        if work.kind != "build":
            return succeed(work.kind)
        tries.append(work)
        trouble = wire.TroubleReport(code="network", retryable=True, message="no route")
        return trouble if len(tries) < 3 else fail()

    with scheduling(settings), FakeWorkers(settings, answer=answer):
        build = finished(store, enqueue(settings, store)[0])
    assert (build.outcome, build.reason) == (Outcome.FAILED, "build x86_64: make: *** [all] Error 2")
    outcomes = [attempt.outcome for attempt in build.steps[2].attempts]
    assert outcomes == [Outcome.ERRORED, Outcome.ERRORED, Outcome.FAILED]
    upload = build.steps[3]
    assert (upload.outcome, upload.reason, upload.attempts) == (Outcome.CANCELLED, "build x86_64 failed", ())


def test_a_worker_that_dies_is_noticed_and_its_step_done_again(settings: Settings, store: Store) -> None:
    settings = replace(settings, lease_s=3)  # longer than the scheduler takes to see it held
    deaths: list[str] = []

    def answer(work: AnyWork) -> Answer | None:
        if work.kind == "build" and not deaths:
            deaths.append(work.attempt)
            return None
        return succeed(work.kind)

    with scheduling(settings), FakeWorkers(settings, answer=answer):
        build = finished(store, enqueue(settings, store)[0])
    assert build.outcome is Outcome.SUCCEEDED
    first, second = build.steps[2].attempts
    assert (first.outcome, second.outcome) == (Outcome.ERRORED, Outcome.SUCCEEDED)
    assert first.reason is not None
    assert "stopped renewing its lease" in first.reason


def test_an_emptied_redis_loses_nothing(settings: Settings, store: Store) -> None:
    client = redis.Redis.from_url(settings.redis)
    with scheduling(settings):
        with FakeWorkers(settings, names=()):  # nobody takes anything
            ids = enqueue(settings, store, request("a"), request("b"))
        workers = FakeWorkers(settings)
        workers.announce()
        until(lambda: store.build(ids[0]).steps[0].status is Status.DISPATCHED, "dispatch")
        client.flushall()
        with workers:
            assert {finished(store, build_id).outcome for build_id in ids} == {Outcome.SUCCEEDED}
    client.close()


def test_cancelling_takes_the_lease_away(settings: Settings, store: Store) -> None:
    go_on = threading.Event()

    def answer(work: AnyWork) -> Answer:
        if work.kind == "build":
            go_on.wait(WITHIN_S)
        return succeed(work.kind)

    settings = replace(settings, lease_s=30)  # so that it does not end by itself
    leases = Leases(settings)
    with scheduling(settings), FakeWorkers(settings, answer=answer) as workers:
        build_id = enqueue(settings, store)[0]
        until(lambda: bool(workers.done) and workers.done[-1].kind == "build", "the build step")
        work = workers.done[-1]
        assert leases.touch(work.attempt, token_of(work.attempt)) is Touch.HELD
        assert work.attempt in store.cancel(build_id, by="bob")
        until(lambda: leases.touch(work.attempt, token_of(work.attempt)) is Touch.GONE, "the end of the lease")
        go_on.set()
        build = finished(store, build_id)
    assert (build.outcome, build.reason) == (Outcome.CANCELLED, "cancelled by bob")
    leases.close()


def test_without_a_worker_a_build_says_so(settings: Settings, store: Store) -> None:
    with scheduling(settings), FakeWorkers(settings):
        build_id = enqueue(settings, store, request(arches=(Arch.X86_64, Arch.PPC64LE)))[0]

        def reasons() -> list[str | None]:
            return [step.waits_for for step in store.build(build_id).steps]

        until(lambda: reasons()[4:6] == ["no worker for ppc64le", "waits for build ppc64le"], "the reason")


def test_the_second_scheduler_waits_for_the_first_to_end(settings: Settings, store: Store) -> None:
    with FakeWorkers(settings), scheduling(settings), scheduling(settings):
        ids = enqueue(settings, store, *[request(f"p{number}") for number in range(5)])
        builds = [finished(store, build_id) for build_id in ids]
    assert {len(step.attempts) for build in builds for step in build.steps} == {1}


def test_a_target_that_is_gone_ends_the_build_with_its_name(settings: Settings, store: Store) -> None:
    source = Source(kind=SourceKind.GIT, url="https://example.org/a.git")
    with scheduling(settings), FakeWorkers(settings):
        wanted = BuildRequest(source=source, target="nowhere", arches=(Arch.X86_64,))
        build = finished(store, enqueue(settings, store, wanted)[0])
    assert build.outcome is Outcome.ERRORED
    assert "nowhere" in (build.reason or "")


def test_a_target_whose_file_is_broken_is_waited_for(settings: Settings, store: Store, tmp_path: Path) -> None:
    settings = replace(settings, targets=tmp_path, retry_delay_s=0.5)
    (tmp_path / "demo.toml").write_text("distribution = ")
    with scheduling(settings), FakeWorkers(settings):
        build_id = enqueue(settings, store)[0]
        until(lambda: [one.reason for one in store.build(build_id).steps[0].attempts if one.reason], "trouble")
        assert "bad-target: " in (store.build(build_id).steps[0].attempts[0].reason or "")
        (tmp_path / "demo.toml").unlink()  # so that the shipped one counts
        build = finished(store, build_id)
    assert build.outcome is Outcome.SUCCEEDED


def test_an_outage_of_the_broker_delays_and_loses_nothing(tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_RETRY_DELAY_S": "0.01", "FARM_LEASE_S": "3"})
    store = Store.open(settings.database, create=True)
    with ExitStack() as stack:
        with redis_server(settings.socket):
            stack.enter_context(scheduling(settings))
            until(lambda: redis.Redis(unix_socket_path=str(settings.socket)).exists("farm:scheduler") == 1, "a leader")
        build_id = store.add_batch([request()], owner="ann").builds[0].id
        stack.enter_context(redis_server(settings.socket))
        stack.enter_context(FakeWorkers(settings))
        assert finished(store, build_id).outcome is Outcome.SUCCEEDED
        stack.pop_all().close()
    store.close()


def test_an_offer_made_when_the_broker_went_down_is_withdrawn(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its messages may have been sent. A worker must not find an offer that SQL has given up."""
    send, failed = Dispatcher.send, []

    def send_or_not(self: Dispatcher, orders: Sequence[Order]) -> None:
        send(self, orders)
        if orders and not failed:
            failed.extend(order.message.attempt for order in orders)
            raise FarmNotRunning("away")

    monkeypatch.setattr(Dispatcher, "send", send_or_not)
    leases = Leases(settings)
    with scheduling(settings), FakeWorkers(settings, offer_wait_s=1) as workers:
        enqueue(settings, store)
        until(lambda: leases.closed(failed) == failed != [], "the end of what was not sent")
        assert not leases.states(failed)[failed[0]].is_offered
        until(lambda: workers.done and workers.done[-1].kind == "upload", "the build to go on")
    leases.close()


def test_a_stand_by_goes_by_what_the_other_scheduler_noted(settings: Settings, store: Store) -> None:
    lock = SchedulerLock(settings)
    assert lock.take() is not Lock.OTHERS
    with scheduling(settings):
        store.note_loads({"ann": 500.0}, datetime.now(UTC))
    assert set(store.loads()) == {"ann"}, "who never led has nothing to note"
    with scheduling(settings), redis.Redis.from_url(settings.redis) as client:
        store.note_loads({"bob": 500.0}, datetime.now(UTC))
        lock.release()
        until(lambda: client.exists("farm:scheduler"), "the stand-by to take over")
    lock.close()
    assert 490 < store.loads()["bob"][0] <= 500


def test_reports_that_are_dropped_say_nothing_of_a_host(settings: Settings, store: Store) -> None:
    control = Control(settings)
    for number in range(5):
        report = replace(report_of("fetch"), attempt=f"{number}.fetch.1", worker="build@one", result=None)
        control.report(replace(report, trouble=TROUBLE))
    with scheduling(settings), FakeWorkers(settings):
        finished(store, enqueue(settings, store)[0])
    assert store.holds() == {}
    control.close()


def test_an_artifact_store_that_hangs_keeps_no_build_waiting(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a network may. Only the log of a cancelled attempt waits for it."""
    settings = replace(settings, lease_s=30)
    leases, hangs, put = Leases(settings), threading.Event(), DirectoryStore.put
    goes_on = threading.Event()

    def put_later(self: DirectoryStore, path: Path, **facts: Any) -> Artifact:
        hangs.set()
        goes_on.wait(WITHIN_S)
        return put(self, path, **facts)

    def answer(work: AnyWork) -> Answer | None:
        if work.build_id == 1:
            leases.show_log(work.attempt, 0, b"cc -c a.c\n")
            return None
        return succeed(work.kind)

    monkeypatch.setattr(DirectoryStore, "put", put_later)
    with scheduling(settings), FakeWorkers(settings, answer=answer) as workers:
        first = enqueue(settings, store)[0]
        until(lambda: workers.done, "the first build to run")
        store.cancel(first, by="bob")
        until(hangs.is_set, "its log to be kept")
        assert finished(store, enqueue(settings, store)[0]).outcome is Outcome.SUCCEEDED
        goes_on.set()
        until(lambda: store.build(first).steps[0].attempts[0].artifacts, "its log")
    leases.close()


def test_a_database_that_goes_away_while_work_is_made_ends_no_build(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, failed = Store.note_head, []

    def note_or_not(self: Store, path: str, *head: Any, **more: Any) -> Any:
        if len(failed) < 2:
            failed.append(path)
            raise FarmNotRunning("database is locked")
        return note(self, path, *head, **more)

    monkeypatch.setattr(Store, "note_head", note_or_not)
    with scheduling(settings), FakeWorkers(settings):
        assert finished(store, enqueue(settings, store)[0]).outcome is Outcome.SUCCEEDED
    assert failed


def test_a_log_that_cannot_be_kept_keeps_no_other_from_being_kept(settings: Settings, store: Store) -> None:
    settings = replace(settings, lease_s=30)
    leases = Leases(settings)
    log_keeper = LogKeeper(settings, leases, store)
    build_id = enqueue(settings, store)[0]
    label = f"{build_id}.fetch.1"
    with store.read_view() as look:
        store.dispatch(picked(look.ready("source", 0, "ann", most=1)), datetime.now(UTC))
    store.cancel(build_id, by="bob")
    leases.show_log("nonsense", 0, b"no label")
    with redis.Redis.from_url(settings.redis) as client:
        client.lpush("farm:log:1.no.log", "at all")
    leases.show_log(label, 0, b"cc -c a.c\n")
    log_keeper.note(["nonsense", "1.no.log", label])
    until(lambda: store.build(build_id).steps[0].attempts[0].artifacts, "the log")
    log_keeper.close()
    leases.close()


def test_reports_that_a_dead_scheduler_had_received_are_settled_by_the_next(settings: Settings, store: Store) -> None:
    settings = replace(settings, lease_s=30)
    go_on = threading.Event()

    def answer(work: AnyWork) -> Answer:
        if work.kind == "build":
            go_on.wait(WITHIN_S)
        return succeed(work.kind)

    control = Control(settings)
    with FakeWorkers(settings, answer=answer) as workers:
        with scheduling(settings):
            build_id = enqueue(settings, store)[0]
            until(lambda: bool(workers.done) and workers.done[-1].kind == "build", "the build step")
        go_on.set()
        until(lambda: bool(control.receive(timeout_s=0.1).reports), "a report that nobody settles")
        with scheduling(settings):
            build = finished(store, build_id)
    assert [len(step.attempts) for step in build.steps] == [1, 1, 1, 1]
    control.close()


@pytest.mark.parametrize("end", ["cancelled", "lost"])
def test_the_log_of_an_attempt_that_never_reports_is_kept(settings: Settings, store: Store, end: str) -> None:
    settings = replace(settings, lease_s=3)
    leases = Leases(settings)
    shown: list[str] = []

    def answer(work: AnyWork) -> Answer | None:
        if work.kind == "build" and not shown:
            leases.show_log(work.attempt, 0, b"cc -c a.c\n")
            shown.append(work.attempt)
            return None
        return succeed(work.kind)

    def logs(build_id: int) -> list[str]:
        artifacts = [a for step in store.build(build_id).steps for one in step.attempts for a in one.artifacts]
        return [a.sha256 for a in artifacts if a.name == "build.x86_64.log"]

    with scheduling(settings), FakeWorkers(settings, answer=answer):
        build_id = enqueue(settings, store)[0]
        until(lambda: bool(shown), "the build step")
        if end == "cancelled":
            store.cancel(build_id, by="bob")
        until(lambda: bool(logs(build_id)), "the log")
        assert finished(store, build_id).steps[2].attempts[0].artifacts[0].name == "build.x86_64.log"
    kept = content_of(open_store(settings), logs(build_id)[0])
    assert kept.startswith(b"cc -c a.c\n")
    assert b"ended without a report" in kept
    leases.close()


def test_a_scheduler_that_takes_over_an_emptied_redis_lets_workers_come_back(settings: Settings, store: Store) -> None:
    settings = replace(settings, lease_s=8)
    go_on = threading.Event()

    def answer(work: AnyWork) -> Answer:
        if work.kind == "build":
            go_on.wait(WITHIN_S)
        return succeed(work.kind)

    leases = Leases(settings)
    with FakeWorkers(settings, answer=answer) as workers, redis.Redis.from_url(settings.redis) as client:
        until(lambda: leases.uptime_s() >= settings.lease_s, "a Redis that was there all the time")
        with scheduling(settings):
            build_id = enqueue(settings, store)[0]
            until(lambda: _runs(store, build_id), "the build step to run")
        client.flushall()
        with scheduling(settings):
            until(lambda: client.get("farm:scheduler") is not None, "another scheduler")
            time.sleep(3)  # some looks: nothing is to happen, so there is nothing to wait for
            assert _runs(store, build_id)
            work = workers.done[-1]
            leases.ask_back(work.attempt, token_of(work.attempt), "build@one")
            until(lambda: leases.touch(work.attempt, token_of(work.attempt)) is Touch.HELD, "the lease")
            go_on.set()
            build = finished(store, build_id)
    assert [len(step.attempts) for step in build.steps] == [1, 1, 1, 1]
    leases.close()


def _runs(store: Store, build_id: int) -> bool:
    return any(step.kind == "build" and step.status is Status.RUNNING for step in store.build(build_id).steps)
