"""Leases on a real Redis: one claimer, fencing by token, a closed attempt found out at the next touch."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from farm.broker.control import Control
from farm.broker.leases import EncodedWork, Leases, Touch
from farm.config import Settings
from farm.errors import FarmNotRunning, LeaseLost
from farm.wire import digest_of
from tests.fake_workers import held_by
from tests.messages import KINDS, report_of, work_of, worker_facts
from tests.redis_server import redis_server
from tests.waiting import until

WORK = work_of("fetch")
TOKEN = "t"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    data = tmp_path_factory.mktemp("farm")
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_LEASE_S": "1"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}.1"


def test_exactly_one_of_many_claims_an_attempt(leases: Leases, label: str) -> None:
    work = replace(WORK, attempt=label)
    leases.offer(work)

    def claim(worker: int) -> bool:
        try:
            return leases.claim(label, TOKEN, f"w{worker}", wait_s=0.2) == work
        except LeaseLost:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(8))) == [False] * 7 + [True]
    assert leases.states([label])[label].is_held


def test_another_token_renews_nothing(leases: Leases, label: str) -> None:
    leases.offer(replace(WORK, attempt=label))
    leases.claim(label, "mine", "w", wait_s=0.1)
    assert leases.touch(label, "mine") is Touch.HELD
    assert leases.touch(label, "another") is Touch.GONE
    assert leases.holders([label, "9.fetch.1"]) == {label: held_by("w", label, "mine")}


def test_no_key_has_a_token(leases: Leases, settings: Settings, label: str) -> None:
    leases.offer(replace(WORK, attempt=label))
    leases.claim(label, "a-very-secret-token", "w", wait_s=0.1)
    leases.turn_away([(label, digest_of("a-very-secret-token"))])
    with redis.Redis.from_url(settings.redis) as client:
        for key in client.scan_iter():
            assert b"secret" not in key
            assert b"secret" not in (client.dump(key) or b""), key


def test_an_attempt_that_is_turned_away_is_gone_and_no_other(leases: Leases, label: str) -> None:
    leases.turn_away([(label, digest_of("guess"))])
    assert leases.touch(label, "guess") is Touch.GONE
    assert leases.touch(label, "honest") is Touch.MISSING
    leases.offer(replace(WORK, attempt=label))
    leases.claim(label, "honest", "w", wait_s=0.1)
    assert leases.touch(label, "honest") is Touch.HELD


def test_a_claim_waits_for_an_offer_that_is_still_to_come(leases: Leases, label: str) -> None:
    work = replace(WORK, attempt=label)
    leases.expect(label)
    with ThreadPoolExecutor(1) as pool:
        claimed = pool.submit(leases.claim, label, TOKEN, "w", wait_s=10)
        leases.offer(work)
        assert claimed.result(timeout=5) == work


def test_a_claim_of_nothing_ends(leases: Leases, label: str) -> None:
    leases.expect(label)
    with pytest.raises(LeaseLost, match="not offered yet"):
        leases.claim(label, "t", "w", wait_s=0.1)


def test_only_a_few_workers_wait_for_an_expected_attempt_and_none_for_others(leases: Leases, label: str) -> None:
    """A wait occupies a slot, and messages may be forged."""
    began_at = time.monotonic()
    with pytest.raises(LeaseLost, match="not expected"):
        leases.claim(label, "t", "w", wait_s=20)
    leases.expect(label)
    for _ in range(2):
        with pytest.raises(LeaseLost, match="not offered yet"):
            leases.claim(label, "t", "w", wait_s=0.1)
    leases.expect(label)
    for _ in range(50):
        with pytest.raises(LeaseLost, match="not offered yet"):
            leases.claim(label, "t", "w", wait_s=20)
    assert time.monotonic() - began_at < 10
    leases.offer(replace(WORK, attempt=label))
    assert leases.claim(label, "t", "w", wait_s=0.1).attempt == label


def test_the_offer_tells_whether_a_message_came_before_it_and_was_dropped(leases: Leases, label: str) -> None:
    works = [replace(WORK, attempt=f"{label}{name}") for name in ("missed", "waiting", "quiet")]
    missed, waiting, quiet = (work.attempt for work in works)
    leases.hand_on(expects=[missed, waiting, quiet])
    with pytest.raises(LeaseLost):
        leases.claim(missed, "t", "w", wait_s=0.1)
    with ThreadPoolExecutor(1) as pool:
        claim = pool.submit(leases.claim, waiting, "t", "w", wait_s=20)
        until(lambda: leases._redis.hget(f"farm:offer:{waiting}", "waits") == b"1", "the claim to wait")
        assert leases.hand_on(works=works, closes=["x"], events=[{}]) == {missed}
        assert claim.result(timeout=5).attempt == waiting
    assert leases.hand_on(works=[replace(WORK, attempt=f"{label}never")]) == frozenset()


def test_a_key_of_another_type_stops_no_other_offer(leases: Leases, label: str) -> None:
    """As an account of the broker can make it; the scheduler is told."""
    works = [replace(WORK, attempt=f"{label}{name}") for name in ("first", "wrong", "unwoken", "last")]
    first, wrong, unwoken, last = (work.attempt for work in works)
    leases._redis.set(f"farm:offer:{wrong}", b"no hash")
    leases._redis.set(f"farm:wake:{unwoken}", b"no list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE "):
        leases.hand_on(works=works)
    offered = {one: state.is_offered for one, state in leases.states([first, unwoken, last]).items()}
    assert offered == {first: True, unwoken: True, last: True}


def test_works_that_are_long_together_are_offered_whole_and_in_order(leases: Leases, label: str) -> None:
    """More bytes than one script takes, among them one work that alone has more."""
    sizes = (2**10, 2**19, 2**19, 2**21, 2**10)
    works = [EncodedWork(attempt=f"{label}{place}", document=b"x" * size) for place, size in enumerate(sizes)]
    marked = works[3].attempt
    leases._redis.hset(f"farm:offer:{marked}", "missed", 1)
    assert leases.hand_on(works=works) == {marked}
    stored = [leases._redis.hstrlen(f"farm:offer:{work.attempt}", "work") for work in works]
    assert stored == list(sizes)
    leases.close_attempts(work.attempt for work in works)


def test_closing_ends_a_lease_an_offer_and_a_wait(leases: Leases, label: str) -> None:
    waiting, held, offered = f"{label}w", f"{label}h", f"{label}o"
    leases.offer(replace(WORK, attempt=held))
    leases.claim(held, TOKEN, "w", wait_s=0.1)
    leases.offer(replace(WORK, attempt=offered))
    leases.expect(waiting)
    with ThreadPoolExecutor(1) as pool:
        claim = pool.submit(leases.claim, waiting, "t", "w", wait_s=20)
        leases.close_attempts([waiting, held, offered])
        with pytest.raises(LeaseLost):
            claim.result(timeout=5)
    assert leases.touch(held, TOKEN) is Touch.GONE
    with pytest.raises(LeaseLost):
        leases.claim(offered, TOKEN, "w", wait_s=0.1)


def test_many_attempts_are_handed_on_asked_for_and_closed_together(leases: Leases, label: str) -> None:
    """More than one script takes at a time."""
    labels = [f"{label}{number}" for number in range(600)]
    leases.hand_on(works=[replace(WORK, attempt=one) for one in labels], expects=[f"{one}x" for one in labels])
    held = {one: held_by("w", one, TOKEN) for one in labels[::250]}
    for one in held:
        leases.claim(one, TOKEN, "w", wait_s=0.1)
    assert leases.holders(labels) == held
    states = leases.states(labels)
    assert {one for one, state in states.items() if state.is_held} == set(held)
    assert sum(state.is_offered for state in states.values()) == len(labels) - len(held)
    with pytest.raises(LeaseLost, match="not offered yet"):  # and not: it is not expected
        leases.claim(f"{labels[-1]}x", "t", "w", wait_s=0.1)
    leases.close_attempts(labels)
    assert leases.closed(labels) == labels
    assert not [state for state in leases.states(labels).values() if state.is_held or state.is_offered]


def test_all_events_of_a_pass_are_heard_in_order(leases: Leases) -> None:
    told = [{"build": number} for number in range(600)]
    heard = leases.events(timeout_s=5)
    assert next(heard) is None  # from now on it listens
    leases.hand_on(events=told)
    assert [next(heard) for _ in told] == told


def test_a_lease_that_is_not_renewed_ends(leases: Leases, label: str) -> None:
    leases.offer(replace(WORK, attempt=label))
    leases.claim(label, TOKEN, "w", wait_s=0.1)
    ended = threading.Event()
    for _ in range(300):
        if not leases.states([label])[label].is_held:
            ended.set()
            break
        ended.wait(0.01)
    assert ended.is_set()
    assert leases.touch(label, TOKEN) is Touch.MISSING


def test_a_live_log_is_read_from_any_offset(leases: Leases, label: str) -> None:
    leases.show_log(label, 0, b"one\n")
    for _ in range(2):  # as after a connection that broke
        leases.show_log(label, 4, b"\xfftwo\n")
    assert leases.read_log(label, 0) == b"one\n\xfftwo\n"
    assert leases.read_log(label, 4) == b"\xfftwo\n"
    assert leases.read_log(label, 99) == b""


def test_the_register_lists_who_is_there(leases: Leases) -> None:
    facts = worker_facts("build@here")
    leases.announce(facts)
    assert leases.workers() == (facts,)
    leases.retire(facts.name)
    assert leases.workers() == ()


def test_reports_are_there_until_they_are_settled(control: Control) -> None:
    reports = [report_of(kind) for kind in KINDS]
    for report in reports:
        control.report(report)
    assert set(control.receive(timeout_s=1).reports) == set(reports)
    control.recover()  # a scheduler that died in between does this at its next start
    assert set(control.receive(timeout_s=1).reports) == set(reports)
    control.acknowledge()
    control.recover()
    assert control.receive(timeout_s=0.01).reports == ()


def test_a_wake_and_rubbish_wake_and_bring_nothing(control: Control) -> None:
    control.wake()
    control._redis.lpush("control:source", b"rubbish")
    assert control.receive(timeout_s=5).reports == ()
    control.acknowledge()


def test_a_claim_outlives_a_connection_that_breaks_and_is_the_same_one(settings: Settings, label: str) -> None:
    """The first answer gets lost on its way: the lease is there, and is its own, and starts again with the second."""
    work = replace(WORK, attempt=label)
    leases = Leases(replace(settings, lease_s=30))
    leases.offer(work)
    ask, lost = leases._claim, []

    def ask_and_lose(**given: object) -> object:
        answer = ask(**given)
        if not lost:
            lost.append(answer)
            leases._redis.pexpire(f"farm:lease:{label}", 10_000)
            raise redis.ConnectionError("Connection reset by peer")
        return answer

    leases._claim = ask_and_lose  # type: ignore[assignment]
    assert leases.claim(label, TOKEN, "w", wait_s=20) == work
    assert lost
    assert leases._redis.pttl(f"farm:lease:{label}") > 10_000
    leases.close()


def test_a_worker_that_is_not_understood_hides_no_other(leases: Leases, settings: Settings) -> None:
    leases.announce(worker_facts(name="build@old"))
    deep = b'{"more":' + b"[" * 100_000
    with redis.Redis.from_url(settings.redis) as client:
        for name, document in (
            ("build@new", b'{"name":"build@new","arches":["riscv64"]}'),
            ("a", b"\xff"),
            ("b", deep),
        ):
            client.sadd("farm:workers:build.x86_64", name)
            client.set(f"farm:worker:build.x86_64:{name}", document)
        client.sadd("farm:workers:build.x86_64", b"\xff")
        assert [facts.name for facts in leases.workers()] == ["build@old"]
        client.delete("farm:workers:build.x86_64", "farm:worker:build.x86_64:build@old")


def test_a_malformed_control_document_is_dropped(control: Control) -> None:
    deep = b"[" * 100_000
    for rubbish in (b'{"notice":"resume","attempt":"\xff"}', b'{"notice":' + deep, b'{"v":3,"kind":' + deep, b"\xff"):
        control._redis.lpush("control:source", rubbish)
    inbox = control.receive(timeout_s=0.1)
    assert (inbox.documents, inbox.reports, inbox.notices) == (4, (), ())
    control.acknowledge()


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = Settings.from_env({"FARM_DATA": str(tmp_path)})
    with pytest.raises(FarmNotRunning, match="farm up"):
        Leases(nowhere).ping()
    with pytest.raises(FarmNotRunning, match="farm up"):
        Leases(nowhere).claim("1.fetch.1", "token", "build@here", wait_s=1)
    with pytest.raises(FarmNotRunning, match="farm up"):
        Control(nowhere).wake()
