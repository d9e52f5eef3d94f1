"""Two at once on one build: every pair that can meet, on both databases, judged afterwards by plain SQL.

Each actor has a store of its own, as if it were a process of its own. An actor that comes too late gets WrongState, or
finds that there is nothing to do; none gets an error about deadlocks, locks or duplicate keys.
"""

import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from farm import wire
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import FarmNotRunning, LeaseLost, NotFound, WrongState
from farm.state.policy import RetryPolicy
from farm.steps.base import Message
from farm.store.database import make_engine
from farm.store.heads import Head
from farm.store.scheduling import Committed
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.state_rows import load
from farm.store.store import Store
from farm.store.waiting import QueueSeen
from tests.databases import NoPostgresql, cluster, new_database
from tests.fake_workers import Answer, fail, held_by, picked, report_for, settle_reports, token_of
from tests.invariants import broken
from tests.messages import work_of
from tests.redis_server import redis_server
from tests.scheduling import HELLO, ready

ROUNDS = 40
WITHIN_S = 60.0
AROUND = SettlePolicy(retry=RetryPolicy(max_troubles=3, delay_s=0.0))
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="no route to host")


def outcomes(url: str) -> dict[int, tuple[str, str | None]]:
    engine = make_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT id, status, outcome FROM build")).all()
    engine.dispose()
    return {row[0]: (row[1], row[2]) for row in rows}


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class Case:
    """A build and the newest message that went out for it."""

    build: int
    message: Message | None = None

    def report(self, answer: Answer | None = None) -> wire.AnyReport:
        assert self.message
        return report_for(self.message.attempt, token_of(self.message.attempt), self.message.kind, answer)


Act = Callable[[Store, Case], bool]


# --- the actions: each returns whether it changed anything ------------------------------------------------------


def cancel(store: Store, case: Case) -> bool:
    try:
        store.cancel(case.build, by="bob")
    except WrongState:
        return False
    return True


def retry(store: Store, case: Case) -> bool:
    try:
        store.retry(case.build, by="bob")
    except WrongState:
        return False
    return True


def settle(store: Store, case: Case) -> bool:
    return not settle_reports(store, [case.report()], now(), AROUND).late


def settle_failure(store: Store, case: Case) -> bool:
    return not settle_reports(store, [case.report(fail())], now(), AROUND).late


def settle_trouble(store: Store, case: Case) -> bool:
    return not settle_reports(store, [case.report(TROUBLE)], now(), AROUND).late


def _judge(finding: Finding) -> Act:
    def judge(store: Store, case: Case) -> bool:
        assert case.message
        verdict = Verdict(label=case.message.attempt, finding=finding, lease=held_by("w@h", case.message.attempt))
        return bool(store.judge([verdict], now(), AROUND).events)

    return judge


def dispatch(store: Store, case: Case) -> bool:
    return bool(store.dispatch(picked(ready(store, case.build)), now()).orders)


lose, unsend, run = _judge(Finding.LOST), _judge(Finding.UNSENT), _judge(Finding.RUNNING)


# --- where builds can be when it happens ------------------------------------------------------------------------


def cases(store: Store, stage: str, count: int) -> list[Case]:
    found = {build.id: Case(build=build.id) for build in store.add_batch([HELLO] * count, owner="ann").builds}

    def note(done: Committed) -> None:
        for order in done.orders:
            found[order.build_id].message = order.message

    def settle_all(answer: Answer | None = None) -> None:
        note(settle_reports(store, [case.report(answer) for case in found.values()], now(), AROUND))

    def send_all() -> None:
        note(store.dispatch(picked(ready(store)), now()))

    def run_all() -> None:
        labels = [case.message.attempt for case in found.values() if case.message]
        verdicts = [Verdict(label=label, finding=Finding.RUNNING, lease=held_by("w@h", label)) for label in labels]
        store.judge(verdicts, now(), AROUND)

    stages: dict[str, list[Callable[[], object]]] = {
        "ready": [],
        "dispatched": [send_all],
        "building": [send_all, settle_all, settle_all, send_all, run_all],
        "uploading": [send_all, settle_all, settle_all, send_all, settle_all, run_all],
        "failed": [send_all, settle_all, settle_all, send_all, lambda: settle_all(fail())],
        "cancelled": [send_all, run_all, lambda: [store.cancel(build, by="eve") for build in found]],
    }
    for go_on in stages[stage]:
        go_on()
    return list(found.values())


# --- the races --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Race:
    """`wins` are those who may have changed something, all told; `ends` what the build may be then."""

    stage: str
    acts: tuple[Act, ...]
    wins: frozenset[tuple[bool, ...]]
    ends: frozenset[tuple[str, str | None]]


def _race(stage: str, acts: tuple[Act, ...], wins: set[tuple[bool, ...]], *ends: str) -> Race:
    known = {"going": ("running", None), "new": ("ready", None)}
    expected = frozenset(known.get(end, ("finished", end)) for end in ends)
    return Race(stage=stage, acts=acts, wins=frozenset(wins), ends=expected)


ONE = {(True, False), (False, True)}
BOTH = {(True, True)}
RACES = {
    "cancel against the last report": _race("uploading", (cancel, settle), ONE, "cancelled", "succeeded"),
    "cancel against a failure": _race("building", (cancel, settle_failure), ONE, "cancelled", "failed"),
    "cancel against a report in the middle": _race("building", (cancel, settle), {*ONE, *BOTH}, "cancelled"),
    "cancel against cancel": _race("building", (cancel, cancel), ONE, "cancelled"),
    "cancel against dispatch": _race("ready", (cancel, dispatch), {(True, False), *BOTH}, "cancelled"),
    "cancel against a claim that is noticed": _race("dispatched", (cancel, run), {(True, False), *BOTH}, "cancelled"),
    "cancel against a lost worker": _race("building", (cancel, lose), {(True, False), *BOTH}, "cancelled"),
    "retry against cancel": _race("failed", (retry, cancel), {(True, False), *BOTH}, "going", "cancelled"),
    "retry against retry": _race("failed", (retry, retry), ONE, "going"),
    "retry against the late report": _race("cancelled", (retry, settle), {(True, False)}, "going"),
    "retry against a lost worker": _race("cancelled", (retry, lose), {(True, False)}, "going"),
    "dispatch against dispatch": _race("ready", (dispatch, dispatch), ONE, "new"),
    "one report at two schedulers": _race("building", (settle, settle), ONE, "going"),
    "one trouble at two schedulers": _race("building", (settle_trouble, settle_trouble), ONE, "going"),
    "a report against a lost worker": _race("building", (settle, lose), ONE, "going"),
    "a failure against a lost worker": _race("building", (settle_failure, lose), ONE, "failed", "going"),
    "a report against being sent again": _race("dispatched", (settle, unsend), ONE, "going", "new"),
    "a worker is lost at two schedulers": _race("building", (lose, lose), ONE, "going"),
}


@pytest.fixture
def stores(database_url: str) -> Iterator[list[Store]]:
    stores = [Store.open(database_url) for _ in range(4)]
    yield stores
    for store in stores:
        store.close()


def meet(pool: ThreadPoolExecutor, stores: list[Store], acts: tuple[Act, ...], case: Case, seed: int) -> list[bool]:
    """All at once, but for a random number of steps that each takes before."""
    barrier = threading.Barrier(len(acts))
    chance = random.Random(seed)

    def go(act: Act, store: Store, detour: int) -> bool:
        barrier.wait(WITHIN_S)
        sum(range(detour))
        return act(store, case)

    going: list[Future[bool]] = [
        pool.submit(go, act, store, chance.randrange(20_000)) for act, store in zip(acts, stores, strict=False)
    ]
    return [one.result(WITHIN_S) for one in going]


@pytest.mark.parametrize("name", list(RACES))
def test_the_first_actor_wins_and_a_later_one_is_told_so(name: str, stores: list[Store], database_url: str) -> None:
    race = RACES[name]
    found = cases(stores[0], race.stage, ROUNDS)
    with ThreadPoolExecutor(len(race.acts)) as pool:
        won = [tuple(meet(pool, stores, race.acts, case, case.build)) for case in found]
    assert set(won) <= race.wins, Counter(won)
    assert broken(database_url) == {}
    assert set(outcomes(database_url).values()) <= race.ends


def test_in_a_melee_of_clients_and_schedulers_every_build_stays_whole(stores: list[Store], database_url: str) -> None:
    """Many actors do all kinds of actions to few builds at once; afterwards each build can still be ended."""
    found = cases(stores[0], "ready", 6)
    messages: dict[int, Message] = {}

    def play(number: int) -> Counter[str]:
        chance, store, done = random.Random(number), stores[number], Counter[str]()
        acts = (cancel, retry, settle, settle_failure, settle_trouble, lose, unsend, run)
        for _ in range(100):
            case = replace(chance.choice(found))
            for order in store.dispatch(picked(ready(store, case.build)), now()).orders:
                messages[order.build_id] = order.message
            store.promote_due(now(), most=10)
            case.message = messages.get(case.build)
            act = chance.choice((*acts, settle, settle, settle))
            if case.message is not None or act in (cancel, retry):
                done[act.__name__] += act(store, case)
        return done

    with ThreadPoolExecutor(len(stores)) as pool:
        done = sum(pool.map(play, range(len(stores)), timeout=WITHIN_S), Counter[str]())
    assert min(done["cancel"], done["retry"], done["settle"]) > 5, done
    assert broken(database_url) == {}
    for case in found:
        cancel(stores[0], case)
    assert {status for status, _ in outcomes(database_url).values()} == {"finished"}
    assert broken(database_url) == {}


def test_a_killed_postgresql_only_gives_no_answer_and_keeps_its_commits() -> None:
    """In the middle of whatever transactions there are, from threads that go on as soon as it is back."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(cluster("races", is_killed=True))
        except NoPostgresql as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        stores = [Store.open(server.url, create=True) for _ in range(3)]
        found = cases(stores[0], "ready", 30)
        is_back = threading.Event()

        def play(number: int) -> int:
            """How often it was told that the database does not answer."""
            chance, rounds, away = random.Random(number), 0, 0
            while rounds < 40 or not is_back.is_set():
                rounds += 1
                try:
                    chance.choice((dispatch, retry, cancel))(stores[number], chance.choice(found))
                except FarmNotRunning:
                    away += 1
            return away

        with ThreadPoolExecutor(3) as pool:
            plays = [pool.submit(play, number) for number in range(3)]
            server.kill()
            server.start()
            is_back.set()
            assert all(one.result(WITHIN_S) for one in plays)
        assert broken(server.url) == {}
        for case in found:
            cancel(stores[0], case)
        assert {status for status, _ in outcomes(server.url).values()} == {"finished"}
        for store in stores:
            store.close()


def test_a_process_that_sleeps_in_a_transaction_on_postgresql_loses_it_and_its_locks(postgresql: str) -> None:
    # Only the transaction that sleeps has the short time: on a busy machine the others may take as long.
    short = sa.text("SET LOCAL idle_in_transaction_session_timeout = 100")  # milliseconds
    with new_database(postgresql) as url:
        sleeper, other = Store.open(url, create=True), Store.open(url)
        (case,) = cases(sleeper, "ready", 1)

        def sleep() -> None:
            with sleeper.writing() as connection:
                load(connection, [case.build])
                connection.execute(short)
                assert cancel(other, case), "which waits for the lock until the server has ended the transaction"
                connection.execute(sa.text("UPDATE build SET priority = 1"))

        with pytest.raises(FarmNotRunning, match="does not answer"):
            sleep()
        assert sleeper.build(case.build).priority == 0
        sleeper.close()
        other.close()


def test_two_leaders_record_health_without_an_error(stores: list[Store]) -> None:
    """The one that was stopped wakes up, and does not know yet that another has taken over."""

    def lead(number: int) -> None:
        store = stores[number]
        for step in range(ROUNDS):
            store.note_queues({name: QueueSeen(slots=step, busy=number) for name in ("source", "publish")})
            store.note_loads({"ann": float(number), "bob": 1.0}, now())
            store.note_head("demo/x86_64/os", Head(version=step, url="file:///1/"), instead_of=None)
            store.publish_head("demo/x86_64/os", Head(version=step, url="file:///1/"))
            store.closed(store.closing())

    for case in cases(stores[0], "building", ROUNDS):
        cancel(stores[0], case)
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(lead, range(len(stores)), timeout=WITHIN_S))
    assert stores[0].closing() == ()


def _cancel_all(url: str, ids: list[int], start: object) -> int:
    store = Store.open(url)
    start.wait()  # type: ignore[attr-defined]
    won = sum(cancel(store, Case(build=build)) for build in ids)
    store.close()
    return won


def test_processes_that_cancel_the_same_builds_share_them(stores: list[Store], database_url: str) -> None:
    """Processes lock SQLite's file in another way than threads of one do."""
    ids = [case.build for case in cases(stores[0], "building", ROUNDS)]
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager, context.Pool(3) as pool:
        barrier = manager.Barrier(3)
        won = pool.starmap(_cancel_all, [(database_url, ids, barrier)] * 3)
    assert sum(won) == ROUNDS
    assert broken(database_url) == {}


def test_a_claimer_learns_of_a_cancel_at_once_or_at_the_next_renewal(stores: list[Store], tmp_path: Path) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "d")})
    found = cases(stores[0], "dispatched", ROUNDS)
    with redis_server(settings.socket), ThreadPoolExecutor(2) as pool:
        client, worker = Leases(settings), Leases(settings)

        def cancel_and_close(store: Store, case: Case) -> bool:
            client.close_attempts(store.cancel(case.build, by="bob"))
            return True

        def claim(_: Store, case: Case) -> bool:
            assert case.message
            try:
                worker.claim(case.message.attempt, token_of(case.message.attempt), "w@h", wait_s=0.0)
            except LeaseLost:
                return False
            return True

        for case in found:
            assert case.message
            work = replace(work_of("fetch"), attempt=case.message.attempt)
            client.offer(work)
            meet(pool, stores, (cancel_and_close, claim), case, case.build)
            worker.touch(work.attempt, token_of(work.attempt))
            state = worker.states([work.attempt])[work.attempt]
            assert (state.is_held, state.is_offered) == (False, False)
            with pytest.raises(LeaseLost):
                worker.claim(work.attempt, token_of(work.attempt), "w@h", wait_s=0.0)
        client.close()
        worker.close()


def test_a_retry_of_something_missing_says_so(stores: list[Store]) -> None:
    with pytest.raises(NotFound, match="there is no build 99"):
        stores[0].retry(99, by="bob")
