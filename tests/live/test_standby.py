"""Two schedulers as processes on one Redis and one database: one leads, and the other takes over when it has to."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm.broker.control import Control
from farm.broker.leader import HOLD_S
from farm.config import Settings
from farm.model.outcome import Outcome, Status
from farm.model.work import AnyWork
from farm.store.database import make_engine
from farm.store.store import Store
from tests.databases import new_database
from tests.fake_workers import Answer, FakeWorkers, succeed
from tests.invariants import broken
from tests.promises import Stopwatch
from tests.redis_server import redis_server
from tests.scheduling import HELLO
from tests.waiting import until

pytestmark = pytest.mark.live
REPLACED_WITHIN_S = 15.0
STOPPED_S = 20.0
WITHIN_S = 60.0


@dataclass(kw_only=True)
class Pair:
    """`leader` leads and `standby` waits, until the test does something about it."""

    settings: Settings
    store: Store
    leader: "subprocess.Popen[bytes]"
    standby: "subprocess.Popen[bytes]"
    hold: threading.Event = field(default_factory=threading.Event)

    def enqueue(self, count: int) -> list[int]:
        builds = self.store.add_batch([HELLO] * count, owner="ann").builds
        control = Control(self.settings)
        control.wake()
        control.close()
        return [build.id for build in builds]

    def are_over(self, ids: list[int]) -> bool:
        return all(self.store.build(build).status is Status.FINISHED for build in ids)

    def is_building(self, build: int) -> bool:
        steps = self.store.build(build).steps
        return any(step.kind == "build" and step.status is Status.RUNNING for step in steps)

    def attempts(self, ids: list[int]) -> set[int]:
        return {len(step.attempts) for build in ids for step in self.store.build(build).steps}

    def log(self, who: "subprocess.Popen[bytes]") -> str:
        return (self.settings.data / f"{who.pid}.log").read_text()


@contextmanager
def scheduler(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FARM_DATA": str(settings.data), "PYTHONUNBUFFERED": "1"}
    env |= {"FARM_DATABASE_URL": settings.database_url, "FARM_RETRY_DELAY_S": "0.1"}
    first = settings.data / "starting.log"
    with first.open("ab") as log:
        argv = [sys.executable, "-m", "farm.scheduler"]
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    first.rename(settings.data / f"{process.pid}.log")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@contextmanager
def pair(data: Path, url: str) -> Iterator[Pair]:
    """With workers that build nothing. While `hold` is set, `build` steps are under way and do not end."""
    settings = replace(Settings.from_env({"FARM_DATA": str(data)}), database_url=url)
    with ExitStack() as stack:
        stack.enter_context(redis_server(settings.socket))
        store = Store.open(url)
        stack.callback(store.close)
        leader = stack.enter_context(scheduler(settings))
        until(lambda: "action=start" in (data / f"{leader.pid}.log").read_text(), "the leader")
        standby = stack.enter_context(scheduler(settings))
        until(lambda: "action=stand-by" in (data / f"{standby.pid}.log").read_text(), "the standby")
        two = Pair(settings=settings, store=store, leader=leader, standby=standby)

        def answer(work: AnyWork) -> Answer:
            if work.kind == "build":
                until(lambda: not two.hold.is_set(), "the test to let builds end")
            return succeed(work.kind)

        workers = stack.enter_context(FakeWorkers(settings, slots=4, answer=answer, offer_wait_s=20))
        done = threading.Event()
        beat = threading.Thread(target=_announce, args=(workers, done))
        beat.start()
        stack.callback(beat.join)
        stack.callback(done.set)
        yield two


def _announce(workers: FakeWorkers, done: threading.Event) -> None:
    while not done.wait(5.0):
        workers.announce()


def is_killed(two: Pair, url: str) -> None:
    """Builds go on within 15 s of the leader's SIGKILL, also those that it had under way, and none is done twice."""
    two.hold.set()
    before = two.enqueue(3)
    until(lambda: all(two.is_building(build) for build in before), "builds under way")
    two.leader.kill()
    watch = Stopwatch()
    after = two.enqueue(3)
    two.hold.clear()
    go_on(two, [*before, *after], watch, REPLACED_WITHIN_S)
    judged(two, url, [*before, *after])


def stop_between_transactions(two: Pair, url: str) -> None:
    """One that is stopped inside one holds its locks: on PostgreSQL for 30 s, on SQLite until it goes on."""
    deadline = time.monotonic() + WITHIN_S
    os.kill(two.leader.pid, signal.SIGSTOP)
    while is_locked(url):
        assert time.monotonic() < deadline, "the leader is always inside a transaction"
        os.kill(two.leader.pid, signal.SIGCONT)
        time.sleep(0.01)
        os.kill(two.leader.pid, signal.SIGSTOP)


def is_locked(url: str) -> bool:
    engine = make_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            with closing(sqlite3.connect(str(engine.url.database), timeout=0.2)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            return False
        busy = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()"
        with engine.connect() as connection:
            return bool(connection.execute(sa.text(busy)).scalar())
    except sqlite3.OperationalError:
        return True
    finally:
        engine.dispose()


def is_stopped(two: Pair, url: str) -> None:
    """A leader that is stopped past its hold is replaced, and when it wakes up it steps back at once."""
    two.hold.set()
    before = two.enqueue(3)
    until(lambda: all(two.is_building(build) for build in before), "builds under way")
    stop_between_transactions(two, url)
    stopped_at, watch = time.monotonic(), Stopwatch()
    after = two.enqueue(3)
    two.hold.clear()
    go_on(two, [*before, *after], watch, REPLACED_WITHIN_S)
    until(lambda: time.monotonic() - stopped_at > STOPPED_S, "the end of its stop")
    # Reports that come now are read by either scheduler, and settled once.
    two.hold.set()
    later = two.enqueue(3)
    os.kill(two.leader.pid, signal.SIGCONT)
    two.hold.clear()
    go_on(two, later, Stopwatch(), HOLD_S)
    until(lambda: "another scheduler has taken over" in two.log(two.leader), "the old leader to step back")
    assert "Traceback" not in two.log(two.leader)
    last = two.enqueue(2)
    go_on(two, last, Stopwatch(), HOLD_S)
    assert two.leader.poll() is None, "it is the standby now"
    judged(two, url, [*before, *after, *later, *last])
    two.standby.send_signal(signal.SIGTERM)
    assert two.standby.wait(WITHIN_S) == 0
    again = two.enqueue(1)
    go_on(two, again, Stopwatch(), HOLD_S)


def go_on(two: Pair, builds: list[int], watch: Stopwatch, limit_s: float) -> None:
    """The builds end, and within the limit."""
    until(lambda: two.are_over(builds), "the builds to go on")
    assert watch.within(limit_s)


def judged(two: Pair, url: str, ids: list[int]) -> None:
    assert {two.store.build(build).outcome for build in ids} == {Outcome.SUCCEEDED}
    assert two.attempts(ids) == {1}
    assert broken(url) == {}
    assert "Traceback" not in two.log(two.standby)


def test_a_leader_that_dies_or_sleeps_is_replaced_and_does_no_harm_when_it_wakes(
    tmp_path: Path, postgresql: str
) -> None:
    """All four at once, since they mostly wait: killed and stopped, on SQLite and on PostgreSQL."""
    with ExitStack() as stack:
        urls = [f"sqlite:///{tmp_path / name}/farm.db" for name in ("a", "b")]
        urls += [stack.enter_context(new_database(postgresql)) for _ in range(2)]
        for name, url in zip("abcd", urls, strict=True):
            (tmp_path / name).mkdir()
            Store.open(url, create=True).close()  # one after the other: Alembic cannot migrate two in one process

        def play(number: int) -> None:
            with pair(tmp_path / "abcd"[number], urls[number]) as two:
                (is_stopped, is_killed)[number % 2](two, urls[number])

        with ThreadPoolExecutor(len(urls)) as pool:
            for one in [pool.submit(play, number) for number in range(len(urls))]:
                one.result()
