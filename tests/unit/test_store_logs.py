"""Logs and records of builds that did not succeed are published too, without a word in how the build ended."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farm import wire
from farm.errors import NotFound, WrongState
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build, Step
from farm.model.outcome import Outcome, Status
from farm.model.work import AnyResult
from farm.state.policy import RetryPolicy
from farm.steps.base import Order
from farm.store.scheduling import Committed
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from tests.fake_workers import Answer, artifact, fail, held_by, picked, report_for, settle_reports, succeed, token_of
from tests.scheduling import HELLO, ready

AROUND = SettlePolicy(retry=RetryPolicy(max_troubles=1, delay_s=5.0), uploads_logs=True)
LOG = artifact("a.log", ArtifactKind.LOG)
RECORD = artifact("root.json", ArtifactKind.RECORD)
BOTH = (Arch.X86_64, Arch.PPC64LE)
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="away", artifacts=(LOG,))


def failed(outcome: Outcome = Outcome.FAILED, *files: Artifact) -> AnyResult:
    return replace(fail(outcome=outcome), artifacts=(*files, LOG))


class Driven:
    """One build; `now` is moved by hand."""

    def __init__(self, store: Store, arches: tuple[Arch, ...] = (Arch.X86_64,), around: SettlePolicy = AROUND) -> None:
        self.store = store
        self.around = around
        self.now = datetime.now(UTC)
        self.id = store.add_batch([replace(HELLO, arches=arches)], owner="ann").builds[0].id
        self.orders: dict[str, Order] = {}
        self.tokens: dict[str, str] = {}

    def send(self) -> list[str]:
        """Everything that is ready or due goes out; the labels of what did."""
        self.now += timedelta(minutes=1)
        self.note(self.store.promote_due(self.now, most=100))
        with_logs = self.around.uploads_logs
        return self.note(self.store.dispatch(picked(ready(self.store)), self.now, with_logs=with_logs))

    def report(self, label: str, answer: Answer | None = None) -> list[str]:
        """The labels of what goes out by that."""
        kind = label.split(".")[1]
        done = settle_reports(self.store, [report_for(label, self.tokens[label], kind, answer)], self.now, self.around)
        assert not done.late
        return self.note(done)

    def note(self, done: Committed) -> list[str]:
        for order in done.orders:
            self.orders[order.message.attempt] = order
            for message in filter(None, (order.message, order.following)):
                self.tokens[message.attempt] = token_of(message.attempt)
        return [order.message.attempt for order in done.orders]

    def to_build(self) -> None:
        self.send()
        self.report("1.fetch.1")
        self.report("1.srpm.1")
        self.send()

    @property
    def build(self) -> Build:
        return self.store.build(self.id)

    def step(self, name: str) -> Step:
        return next(step for step in self.build.steps if step.name == name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


def test_after_a_failed_build_a_step_brings_its_logs(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    assert driven.report("1.build.x86_64.1", failed(Outcome.FAILED, RECORD)) == []
    step = driven.step("logs x86_64")
    assert (step.status, step.counts) == (Status.READY, False)
    assert step.reason == "logs and records only: build x86_64 failed"
    assert driven.build.status is Status.RUNNING
    upload = driven.step("upload x86_64")
    assert (upload.outcome, upload.reason) == (Outcome.CANCELLED, "build x86_64 failed")
    assert driven.send() == ["1.logs.x86_64.1"]
    order = driven.orders["1.logs.x86_64.1"]
    assert order.made == {}
    assert [(log.attempt, log.artifact.name) for log in order.logs] == [
        ("1.fetch.1", "fetch.log"),
        ("1.srpm.1", "srpm.log"),
        ("1.build.x86_64.1", "root.json"),
        ("1.build.x86_64.1", "a.log"),
    ]
    driven.report("1.logs.x86_64.1")
    assert (driven.build.status, driven.build.outcome) == (Status.FINISHED, Outcome.FAILED)
    assert driven.build.reason == "build x86_64: make: *** [all] Error 2"
    assert driven.step("logs x86_64").reason == "logs and records only: build x86_64 failed"


@pytest.mark.parametrize("outcome", [Outcome.UNRESOLVABLE, Outcome.TIMED_OUT, Outcome.STALLED])
def test_whatever_way_a_build_fails_its_logs_are_brought(store: Store, outcome: Outcome) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", failed(outcome))
    assert driven.send() == ["1.logs.x86_64.1"]
    driven.report("1.logs.x86_64.1")
    assert driven.build.outcome is outcome


def test_a_build_that_succeeds_brings_the_logs_of_all_attempts_with_its_packages(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", TROUBLE)
    assert driven.send() == ["1.build.x86_64.2"]
    assert driven.report("1.build.x86_64.2") == ["1.upload.x86_64.2"]
    order = driven.orders["1.upload.x86_64.2"]
    made = {kind: one.attempt for kind, one in order.made.items()}
    assert (order.batch_id, made) == (1, {"srpm": "1.srpm.1", "build": "1.build.x86_64.2"})
    assert [log.attempt for log in order.logs] == ["1.fetch.1", "1.srpm.1", "1.build.x86_64.1", "1.build.x86_64.2"]
    driven.report("1.upload.x86_64.2")
    assert driven.build.outcome is Outcome.SUCCEEDED


def test_an_arch_brings_its_own_logs_and_not_the_other_ones(store: Store) -> None:
    driven = Driven(store, BOTH)
    driven.to_build()
    driven.report("1.build.ppc64le.1", failed())
    assert driven.send() == ["1.logs.ppc64le.1"]
    assert {log.attempt for log in driven.orders["1.logs.ppc64le.1"].logs} == {
        "1.fetch.1",
        "1.srpm.1",
        "1.build.ppc64le.1",
    }
    driven.report("1.logs.ppc64le.1")
    assert driven.report("1.build.x86_64.1") == ["1.upload.x86_64.1"]
    driven.report("1.upload.x86_64.1")
    assert driven.build.outcome is Outcome.FAILED


@pytest.mark.parametrize("kind", ["fetch", "srpm"])
def test_before_there_are_arches_the_logs_have_a_step_without_one(store: Store, kind: str) -> None:
    driven = Driven(store, BOTH)
    driven.send()
    if kind == "srpm":
        driven.report("1.fetch.1")
    driven.report(f"1.{kind}.1", failed())
    assert [step.name for step in driven.build.steps] == ["fetch", "srpm", "logs"]
    assert driven.step("logs").waits_for
    assert driven.send() == ["1.logs.1"]
    assert driven.orders["1.logs.1"].logs[-1].attempt == f"1.{kind}.1"
    driven.report("1.logs.1")
    assert (driven.build.status, driven.build.outcome) == (Status.FINISHED, Outcome.FAILED)


def test_a_fetch_that_left_nothing_has_nothing_to_bring(store: Store) -> None:
    driven = Driven(store)
    driven.send()
    driven.report("1.fetch.1", fail())
    assert driven.build.status is Status.FINISHED
    assert [step.name for step in driven.build.steps] == ["fetch", "srpm"]


def test_logs_that_cannot_be_published_do_not_change_how_the_build_ended(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", failed())
    for label in ("1.logs.x86_64.1", "1.logs.x86_64.2"):
        assert driven.send() == [label]
        driven.report(label, TROUBLE)
    assert (driven.build.status, driven.build.outcome) == (Status.FINISHED, Outcome.FAILED)
    step = driven.step("logs x86_64")
    assert (step.outcome, step.counts) == (Outcome.ERRORED, False)
    assert step.reason == "logs and records only, not published: network: away"


def test_a_worker_that_is_lost_for_good_leaves_the_logs_of_earlier_tries(store: Store) -> None:
    driven = Driven(store)
    driven.send()
    driven.report("1.fetch.1", TROUBLE)
    driven.send()
    for finding in (Finding.RUNNING, Finding.LOST):
        driven.note(
            store.judge(
                [Verdict(label="1.fetch.2", finding=finding, lease=held_by("w@h", "1.fetch.2"))], driven.now, AROUND
            )
        )
    assert driven.send() == ["1.logs.1"]
    assert [log.attempt for log in driven.orders["1.logs.1"].logs] == ["1.fetch.1"]


def test_a_cancelled_build_is_not_published(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    store.cancel(1, by="bob")
    assert driven.send() == []
    assert driven.build.outcome is Outcome.CANCELLED


def test_cancelling_ends_an_upload_of_logs_and_does_not_change_the_build(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", failed())
    (label,) = driven.send()
    assert store.cancel(1, by="bob") == (label,)
    assert (driven.build.status, driven.build.outcome) == (Status.FINISHED, Outcome.FAILED)
    assert driven.step("logs x86_64").outcome is Outcome.CANCELLED


def test_a_retry_waits_for_the_logs_and_then_the_packages_are_uploaded(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", failed())
    with pytest.raises(WrongState, match="logs x86_64 of build 1 is ready"):
        store.retry(1, by="bob")
    (label,) = driven.send()
    driven.report(label)
    with pytest.raises(WrongState, match="needs the results of build x86_64"):
        store.retry(1, step="upload", by="bob")
    assert [step.name for step in store.retry(1, by="bob")] == ["build x86_64"]
    assert driven.send() == ["1.build.x86_64.2"]
    assert driven.report("1.build.x86_64.2") == ["1.upload.x86_64.2"]
    assert set(driven.orders["1.upload.x86_64.2"].made) == {"srpm", "build"}
    driven.report("1.upload.x86_64.2")
    assert driven.build.outcome is Outcome.SUCCEEDED
    assert driven.step("upload x86_64").outcome is Outcome.SUCCEEDED


def test_after_a_retry_that_goes_well_the_logs_of_before_stay_over(store: Store) -> None:
    driven = Driven(store)
    driven.send()
    driven.report("1.fetch.1")
    driven.report("1.srpm.1", failed())
    (label,) = driven.send()
    driven.report(label, wire.TroubleReport(code="bad", retryable=False, message="no"))
    assert driven.step("logs").outcome is Outcome.ERRORED
    with pytest.raises(NotFound, match=r"it has fetch, srpm, logs$"):
        store.retry(1, step="upload", by="bob")
    assert [step.name for step in store.retry(1, by="bob")] == ["srpm"]
    driven.send()
    driven.report("1.srpm.2")
    driven.send()
    driven.report("1.build.x86_64.1")
    driven.report("1.upload.x86_64.1")
    assert (driven.build.status, driven.build.outcome) == (Status.FINISHED, Outcome.SUCCEEDED)
    with pytest.raises(WrongState, match=r"no step of build \d+ failed"):
        store.retry(1, by="bob")


def test_when_the_retry_fails_too_the_same_step_has_another_turn(store: Store) -> None:
    driven = Driven(store)
    driven.send()
    driven.report("1.fetch.1", failed())
    driven.send()
    driven.report("1.logs.1")
    store.retry(1, by="bob")
    driven.send()
    driven.report("1.fetch.2", failed())
    assert driven.send() == ["1.logs.2"]
    assert [log.attempt for log in driven.orders["1.logs.2"].logs] == ["1.fetch.1", "1.fetch.2"]
    driven.report("1.logs.2")
    assert driven.build.outcome is Outcome.FAILED


def test_without_the_setting_nothing_is_published_of_a_failure(store: Store) -> None:
    driven = Driven(store, around=replace(AROUND, uploads_logs=False))
    driven.to_build()
    driven.report("1.build.x86_64.1", failed())
    assert driven.send() == []
    assert driven.build.outcome is Outcome.FAILED
    step = driven.step("upload x86_64")
    assert (step.outcome, step.reason) == (Outcome.CANCELLED, "build x86_64 failed")
    assert not [one for one in driven.build.steps if one.kind == "logs"]


def test_logs_that_were_not_published_can_be_published_by_a_retry(store: Store) -> None:
    driven = Driven(store)
    driven.to_build()
    driven.report("1.build.x86_64.1", failed())
    driven.send()
    driven.report("1.logs.x86_64.1", wire.TroubleReport(code="bad", retryable=False, message="no"))
    assert driven.build.status is Status.FINISHED
    assert [step.name for step in store.retry(1, step="logs", by="bob")] == ["logs x86_64"]
    assert driven.step("logs x86_64").reason == "logs and records only: build x86_64 failed"
    assert driven.send() == ["1.logs.x86_64.2"]
    driven.report("1.logs.x86_64.2")
    assert (driven.step("logs x86_64").outcome, driven.build.outcome) == (Outcome.SUCCEEDED, Outcome.FAILED)


def test_without_the_setting_packages_go_alone(store: Store) -> None:
    driven = Driven(store, around=replace(AROUND, uploads_logs=False))
    driven.to_build()
    driven.report("1.build.x86_64.1", succeed("build"))
    assert driven.orders["1.upload.x86_64.1"].logs == ()
