"""A step type says whether the outcome of its steps is part of the build's, and the state machine and clients obey."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.state.graph import How
from farm.state.policy import RetryPolicy
from farm.steps import registry
from farm.steps.base import Workflow
from farm.steps.upload import UPLOAD, Upload
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from tests.fake_workers import fail, picked, report_for, settle_reports, succeed, token_of
from tests.scheduling import added, ready

POLICY = SettlePolicy(retry=RetryPolicy(max_troubles=0, delay_s=0.0))


class Opinion(Upload):
    name = "opinion"
    needs = ((UPLOAD.name, How.SUCCESS),)


class MereOpinion(Opinion):
    counts = False


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Store]:
    workflow = Workflow("build")
    for one in (*registry.step_types(), request.param):
        workflow.add(one)
    monkeypatch.setattr(registry, "_BUILD_WORKFLOW", workflow)
    store = Store.open("sqlite://", create=True)
    yield store
    store.close()


def work_off(store: Store) -> Build:
    """A build in which all steps but the opinion succeed."""
    build_id = added(store)
    for kind in ("fetch", "srpm", "build", "upload", "opinion"):
        store.dispatch(picked(ready(store)), datetime.now(UTC))
        label = f"{build_id}.{kind}.1" if kind in ("fetch", "srpm") else f"{build_id}.{kind}.x86_64.1"
        answer = fail() if kind == "opinion" else succeed(kind)
        assert not settle_reports(
            store, [report_for(label, token_of(label), kind, answer)], datetime.now(UTC), POLICY
        ).late
    return store.build(build_id)


@pytest.mark.parametrize(
    ("store", "outcome", "counts"),
    [(Opinion(), Outcome.FAILED, True), (MereOpinion(), Outcome.SUCCEEDED, False)],
    indirect=["store"],
    ids=["counts", "does not count"],
)
def test_the_outcome_of_a_build_has_the_steps_that_count(store: Store, outcome: Outcome, counts: bool) -> None:
    build = work_off(store)
    assert build.outcome is outcome
    (step,) = [one for one in build.steps if one.kind == "opinion"]
    assert (step.outcome, step.counts) == (Outcome.FAILED, counts)
