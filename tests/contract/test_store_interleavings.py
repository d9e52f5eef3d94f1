"""In every order of events, a build never hangs, never runs twice at once, and never comes back by itself."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm import wire
from farm.errors import NotFound, WrongState
from farm.model.arch import Arch
from farm.model.build import Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.state.policy import RetryPolicy
from farm.store.scheduling import Committed
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from tests.fake_workers import Answer, fail, held_by, picked, report_for, settle_reports, succeed, token_of
from tests.messages import KINDS
from tests.scheduling import ready

POLICY = RetryPolicy(max_troubles=1, delay_s=5.0)
ARCHES = (Arch.X86_64, Arch.AARCH64)
TROUBLE = wire.TroubleReport(code="network", retryable=True, message="away")
LIVE = (Status.DISPATCHED, Status.RUNNING)

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3)),
        st.tuples(st.just("report"), st.integers(0, 9), st.sampled_from(["good", "good", "good", "bad", "trouble"])),
        st.tuples(st.just("again"), st.integers(0, 9)),
        st.tuples(st.just("forged"), st.integers(0, 9)),
        st.tuples(st.just("find"), st.integers(0, 9), st.sampled_from(list(Finding))),
        st.tuples(st.just("due")),
        st.tuples(st.just("cancel")),
        st.tuples(st.just("retry"), st.sampled_from([None, *KINDS, "logs"])),
    ),
    min_size=5,
    max_size=40,
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


class Play:
    """One build, the known facts of its attempts, and the actions on it."""

    def __init__(self, store: Store, *, uploads_logs: bool) -> None:
        self.around = SettlePolicy(retry=POLICY, uploads_logs=uploads_logs)
        source = Source(kind=SourceKind.GIT, url="https://example.org/a.git")
        request = BuildRequest(source=source, target="demo", arches=ARCHES)
        self.store = store
        self.now = datetime.now(UTC)
        self.id = store.add_batch([request], owner="ann").builds[0].id
        self.known: list[tuple[str, str, str]] = []

    def build(self) -> Build:
        return self.store.build(self.id)

    def act(self, action: tuple[object, ...]) -> None:
        match action:
            case ("send", int(which)):
                if steps := ready(self.store, self.id):
                    picks = [steps[which % len(steps)]]
                    with_logs = self.around.uploads_logs
                    self.learn(self.store.dispatch(picked(picks), self.now, with_logs=with_logs))
            case ("report", int(which), str(how)):
                self.report(which, self.answer(how), "")
            case ("again", int(which)):
                self.report(which, None, "")
                self.report(which, None, "")
            case ("forged", int(which)):
                before = self.build()
                self.report(which, None, "x")
                assert self.build() == before
            case ("find", int(which), Finding() as finding):
                if self.known:
                    label = self.known[which % len(self.known)][0]
                    verdict = Verdict(label=label, finding=finding, lease=held_by("w@h", label))
                    self.learn(self.store.judge([verdict], self.now, self.around))
            case ("due",):
                self.now += timedelta(seconds=20)
                self.learn(self.store.promote_due(self.now, most=10))
            case ("cancel",):
                with suppress(WrongState):
                    self.store.cancel(self.id, by="bob")
                assert self.build().status is Status.FINISHED
            case ("retry", kind):
                self.retry(kind)

    def retry(self, kind: object) -> None:
        with suppress(NotFound, WrongState):
            self.store.retry(self.id, step=kind if isinstance(kind, str) else None, by="bob")

    def answer(self, how: str) -> Answer | None:
        return {"good": None, "bad": fail(), "trouble": TROUBLE}[how]

    def report(self, which: int, answer: Answer | None, forged: str) -> None:
        if self.known:
            label, token, kind = self.known[which % len(self.known)]
            is_noarch = which % 2 == 0 and kind == "srpm"
            answer = answer or succeed(kind, noarch=is_noarch)
            self.learn(
                settle_reports(self.store, [report_for(label, token + forged, kind, answer)], self.now, self.around)
            )

    def learn(self, done: Committed) -> None:
        for order in done.orders:
            if order.message.kind in ("upload", "logs"):
                assert set(order.made) == ({"srpm", "build"} if order.message.kind == "upload" else set())
                assert self.around.uploads_logs or not order.logs
            for message in (order.message, order.following):
                if message is not None:
                    self.known.append((message.attempt, token_of(message.attempt), message.kind))

    def check(self) -> None:
        build = self.build()
        for step in build.steps:
            live = [attempt for attempt in step.attempts if attempt.status in LIVE]
            assert len(live) <= 1
            assert bool(live) == (step.status in LIVE)
            assert (step.outcome is not None) == (step.status is Status.FINISHED)
        assert len({a.label for step in build.steps for a in step.attempts}) == sum(
            len(s.attempts) for s in build.steps
        )
        assert (build.outcome is not None) == (build.status is Status.FINISHED)
        logs = [step for step in build.steps if not step.counts]
        assert not logs or self.around.uploads_logs
        assert all(step.kind == "logs" and step.reason for step in logs)
        if build.status is Status.FINISHED:
            assert build.outcome in {step.outcome for step in build.steps if step.counts}
        if build.status is Status.FINISHED:
            assert all(step.status is Status.FINISHED for step in build.steps)
            return
        going = [step for step in build.steps if step.status in (*LIVE, Status.READY)]
        going += [
            step for step in build.steps if step.status is Status.WAITING and "retry in" in (step.waits_for or "")
        ]
        assert going, "nothing will ever move this build"
        assert all(step.waits_for for step in build.steps if step.status in (Status.WAITING, Status.READY))

    def finish(self) -> None:
        """Left alone with good workers, it ends."""
        for _ in range(40):
            if self.build().status is Status.FINISHED:
                return
            self.act(("due",))
            for _ in ready(self.store, self.id):
                self.act(("send", 0))
            for number in range(len(self.known)):
                self.report(number, succeed(self.known[number][2]), "")
        raise AssertionError(f"still {self.build()}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, uploads_logs=st.booleans())
def test_a_build_ends_whatever_happens_on_the_way(
    store: Store, actions: list[tuple[object, ...]], uploads_logs: bool
) -> None:
    play = Play(store, uploads_logs=uploads_logs)
    for action in actions:
        before = play.build()
        play.act(action)
        play.check()
        if before.status is Status.FINISHED and action[0] != "retry":
            assert play.build() == before
    play.finish()
    assert play.build().outcome in set(Outcome)
