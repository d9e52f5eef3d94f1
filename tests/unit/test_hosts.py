"""The hosts that get no work, for how long, and the notes to their workers."""

import time
from dataclasses import replace
from datetime import datetime, timedelta

from farm import wire
from farm.model.remote import Remote, RemoteKind
from farm.model.worker import HoldKind, HostHold, WorkerFacts
from farm.scheduler.hosts import QUARANTINE, HostHealth
from farm.scheduler.plan import queue_states
from tests.messages import WHEN as NOW
from tests.messages import worker_facts
from tests.unit.test_plan import QUEUE

TROUBLE = "network: no route"
_BUILDS = {"one": "", "two": "20"}  # the first digits of the builds that run there first


def server(name: str) -> Remote:
    return Remote(name=name, kind=RemoteKind.SERVER)


def ill(health: HostHealth, host: str = "one", *, troubles: int = 3, at: datetime = NOW) -> HostHold | None:
    """Trouble with as many builds, of as many owners and hosts' own; what holds the host since then."""
    holds = [
        health.note(f"build@{host}", f"{_BUILDS[host]}{n}.{QUEUE}.1", at, trouble=TROUBLE, owner=f"owner {n}")
        for n in range(troubles)
    ]
    return next((hold for hold in holds if hold is not None), None)


def test_a_host_with_trouble_three_times_in_a_row_is_quarantined_for_a_while() -> None:
    health = HostHealth()
    assert ill(health, troubles=2) is None
    hold = ill(health)
    assert hold is not None
    assert (hold.host, hold.kind, hold.until_at) == ("one", HoldKind.QUARANTINED, NOW + QUARANTINE)
    assert "(0, 1, 2)" in hold.reason
    assert TROUBLE in hold.shown
    assert set(health.held(NOW)) == {f"{QUEUE}@one"}
    assert health.held(NOW + QUARANTINE) == {}


def test_the_next_quarantine_is_twice_as_long() -> None:
    health = HostHealth()
    first = ill(health)
    later = NOW + QUARANTINE + timedelta(minutes=1)
    second = ill(health, at=later)
    assert first is not None
    assert second is not None
    assert (second.times, second.until_at) == (2, later + 2 * QUARANTINE)


def test_success_old_trouble_and_a_single_build_do_not_count() -> None:
    for labels, ok_at, apart_s in (("12345", 2, 0), ("11111", None, 0), ("12345", None, 400)):
        health = HostHealth()
        for number, label in enumerate(labels):
            at = NOW + timedelta(seconds=number * apart_s)
            trouble = None if number == ok_at else TROUBLE
            health.note("build@one", f"{label}.{QUEUE}.1", at, trouble=trouble, owner=f"owner {number}")
        assert health.held(NOW) == {}


def test_trouble_that_every_host_has_is_no_hosts_own() -> None:
    health = HostHealth()
    ill(health, "two", troubles=2)
    assert ill(health, "one") is None
    health.note("build@two", f"9.{QUEUE}.1", NOW, trouble=None)
    assert ill(health, "one") is not None


def test_one_dead_server_that_many_builds_name_is_no_hosts_fault() -> None:
    health = HostHealth()
    for number in range(9):
        for host in ("one", "two"):
            health.note(f"build@{host}", f"{number}.fetch.1", NOW, trouble=TROUBLE, remote=server("dead.example"))
    assert health.held(NOW) == {}


def test_dead_servers_that_no_host_reaches_are_no_hosts_fault() -> None:
    health = HostHealth()
    health.note("build@two", "99.fetch.1", NOW, trouble=None)
    for number in range(9):
        health.note("build@one", f"{number}.fetch.1", NOW, trouble=TROUBLE, remote=server(f"{number}.dead.example"))
    assert health.held(NOW) == {}


def test_a_host_that_does_not_reach_several_servers_that_others_reach_is_quarantined() -> None:
    for remotes, is_held in ((("a", "b", "c"), True), (("a", "a", "a"), False)):
        health = HostHealth()
        for number, remote in enumerate(remotes):
            health.note("build@one", f"{number}.fetch.1", NOW, trouble=TROUBLE, remote=server(remote))
            health.note("build@two", f"{number}.fetch.2", NOW, trouble=None)
        assert (set(health.held(NOW)) == {"source@one"}) is is_held


def test_inputs_of_the_same_name_are_not_the_same_far_end() -> None:
    """A name with a space once told them from servers."""
    for kind, is_held in ((RemoteKind.INPUT, True), (RemoteKind.SERVER, False)):
        health = HostHealth()
        for number in range(3):
            remote = Remote(name="it", kind=kind)
            health.note("build@one", f"{number}.fetch.1", NOW, trouble=TROUBLE, remote=remote)
            health.note("build@two", f"{number}.fetch.2", NOW, trouble=None)
        assert (set(health.held(NOW)) == {"source@one"}) is is_held


def tells(health: HostHealth, *workers: WorkerFacts, at: datetime = NOW) -> set[tuple[str, str]]:
    """The workers that are to stop, each with the queue that it is to stop taking from."""
    off = health.off(workers, at)
    return {(name, queue) for nodes in off.values() for name, names in nodes.items() for queue in names}


OFF = ("build@one", QUEUE)


def test_a_quarantined_host_takes_nothing_from_queues_that_others_serve() -> None:
    health = HostHealth()
    ill(health)
    one, two = worker_facts("build@one"), worker_facts("build@two")
    assert tells(health, one) == set(), "the last host of a queue is better than none"
    assert tells(health, one, two) == {OFF}
    assert tells(health, one, two, at=NOW + QUARANTINE) == set()


def test_trouble_in_one_role_holds_the_host_in_that_role_only() -> None:
    """A holder of the account of one role can write anything into its reports."""
    health = HostHealth()
    ill(health, "one")
    publish = worker_facts("publish@one"), worker_facts("publish@two")
    arm = [replace(worker_facts(f"build@{host}"), queues=("build.aarch64",)) for host in ("one", "two")]
    assert tells(health, *publish, *arm) == set()
    assert tells(health, worker_facts("build@one"), worker_facts("build@two"), *publish, *arm) == {OFF}


def drained(host: str = "one") -> HostHold:
    return HostHold(host=host, kind=HoldKind.DRAINED, reason="new disks", by="ann", at=NOW)


def test_a_drained_host_takes_nothing_at_all() -> None:
    health = HostHealth()
    health.read({"one": drained()})
    one = replace(worker_facts("build@one"), consumes=(QUEUE,))
    assert tells(health, one) == {OFF}
    health.read({})
    assert tells(health, one) == set(), "a scheduler before this one may have stopped it"


def test_a_quarantine_that_a_wrong_clock_has_written_is_none() -> None:
    """Another scheduler's was hours ahead. A drain is a person's word, whatever its clock."""
    ahead = timedelta(hours=2)
    hold = HostHold(
        host="one",
        kind=HoldKind.QUARANTINED,
        reason="trouble",
        by="the farm",
        at=NOW + ahead,
        until_at=NOW + ahead + timedelta(minutes=10),
    )
    health = HostHealth()
    health.read({"one": hold, "two": replace(drained("two"), at=NOW + ahead)})
    assert set(health.held(NOW)) == {"two"}
    assert set(health.held(NOW + ahead)) == {"one", "two"}
    assert set(health.held(NOW + ahead + timedelta(minutes=11))) == {"two"}
    assert hold.holds(NOW), "a person whose clock is behind can end it all the same"


def test_a_worker_of_another_version_takes_nothing_and_the_queue_says_why() -> None:
    old = replace(worker_facts("build@one"), speaks=wire.VERSION - 1, consumes=(QUEUE,))
    assert tells(HostHealth(), old) == {OFF}
    state = queue_states([QUEUE], [old], [])[QUEUE]
    assert (state.slots, state.room) == (0, 0)
    assert f"build@one speaks version {wire.VERSION - 1}" in state.note


def test_the_slots_of_a_drained_host_do_not_count_and_the_queue_says_why() -> None:
    states = queue_states([QUEUE], [worker_facts("build@one"), worker_facts("build@two")], [], held={"one": drained()})
    assert states[QUEUE].free == {"two": 2}
    assert states[QUEUE].note == "one is drained by ann: new disks"


def _noted(owners: str, others: str = "") -> list[HostHold]:
    """Troubles of one host with a build of each of these owners, after builds of the others went well there."""
    health = HostHealth()
    for number, owner in enumerate(others, start=100):
        health.note("build@one", f"{number}.{QUEUE}.1", NOW, trouble=None, owner=owner)
    holds = [
        health.note("build@one", f"{number}.{QUEUE}.1", NOW, trouble=TROUBLE, owner=owner)
        for number, owner in enumerate(owners)
    ]
    return [hold for hold in holds if hold is not None]


def test_trouble_with_one_owners_builds_alone_holds_no_host_that_others_use() -> None:
    """One person may make packages and servers that look like a bad host."""
    assert not _noted("mmmmmm", others="a")
    assert _noted("mab", others="a")


def spoil(health: HostHealth, build: int, *hosts: str, well_on: str = "", **about: str) -> list[HostHold]:
    """Trouble of one step on these hosts, one after the other, until another one does it."""
    notes = [
        health.note(f"build@{host}", f"{build}.{QUEUE}.{number}", NOW, trouble=TROUBLE, **about)
        for number, host in enumerate(hosts, start=1)
    ]
    if well_on:
        notes.append(health.note(f"build@{well_on}", f"{build}.{QUEUE}.9", NOW, trouble=None, **about))
    return [hold for hold in notes if hold is not None]


def test_trouble_with_one_owners_builds_holds_a_host_once_another_host_has_done_them() -> None:
    health = HostHealth()
    spoil(health, 100, well_on="two", owner="a")
    assert not any(spoil(health, build, "one", owner="m", package=f"p{build}") for build in range(9))
    health = HostHealth()
    spoil(health, 100, well_on="two", owner="a")
    held = [spoil(health, build, "one", well_on="two", owner="m", package=f"p{build}") for build in range(3)]
    assert [len(holds) for holds in held] == [0, 0, 1]
    assert set(health.held(NOW)) == {f"{QUEUE}@one"}


def test_one_package_that_several_people_ask_for_holds_no_host() -> None:
    health = HostHealth()
    assert not any(spoil(health, build, "one", owner=f"o{build}", package="bad") for build in range(9))
    assert spoil(health, 10, "one", owner="x", package="another") == []
    assert spoil(health, 11, "one", owner="y", package="a third"), "other packages share the trouble"


def test_trouble_that_follows_packages_from_host_to_host_holds_none() -> None:
    """Three bad packages, of three owners even, that are tried on one host after the other."""
    for order in (("one", "two"), ("one", "two", "three", "four"), ("two", "one", "four")):
        health = HostHealth()
        for build in range(12):
            assert spoil(health, build, *order, owner=f"o{build}", package=f"p{build}") == []
        assert health.held(NOW) == {}


def test_a_package_that_another_host_builds_confirms_the_trouble_of_its_other_builds() -> None:
    health = HostHealth()
    for build in range(3):
        assert spoil(health, build, "one", owner="m", package="p") == []
    assert spoil(health, 9, well_on="two", owner="m", package="p")
    assert set(health.held(NOW)) == {f"{QUEUE}@one"}


def test_two_bad_hosts_on_which_a_step_failed_in_turn_are_both_found() -> None:
    health = HostHealth()
    for host in ("four", "five"):
        spoil(health, 100, well_on=host)
    for build in range(6):
        spoil(health, build, "one", "two", well_on="three", owner="m", package="good")
    assert set(health.held(NOW)) == {f"{QUEUE}@one", f"{QUEUE}@two"}


def test_trouble_that_is_confirmed_after_the_host_did_well_does_not_count() -> None:
    health = HostHealth()
    for build in range(3):
        spoil(health, build, "one", package="p")
    later = NOW + timedelta(seconds=1)
    health.note("build@one", f"99.{QUEUE}.1", later, trouble=None)
    for build in range(3):
        assert health.note("build@two", f"{build}.{QUEUE}.2", later, trouble=None) is None
    assert health.held(later) == {}


def test_two_thousand_workers_of_a_quarantined_host_hold_up_no_pass() -> None:
    """One account can register so many. Each of them asked all others whether a host is free, for 0.8 s of the
    processor in each pass: ten times as many workers took a hundred times as long."""
    health = HostHealth()
    assert ill(health) is not None

    def pass_s(count: int) -> float:
        workers = [worker_facts(f"build-{number}@one", names=(QUEUE,)) for number in range(count)]
        began_s = time.process_time()
        off = health.off([*workers, worker_facts("build@two")], NOW)
        took_s = time.process_time() - began_s
        assert len(off[QUEUE]) == count
        return took_s

    few_s, many_s = (min(pass_s(count) for _ in range(5)) for count in (200, 2000))
    assert many_s < 40 * few_s
