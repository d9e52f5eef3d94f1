"""`farm workers drain` and `undrain`: their output, their exit codes, and mistakes."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farm.broker.leases import Leases
from farm.cli import hosts
from farm.store.settling import Finding, Verdict
from tests.driven_farm import driven_farm
from tests.messages import worker_facts
from tests.typed import Typed


class Clock:
    """The module `time` of a command: time passes while it sleeps, and each event happens at its second."""

    def __init__(self, events: dict[float, Callable[[], None]]) -> None:
        self._now_s = 0.0
        self._events = events

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds
        for at_s in [at_s for at_s in self._events if at_s <= self._now_s]:
            self._events.pop(at_s)()


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Typed]:
    """A farm with one worker, on host `one`."""
    with driven_farm(tmp_path) as driven:
        leases = Leases(driven.settings)
        leases.announce(worker_facts())
        yield Typed(driven)
        leases.close()


def test_a_host_is_drained_and_undrained(typed: Typed) -> None:
    drained = typed("workers", "drain", "one", "--reason", "new \x1b[31mdisks")
    assert drained.exit_code == 0
    assert "one is drained by ann: new \\x1b[31mdisks" in drained.stderr
    assert "farm workers undrain one" in drained.stderr
    listed = typed.ok("workers")
    assert "drained" in listed
    assert "one is drained by ann: new \\x1b[31mdisks; `farm workers undrain one` ends that" in listed
    assert "gets work" in typed("workers", "undrain", "one").stderr
    assert "drained" not in typed.ok("workers")


def test_drained_hosts_are_listed_as_json_too(typed: Typed) -> None:
    document = json.loads(typed.ok("workers", "drain", "one", "--now", "--json"))
    assert (document["host"]["hold"], document["host"]["hands_back"], document["running"]) == ("drained", True, [])
    listed = json.loads(typed.ok("workers", "--json"))
    assert [host["host"] for host in listed["hosts"]] == ["one"]
    assert listed["workers"][0]["hold"] == "drained"
    assert json.loads(typed.ok("status", "--json"))["workers"] == listed["workers"]
    undrained = json.loads(typed.ok("workers", "undrain", "one", "--json"))
    assert (undrained["host"], undrained["was"]) == ("one", "drained")


def test_a_queue_whose_hosts_get_no_work_has_no_slots(typed: Typed) -> None:
    typed("workers", "drain", "one", "--reason", "new disks")
    assert "no worker: one is drained by ann: new disks" in " ".join(typed.ok("status").split())
    assert [queue["slots"] for queue in json.loads(typed.ok("status", "--json"))["queues"]] == [0]
    typed("workers", "undrain", "one")
    assert [queue["slots"] for queue in json.loads(typed.ok("status", "--json"))["queues"]] == [2]


def test_steps_that_run_there_are_named_and_waited_for(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    build = typed.build()
    typed.driven.send()
    label = f"{build}.fetch.1"
    typed.driven.start(label, worker="build@one")
    assert f"still running on it: {label}" in typed("workers", "drain", "one").stderr
    assert "1 of 2" in typed.ok("workers")

    def end() -> None:
        verdict = Verdict(label=label, finding=Finding.LOST)
        typed.driven.store.judge([verdict], datetime.now(UTC), typed.driven.around)

    monkeypatch.setattr(hosts, "time", Clock({1.0: end}))
    waited = typed("workers", "drain", "one", "--wait")
    assert f"waiting for 1: {label}" in waited.stderr
    assert "nothing runs there" in waited.stderr


def test_steps_taken_just_before_the_workers_heard_of_it_are_waited_for_too(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = typed.build()
    typed.driven.send()
    label = f"{build}.fetch.1"

    def start() -> None:
        typed.driven.start(label, worker="build@one")

    def end() -> None:
        verdict = Verdict(label=label, finding=Finding.LOST)
        typed.driven.store.judge([verdict], datetime.now(UTC), typed.driven.around)

    monkeypatch.setattr(hosts, "time", Clock({1.0: start, 2.0: end}))
    waited = typed("workers", "drain", "one", "--wait")
    assert f"waiting for 1: {label}" in waited.stderr


def test_an_unknown_host_is_not_drained_by_mistake(typed: Typed) -> None:
    result = typed("workers", "drain", "oen")
    assert result.exit_code == 23
    assert "no worker on host 'oen' was heard of; there are one; --force drains it all the same" in result.stderr
    assert typed("workers", "drain", "oen", "--force").exit_code == 0
    assert typed("workers", "drain", "oen", "--reason", "it is known now").exit_code == 0


def test_a_host_that_nothing_holds_cannot_be_undrained(typed: Typed) -> None:
    result = typed("workers", "undrain", "one")
    assert result.exit_code == 24
    assert "neither drained nor quarantined; those that are: none" in result.stderr
