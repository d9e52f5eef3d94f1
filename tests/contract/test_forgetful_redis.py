"""The data that is lost with a Redis that is emptied, and its recovery: leases, reports, announcements of workers."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from farm import wire
from farm.broker.control import Control
from farm.broker.leader import Lock, SchedulerLock
from farm.broker.leases import Leases, Touch
from farm.config import Settings
from farm.errors import HostHeld, LeaseLost
from farm.wire import digest_of
from tests.fake_workers import held_by
from tests.messages import report_of, work_of
from tests.redis_server import redis_server
from tests.waiting import until
from workers.agent.lease import LeaseKeeper
from workers.agent.outbox import Outbox

WORK = replace(work_of("build"), attempt="1.build.x86_64.1")
LABEL, TOKEN = "1.build.x86_64.1", "t"
WITHIN_S = 10.0


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_LEASE_S": "3"})
    with redis_server(settings.socket):
        yield settings


@pytest.fixture
def outbox(leases: Leases, control: Control) -> Iterator[Outbox]:
    outbox = Outbox(control, leases, look_every_s=0.02)
    yield outbox
    outbox.close()


@pytest.fixture
def empty(settings: Settings) -> Iterator[Callable[[], object]]:
    with redis.Redis.from_url(settings.redis) as client:
        yield client.flushall


def test_a_worker_asks_for_a_lease_that_redis_forgot_and_goes_on_when_it_is_restored(
    leases: Leases, control: Control, empty: Callable[[], object]
) -> None:
    leases.offer(WORK)
    leases.claim(LABEL, TOKEN, "build@one", wait_s=1)
    with LeaseKeeper(leases, LABEL, TOKEN, worker="build@one") as keeper:
        empty()
        (notice,) = control.receive(timeout_s=WITHIN_S).notices
        assert (notice.notice, notice.attempt, notice.token) == (wire.NoticeKind.RESUME, LABEL, TOKEN)
        leases.restore(LABEL, held_by(notice.worker, LABEL, TOKEN))
        assert leases.states([LABEL])[LABEL].holder == held_by("build@one", LABEL, TOKEN)
        assert leases.touch(LABEL, TOKEN) is Touch.HELD
        assert not keeper.stop.is_set()


def test_a_worker_whose_attempt_is_over_stops_when_its_request_is_answered(
    leases: Leases, control: Control, empty: Callable[[], object]
) -> None:
    with LeaseKeeper(leases, LABEL, TOKEN, worker="build@one") as keeper:
        assert control.receive(timeout_s=WITHIN_S).notices
        assert not keeper.stop.is_set(), "nobody has said that it is over"
        leases.turn_away([(LABEL, digest_of("another"))])
        assert not keeper.stop.wait(3), "somebody else was told"
        leases.turn_away([(LABEL, digest_of(TOKEN))])
        assert keeper.stop.wait(WITHIN_S)


def test_an_attempt_that_is_closed_is_stopped_at_once(leases: Leases) -> None:
    leases.offer(WORK)
    leases.claim(LABEL, TOKEN, "build@one", wait_s=1)
    with LeaseKeeper(leases, LABEL, TOKEN, every_s=60) as keeper:
        leases.close_attempts([LABEL])
        assert keeper.stop.wait(WITHIN_S), "it is woken, however seldom it looks"


def test_a_lease_is_not_restored_over_another_or_a_closed_one(leases: Leases) -> None:
    leases.close_attempts([LABEL])
    leases.restore(LABEL, held_by("build@one", LABEL, TOKEN))
    assert leases.touch(LABEL, TOKEN) is Touch.GONE
    other = "2.fetch.1"
    leases.offer(replace(WORK, attempt=other))
    leases.claim(other, "new", "build@two", wait_s=1)
    leases.restore(other, held_by("build@one", other, "old"))
    assert leases.states([other])[other].holder == held_by("build@two", other, "new")


def test_a_claim_that_is_repeated_by_its_client_is_answered_as_before(leases: Leases) -> None:
    """As when the connection broke before the answer came. Another client, the same worker's too, gets nothing."""
    leases.offer(WORK)
    keys = [f"farm:{name}:{LABEL}" for name in ("offer", "lease", "closed")]
    args = [digest_of(TOKEN), "build@one", 3000, "a-name", "one", 1, 2]
    first = leases._claim(keys=[*keys, "farm:held"], args=args)
    assert wire.decode_work(first) == WORK
    assert leases._claim(keys=[*keys, "farm:held"], args=args) == first
    with pytest.raises(LeaseLost):
        leases.claim(LABEL, TOKEN, "build@one", wait_s=0.1)


def test_a_worker_on_a_held_host_is_refused_and_told_why(leases: Leases) -> None:
    leases.offer(WORK)
    leases.hold_hosts({"one": "one is drained by ann: new disks"})
    with pytest.raises(HostHeld, match="new disks"):
        leases.claim(LABEL, TOKEN, "build@one", wait_s=0.1)
    assert leases.claim(LABEL, TOKEN, "build@two", wait_s=0.1) == WORK
    leases.hold_hosts({})
    other = replace(WORK, attempt="3.fetch.1")
    leases.offer(other)
    assert leases.claim("3.fetch.1", TOKEN, "build@one", wait_s=0.1) == other


def test_a_report_that_redis_forgot_is_sent_again(
    outbox: Outbox, control: Control, empty: Callable[[], object]
) -> None:
    report = report_of("build")
    outbox.send(report)
    empty()
    assert control.receive(timeout_s=WITHIN_S).reports == (report,)


def test_a_report_that_waits_or_is_settled_is_not_sent_again(outbox: Outbox, leases: Leases, control: Control) -> None:
    report = report_of("build")
    outbox.send(report)
    time.sleep(0.2)  # some looks; nothing is to happen, so there is nothing to wait for
    assert control.receive(timeout_s=1).reports == (report,)
    time.sleep(0.1)
    leases.close_attempts([report.attempt])
    control.acknowledge()
    until(lambda: not outbox._sent, "the report to be forgotten")
    assert control.receive(timeout_s=0.1).documents == 0


def test_a_lease_is_kept_until_its_report_is_settled(outbox: Outbox, leases: Leases) -> None:
    """By it a scheduler that was away all the time knows whose report it is."""
    leases.offer(WORK)
    leases.claim(LABEL, TOKEN, "build@one", wait_s=1)
    outbox.send(replace(report_of("build"), attempt=LABEL, token=TOKEN))
    time.sleep(4)  # longer than a lease
    assert leases.holders([LABEL]) == {LABEL: held_by("build@one", LABEL, TOKEN)}
    leases.close_attempts([LABEL])
    until(lambda: not outbox._sent, "the report to be forgotten")
    assert leases.holders([LABEL]) == {}


def test_a_report_that_is_never_settled_is_not_sent_without_end(
    outbox: Outbox, control: Control, empty: Callable[[], object]
) -> None:
    outbox.send(report_of("build"))
    sends = 0
    while control.receive(timeout_s=0.5).documents:
        control.acknowledge()
        sends += 1
    assert 1 < sends <= 5
    assert not outbox._sent


def test_the_schedulers_lock_says_when_redis_was_emptied(settings: Settings, empty: Callable[[], object]) -> None:
    one, two = SchedulerLock(settings), SchedulerLock(settings)
    assert [one.take(), one.take(), two.take()] == [Lock.EMPTIED, Lock.HELD, Lock.OTHERS]
    empty()
    assert one.take() is Lock.EMPTIED
    one.release()
    assert two.take() is Lock.HELD
    one.close()
    two.close()


def test_a_notice_of_a_newer_kind_is_read_as_far_as_it_is_known(control: Control) -> None:
    body = b'{"notice":"refused","attempt":"1.fetch.1","token":"t","worker":"w","reason":"r","more":[1]}'
    control._redis.lpush(
        "control:source", body, b'{"notice":"unheard-of","attempt":"1.fetch.1","token":"t","worker":"w"}'
    )
    inbox = control.receive(timeout_s=1)
    assert [notice.reason for notice in inbox.notices] == ["r"]
    assert inbox.documents == 2
