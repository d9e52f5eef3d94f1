"""Estimates and counts from builds of the past."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from farm.model.arch import Arch
from farm.model.build import Attempt, Build, BuildOptions, Step
from farm.model.history import StepRun
from farm.model.outcome import Outcome, Status
from farm.model.source import Source, SourceKind
from farm.service.history import estimate, outcomes_of
from farm.service.root_record import root_changes
from farm.service.summary import culprit, ran_s

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
X, P = Arch.X86_64, Arch.PPC64LE


def _run(
    kind: str, arch: Arch | None, seconds: float, *, build: int = 1, outcome: Outcome = Outcome.SUCCEEDED
) -> StepRun:
    return StepRun(
        build=build,
        kind=kind,
        arch=arch,
        status=Status.FINISHED,
        outcome=outcome,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=seconds),
        worker=None,
    )


def _step(kind: str, arch: Arch | None, status: Status, *, began_s: float | None = None) -> Step:
    began = NOW - timedelta(seconds=began_s) if began_s is not None else None
    one = Attempt(label=f"9.{kind}.1", number=1, status=status, dispatched_at=NOW, started_at=began)
    outcome = Outcome.SUCCEEDED if status is Status.FINISHED else None
    return Step(kind=kind, arch=arch, status=status, outcome=outcome, attempts=(one,) if began else ())


BUILD = Build(
    id=9,
    batch_id=1,
    package="hello",
    source=Source(kind=SourceKind.GIT, url="https://example.org/hello.git"),
    target="demo",
    arches=(X, P),
    options=BuildOptions(),
    priority=0,
    owner="ann",
    status=Status.RUNNING,
    created_at=NOW,
)
PAST = [
    *(_run("fetch", None, 2, build=n) for n in (1, 2, 3)),
    *(_run("srpm", None, 4, build=n) for n in (1, 2, 3)),
    *(_run("build", X, seconds, build=n) for n, seconds in ((1, 90), (2, 100), (3, 3000))),
    _run("build", X, 1, build=3, outcome=Outcome.FAILED),
    _run("build", P, 500),
    _run("upload", P, 10),
]


def _left(*steps: Step) -> float | None:
    found = estimate(replace(BUILD, steps=steps), PAST, NOW)
    return found.seconds_left if found else None


def test_a_build_ends_when_its_slowest_arch_does() -> None:
    fetch, srpm = _step("fetch", None, Status.READY), _step("srpm", None, Status.WAITING)
    assert _left(fetch, srpm) == 2 + 4 + 510  # steps of arches that are not there yet count too
    fetch, srpm = _step("fetch", None, Status.FINISHED), _step("srpm", None, Status.RUNNING, began_s=1)
    assert _left(fetch, srpm) == 3 + 510
    srpm = _step("srpm", None, Status.FINISHED)
    ended = (_step("build", P, Status.FINISHED), _step("upload", P, Status.FINISHED))
    assert _left(fetch, srpm, *ended, _step("build", X, Status.RUNNING, began_s=40)) == 60
    assert _left(fetch, srpm, *ended, _step("build", X, Status.RUNNING, began_s=400)) is None  # later than ever


def test_there_is_no_estimate_without_a_past_or_for_a_build_that_is_over() -> None:
    assert estimate(BUILD, [], NOW) is None
    assert estimate(replace(BUILD, status=Status.FINISHED), PAST, NOW) is None


def test_outcomes_are_counted_by_arch() -> None:
    by_arch = {one.arch: one for one in outcomes_of(PAST)}
    assert list(by_arch) == [X, P]
    assert (by_arch[X].outcomes, by_arch[X].total, by_arch[X].good, by_arch[X].median_s) == (
        {Outcome.SUCCEEDED: 3, Outcome.FAILED: 1},
        4,
        3,
        100,
    )


def test_the_difference_of_two_roots_pairs_the_versions_of_a_package() -> None:
    before = {"gcc-12-1.x86_64": "a", "make-4-1.x86_64": "b", "sed-4-1.x86_64": "c", "not an identity": "d"}
    after = {"gcc-13-1.x86_64": "e", "make-4-1.x86_64": "b", "sed-4-1.x86_64": "f", "awk-1-1.noarch": "g"}
    found = [(one.name, one.before, one.after) for one in root_changes(before, after, "rpm")]
    assert found == [
        ("awk", None, "awk-1-1.noarch"),
        ("gcc", "gcc-12-1.x86_64", "gcc-13-1.x86_64"),
        ("not an identity", "not an identity", None),
        ("sed", "sed-4-1.x86_64", "sed-4-1.x86_64"),
    ]
    assert root_changes(before, before, "rpm") == ()


def test_a_build_without_a_failed_step_has_no_culprit() -> None:
    assert culprit(BUILD) == (None, None)
    assert ran_s(_step("build", X, Status.WAITING)) is None
