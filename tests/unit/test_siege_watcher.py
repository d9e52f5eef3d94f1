"""The waits that the siege's watcher counts, and those that it does not; and the adversary's restraint."""

import random
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.siege.field import Field
from tests.siege.shape import DatabaseKind, Role, long_siege
from tests.siege.timeline import Timeline
from tests.siege.watcher import Seen, Watcher
from tests.siege.world import World as RealWorld

BUILD = "build.x86_64"
SHAPE = long_siege(1, DatabaseKind.SQLITE, 1)


def worker(host: str) -> Any:
    return SimpleNamespace(
        host=host,
        role=Role.BUILD,
        worker=f"build@{host}",
        children=lambda: [99],
        pid=1,
        is_running=True,
        is_stopped=False,
    )


LEADER = SimpleNamespace(pid=1, is_stopped=False, leads=True)


class World:
    """Two hosts with a build worker each. `ill_hosts` have no slot that counts."""

    def __init__(self) -> None:
        self.shape = SHAPE
        self.timeline = Timeline()
        self.hosts: dict[str, object] = {"host1": None, "host2": None}
        self.ill_hosts: set[str] = set()
        self.standby = SimpleNamespace(is_ready=True, leads=False)
        self.members = SimpleNamespace(
            workers=lambda: [worker(host) for host in self.hosts], schedulers=lambda: [self.standby]
        )
        self.rooms: dict[int, str] = {}

    def sql(self) -> None:
        return None

    def is_well(self, member: Any) -> bool:
        return member.host not in self.ill_hosts

    def leads(self, member: Any) -> bool:
        return bool(member.leads)

    def attempts_in(self, host: str) -> dict[int, str]:
        return self.rooms if host == "host1" else {}


def seen(build: int = 7, status: str = "dispatched", **values: Any) -> Seen:
    given = {"attempt": 1, "attempt_status": status, "worker": None, "is_offered": True, "troubles": 0} | values
    return Seen(build=build, step=BUILD, status=status, queue=BUILD, **given)


class Looker:
    """A watcher whose looks the test makes."""

    def __init__(self) -> None:
        self.world = World()
        self.watcher = Watcher(self.world)  # type: ignore[arg-type]

    def look(self, *found: Seen, seconds: float = 10.0, is_away: bool = False, has_broker: bool = True) -> None:
        self.watcher.is_away, self.watcher.has_broker = is_away, has_broker
        self.watcher._note({one.key: one for one in found})
        self.watcher._count(seconds)

    @property
    def broken(self) -> list[str]:
        return [rule for rule, _, _ in self.watcher.waits.broken]


@pytest.fixture
def looker() -> Looker:
    return Looker()


def test_a_step_that_is_not_taken_although_a_slot_is_free_waits_too_long(looker: Looker) -> None:
    for _ in range(7):
        looker.look(seen())
    assert looker.broken == []
    looker.look(seen())
    assert looker.broken == ["idle"]


def test_a_wait_for_a_slot_or_for_something_that_is_down_does_not_count(looker: Looker) -> None:
    busy = [seen(build, "running", worker=f"build@host{build % 2 + 1}") for build in (1, 2, 3, 4)]
    for _ in range(20):
        looker.look(seen(), *busy)
        looker.look(seen(), is_away=True)
    looker.world.ill_hosts = {"host1", "host2"}
    for _ in range(20):
        looker.look(seen())
    assert looker.broken == []


def test_a_silent_worker_gets_no_new_time_after_the_database_was_down(looker: Looker) -> None:
    running = seen(status="running", worker="build@host1")
    looker.look(running)
    looker.watcher.expect_elsewhere(["7.build.x86_64.1"], "host1")
    looker.look(running, seconds=40.0)
    looker.look(running, seconds=100.0, is_away=True)
    looker.look(running, seconds=10.0)
    assert looker.broken == ["lost"]


def test_a_step_is_kept_back_for_a_minute_from_hosts_that_it_had_trouble_on(looker: Looker) -> None:
    busy = [seen(build, "running", worker="build@host1") for build in (1, 2)]
    avoiding = seen(status="ready", attempt=None, attempt_status=None, avoids=frozenset({"host2"}))
    for _ in range(13):
        looker.look(avoiding, *busy)
    assert looker.broken == [], "host2 is free, but it is not for this one yet"
    for _ in range(4):
        looker.look(avoiding, *busy)
    assert looker.broken == ["idle"]


def test_a_slot_on_a_host_that_the_farm_has_quarantined_is_not_free(looker: Looker) -> None:
    looker.watcher._idle_workers = {"build@host2"}
    busy = [seen(build, "running", worker="build@host1") for build in (1, 2)]
    for _ in range(20):
        looker.look(seen(), *busy)
    assert looker.broken == []


def test_a_lost_attempt_is_to_run_elsewhere_in_time(looker: Looker) -> None:
    running = seen(status="running", worker="build@host1")
    looker.look(running)
    looker.watcher.expect_elsewhere(["7.build.x86_64.1"], "host1")
    for _ in range(4):
        looker.look(running)
    assert looker.broken == []
    looker.look(running)
    assert looker.broken == ["lost"]


@pytest.mark.parametrize("after", [(), (seen(status="running", attempt=2, worker="build@host2"),)])
def test_it_is_enough_that_the_step_is_over_or_that_its_next_attempt_runs(looker: Looker, after: Any) -> None:
    looker.look(seen(status="running", worker="build@host1"))
    looker.watcher.expect_elsewhere(["7.build.x86_64.1"], "host1")
    for _ in range(8):
        looker.look(*after)
    assert looker.broken == []


def test_a_silent_worker_gets_new_time_after_the_broker_was_down(looker: Looker) -> None:
    running = seen(status="running", worker="build@host1")
    looker.look(running)
    looker.watcher.expect_elsewhere(["7.build.x86_64.1"], "host1")
    for _ in range(4):
        looker.look(running, seconds=40.0)
        looker.look(running, is_away=True, has_broker=False)
    assert looker.broken == []


def test_a_dead_pool_process_is_noticed_within_seconds(looker: Looker) -> None:
    running = seen(status="running", worker="build@host1")
    looker.look(running)
    looker.watcher.expect_noticed("7.build.x86_64.1", worker("host1"))
    looker.look(running, seconds=5.0)
    assert looker.broken == []
    looker.look(running, seconds=5.0)
    assert looker.broken == ["child"]


@pytest.mark.parametrize("change", [{"pid": 2}, {"is_running": False}, {"is_stopped": True}, {"host": "host2"}])
def test_a_worker_that_is_dead_stopped_or_cut_off_itself_notices_nothing(
    looker: Looker, change: dict[str, Any]
) -> None:
    running = seen(status="running", worker="build@host1")
    member = worker("host1")
    looker.world.ill_hosts = {"host2"}
    looker.watcher.expect_noticed("7.build.x86_64.1", member)
    vars(member).update(change)
    looker.look(running)
    assert looker.broken == []


def test_a_cancelled_attempt_is_gone_from_its_host_within_seconds(looker: Looker) -> None:
    looker.world.rooms = {99: "7.build.x86_64.1"}
    looker.watcher.expect_gone(looker.watcher.running(7))
    looker.look(seconds=5.0)
    assert looker.broken == ["cancel"]


def test_a_worker_stopped_by_the_adversary_cannot_obey_a_cancel(looker: Looker) -> None:
    looker.world.rooms = {99: "7.build.x86_64.1"}
    looker.watcher.expect_gone(looker.watcher.running(7))
    looker.watcher.hurt.add("7.build.x86_64.1")
    looker.look(seconds=5.0)
    assert looker.broken == []


def test_a_standby_takes_over_in_time_whatever_else_is_away(looker: Looker) -> None:
    looker.watcher.holder = b"one"
    looker.watcher.expect_takeover(LEADER)  # type: ignore[arg-type]
    looker.look(is_away=True)
    assert looker.broken == []
    looker.world.standby.is_ready = False
    looker.look(is_away=True)
    assert looker.broken == [], "there is no standby for now"
    looker.world.standby.is_ready = True
    looker.look(is_away=True)
    assert looker.broken == ["takeover"]


def test_a_leader_that_is_woken_again_leads_on(looker: Looker) -> None:
    leader = SimpleNamespace(pid=1, is_stopped=True, leads=True)
    looker.watcher.holder = b"one"
    looker.watcher.expect_takeover(leader)  # type: ignore[arg-type]
    looker.look()
    leader.is_stopped = False
    looker.look()
    looker.look()
    assert looker.broken == []


def test_the_old_leader_does_not_wait_for_a_scheduler_that_has_taken_over(looker: Looker) -> None:
    """After an outage: the one that is killed then was no leader any more."""
    looker.watcher.holder = b"two"
    looker.watcher.expect_takeover(LEADER)  # type: ignore[arg-type]
    looker.world.standby.leads = True
    looker.look()
    looker.look()
    assert looker.broken == []


def test_a_scheduler_that_was_started_again_leads_only_once_it_says_so(tmp_path: Path) -> None:
    log = tmp_path / "scheduler1.log"
    log.write_bytes(b"Scheduling action=start\n")
    member = SimpleNamespace(is_running=True, logged_bytes=log.stat().st_size)
    world: Any = SimpleNamespace(_log=lambda _: log)
    for said, leads in ((b"", False), (b"waiting action=stand-by\n", False), (b"Scheduling action=start\n", True)):
        with log.open("ab") as file:
            file.write(said)
        assert RealWorld.leads(world, member) is leads  # type: ignore[arg-type]


def test_an_attempt_lives_from_when_it_is_sent(looker: Looker) -> None:
    looker.look(seen(8, is_offered=False), seen(7))
    looker.look(seen(8, is_offered=False), seen(7, "running", worker="build@host1"))
    assert set(looker.watcher.lives) == {"7.build.x86_64.1"}
    first, last = looker.watcher.lives["7.build.x86_64.1"]
    assert first < last


def test_an_end_that_cannot_be_seen_counts_from_when_it_can(looker: Looker) -> None:
    looker.look(seen(7, "running", worker="build@host1"))
    looker.look(seen(8, "running", worker="build@host1"), seen(7, "running", worker="build@host1"))
    time.sleep(0.05)  # the database is away
    hurt_at_s = looker.world.timeline.now_s
    looker.look(seen(8, "running", attempt=2, worker="build@host2"))
    assert looker.watcher.lives["7.build.x86_64.1"][1] > hurt_at_s
    assert looker.watcher.lives["8.build.x86_64.1"][1] > hurt_at_s


def test_no_step_is_hurt_more_than_twice() -> None:
    looker = Looker()
    looker.look(seen(status="running", worker="build@host1"), seen(8, "running", worker="build@host2"))
    field = Field(
        world=looker.world,  # type: ignore[arg-type]
        watcher=looker.watcher,
        wiretap=None,  # type: ignore[arg-type]
        rng=random.Random(1),
    )
    assert field.may_hurt([worker("host1")])
    assert field.may_hurt([], ["7.build.x86_64.1"])
    assert not field.may_hurt([worker("host1")])
    assert field.may_hurt([worker("host2")])
    assert field.hurts == Counter({(7, BUILD): 2, (8, BUILD): 1})
    looker.look(seen(9, "running", worker="build@host2", troubles=3))
    assert not field.may_hurt([worker("host2")]), "the farm itself had trouble enough with it"
    looker.world.rooms = {99: "7.build.x86_64.3"}
    assert not field.may_hurt([worker("host1")]), "SQL does not say yet that it runs there"
