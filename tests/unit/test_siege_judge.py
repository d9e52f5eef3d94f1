"""The siege's judge finds every kind of lie: each is planted here into what an honest farm leaves."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.siege.facts import ArtifactRow, AttemptRow, BuildRow, Facts, Published, StepRow, Words
from tests.siege.field import Cause
from tests.siege.hostile import ORDER, Attack, make_hostile
from tests.siege.judge import Case, judge
from tests.siege.recipes import Kind, make
from tests.siege.stream import Asked

RPM, SRPM, FENCED = "a" * 64, "b" * 64, "c" * 64
OS, SOURCE = "demo/x86_64/os", "demo/source"
HOSTILE = make_hostile(2, Attack.TRAPPED, random.Random(1), requires="sg0001-evil-trap")
RECIPE = make(1, Kind.NOARCH, random.Random(1), longest_s=5)
BINARY, SOURCE_NAME = f"{RECIPE.name}-1-1.noarch.rpm", f"{RECIPE.name}-1-1.src.rpm"
STEPS = (("fetch", ""), ("srpm", ""), ("build", "x86_64"), ("upload", "x86_64"))


def honest() -> Case:
    """One build that succeeded, whose `build` step lost a worker first; and a hostile one, which failed."""
    attempts = [AttemptRow(id=n, step=n, number=1, status="finished", outcome="succeeded") for n in (1, 2, 4)]
    lost = {"outcome": "errored", "reason": "worker-lost: build@host1 stopped renewing its lease"}
    attempts += [
        AttemptRow(id=30, step=3, number=1, status="finished", worker="build@host1", **lost),
        AttemptRow(id=31, step=3, number=2, status="finished", outcome="succeeded", worker="build@host2"),
        AttemptRow(id=50, step=5, number=1, status="finished", outcome="failed", worker="build@host2"),
    ]
    steps = [
        StepRow(id=n, build=7, kind=kind, arch=arch, status="finished", outcome="succeeded")
        for n, (kind, arch) in enumerate(STEPS, 1)
    ]
    steps.append(StepRow(id=5, build=9, kind="build", arch="x86_64", status="finished", outcome="failed"))
    facts = Facts(
        builds=(
            BuildRow(id=7, filename=RECIPE.filename, status="finished", outcome="succeeded"),
            BuildRow(id=9, filename=HOSTILE.filename, status="finished", outcome="failed"),
        ),
        steps=tuple(steps),
        attempts=tuple(attempts),
        artifacts=(
            ArtifactRow(attempt=2, name=SOURCE_NAME, kind="srpm", sha256=SRPM),
            ArtifactRow(attempt=31, name=BINARY, kind="rpm", sha256=RPM),
        ),
        published=(
            Published(repository=OS, filename=BINARY, said=RPM, is_=RPM),
            Published(repository=SOURCE, filename=SOURCE_NAME, said=SRPM, is_=SRPM),
        ),
        pool=((OS, BINARY, RPM), (SOURCE, SOURCE_NAME, SRPM)),
        words=(
            Words(build=7, where="root.json", text="glibc-2.34-1.x86_64"),
            Words(build=9, where="root.json", text="sg0001-evil-trap-1-1.noarch"),
            Words(build=None, where="repository", text="demo/x86_64/os file:///farm/7/"),
        ),
    )
    asked = [
        Asked(recipe=RECIPE, outcomes={"succeeded"}, ids=[7]),
        Asked(recipe=HOSTILE, outcomes={"failed"}, ids=[9]),
    ]
    cause = Cause(at_s=2.0, until_s=5.0, workers=frozenset({"build@host1"}))
    return Case(facts=facts, asked=asked, causes=[cause], lives={"7.build.x86_64.1": (1.0, 31.0)})


def test_an_honest_farm_breaks_no_rule() -> None:
    assert judge(honest()) == []


Lie = Callable[[Facts], Facts]


def attempt(facts: Facts, id_: int, **values: object) -> Facts:
    changed = (replace(one, **values) if one.id == id_ else one for one in facts.attempts)  # type: ignore[arg-type]
    return replace(facts, attempts=tuple(changed))


def build(facts: Facts, **values: object) -> Facts:
    return replace(facts, builds=(replace(facts.builds[0], **values), *facts.builds[1:]))  # type: ignore[arg-type]


def say(facts: Facts, build: int | None, where: str, text: str) -> Facts:
    return replace(facts, words=(*facts.words, Words(build=build, where=where, text=text)))


def publish(facts: Facts, *found: Published) -> Facts:
    return replace(facts, published=(*(one for one in facts.published if one.repository != OS), *found))


RIGHT = Published(repository=OS, filename=BINARY, said=RPM, is_=RPM)
LIES: dict[str, tuple[str, Lie]] = {
    "a build is lost": ("lost-build", lambda facts: replace(facts, builds=())),
    "a build is there twice": (
        "double-build",
        lambda facts: replace(facts, builds=(*facts.builds, replace(facts.builds[0], id=8))),
    ),
    "a build that nobody asked for": (
        "unknown-build",
        lambda facts: replace(facts, builds=(*facts.builds, replace(facts.builds[0], id=8, filename="other.src.rpm"))),
    ),
    "a package is blamed for what it did not do": ("outcome", lambda facts: build(facts, outcome="failed")),
    "the farm gave up": ("outcome", lambda facts: build(facts, outcome="errored")),
    "a build goes on for ever": ("not-over", lambda facts: build(facts, status="running", outcome=None)),
    "a step goes on for ever": (
        "not-over",
        lambda facts: replace(
            facts, steps=(*facts.steps[:3], replace(facts.steps[3], status="dispatched", outcome=None), facts.steps[4])
        ),
    ),
    "an attempt goes on for ever": ("not-over", lambda facts: attempt(facts, 30, status="running", outcome=None)),
    "a lease is never closed": ("not-over", lambda facts: replace(facts, closing=("7.build.x86_64.1",))),
    "a number is given twice": ("numbers", lambda facts: attempt(facts, 31, number=1)),
    "a step succeeds twice": ("twice", lambda facts: attempt(facts, 30, outcome="succeeded")),
    "a step succeeds without an attempt": ("no-attempt", lambda facts: attempt(facts, 1, outcome="failed")),
    "a well worker's attempt is given up": (
        "lost-attempt",
        lambda facts: attempt(facts, 30, worker="build@host2"),
    ),
    "a package is not published": ("published", lambda facts: publish(facts)),
    "a package is published twice": ("published", lambda facts: publish(facts, RIGHT, RIGHT)),
    "a fenced attempt's package is published": (
        "digest",
        lambda facts: publish(facts, replace(RIGHT, said=FENCED, is_=FENCED)),
    ),
    "a file is not what the metadata says": ("corrupt", lambda facts: publish(facts, replace(RIGHT, is_=FENCED))),
    "an old version has what nobody recorded": (
        "fenced",
        lambda facts: replace(facts, pool=(*facts.pool, (OS, BINARY, FENCED))),
    ),
    "an old version has what a failed attempt made": (
        "fenced",
        lambda facts: replace(
            facts,
            artifacts=(*facts.artifacts, ArtifactRow(attempt=30, name=BINARY, kind="rpm", sha256=FENCED)),
            pool=(*facts.pool, (OS, BINARY, FENCED)),
        ),
    ),
    "a hostile package does not end as its own failure": (
        "outcome",
        lambda facts: replace(facts, builds=(facts.builds[0], replace(facts.builds[1], outcome="succeeded"))),
    ),
    "an honest root has a hostile package": (
        "reached",
        lambda facts: say(facts, 7, "root.json", "glibc-2.34-1.x86_64 sg0001-evil-trap-1-1.noarch"),
    ),
    "an honest build has a forged artifact": (
        "reached",
        lambda facts: say(facts, 7, "artifact", "evil-1-1.noarch.rpm"),
    ),
    "an honest build ends as a forged report says": ("reached", lambda facts: say(facts, 7, "build", "root: evil")),
    "a forged repository is the newest version": (
        "reached",
        lambda facts: say(facts, None, "repository", "demo/x86_64/os file:///evil/"),
    ),
    "a host is quarantined for a forged report": (
        "reached",
        lambda facts: say(facts, None, "quarantine", "build.x86_64@host1 root: evil"),
    ),
    "an honest attempt is given to the evil host": (
        "reached",
        lambda facts: attempt(facts, 31, worker="build@evil"),
    ),
    "a notice of the evil host costs an attempt": (
        "lost-attempt",
        lambda facts: attempt(facts, 31, outcome="errored", reason="worker-lost: build@host2 was lost"),
    ),
    "a host is blamed for what a hostile package did": (
        "blamed",
        lambda facts: attempt(facts, 50, outcome="errored", reason="root: dnf was killed"),
    ),
    "something is left": ("left", lambda facts: replace(facts, left=("mount /somewhere",))),
}


@pytest.mark.parametrize("host", ["host1", "build.x86_64@host1"])
def test_the_judge_finds_out_when_a_host_is_quarantined_for_nothing(host: str) -> None:
    assert [broken.rule for broken in judge(replace(honest(), held={host}))] == ["held"]


def test_a_quarantine_in_one_role_counts_the_trouble_of_that_role() -> None:
    case = honest()
    more = [replace(case.facts.steps[2], id=n, build=n) for n in (101, 102)]
    lost = [replace(case.facts.attempts[3], id=n, step=n) for n in (101, 102)]
    facts = replace(case.facts, steps=(*case.facts.steps, *more), attempts=(*case.facts.attempts, *lost))
    rules = {
        held: "held" in {broken.rule for broken in judge(replace(case, facts=facts, held={held}))}
        for held in ("build.x86_64@host1", "host1", "publish@host1", "build.x86_64@host2")
    }
    assert rules == {"build.x86_64@host1": False, "host1": False, "publish@host1": True, "build.x86_64@host2": True}


def test_the_judge_finds_out_when_the_broker_refuses_an_honest_account_or_obeys_the_evil_one() -> None:
    assert [broken.rule for broken in judge(replace(honest(), denials={"publish was denied lpush"}))] == ["denied"]
    assert [broken.rule for broken in judge(replace(honest(), let_through={"LPUSH source evil"}))] == ["let-through"]


def test_a_hostile_build_whose_worker_was_killed_blames_no_host() -> None:
    case = honest()
    facts = attempt(case.facts, 50, outcome="errored", reason="disk-full: no space")
    assert judge(replace(case, facts=facts)) == []


def test_every_hostile_package_bears_the_mark() -> None:
    recipes = [make_hostile(number, attack, random.Random(1)) for number, attack in enumerate(ORDER)]
    assert set(ORDER) == set(Attack)
    assert all("evil" in recipe.name and recipe.is_hostile for recipe in recipes)


@pytest.mark.parametrize("lie", LIES)
def test_the_judge_finds_out_when(lie: str) -> None:
    rule, tell = LIES[lie]
    case = honest()
    assert rule in {broken.rule for broken in judge(replace(case, facts=tell(case.facts)))}


@pytest.mark.parametrize("life", [(0.5, 1.0), (6.0, 40.0)])
def test_a_wound_explains_no_loss_of_attempts_before_or_after_it(life: tuple[float, float]) -> None:
    case = replace(honest(), lives={"7.build.x86_64.1": life})
    assert [broken.rule for broken in judge(case)] == ["lost-attempt"]


def test_a_wound_of_the_attempt_itself_explains_its_loss_however_late_it_was_seen_to_be_out() -> None:
    case = honest()
    cause = replace(case.causes[0], workers=frozenset(), labels=frozenset({"7.build.x86_64.1"}))
    late = {"7.build.x86_64.1": (20.0, 40.0)}
    assert judge(replace(case, causes=[cause], lives=late)) == []
    assert judge(replace(case, causes=[replace(cause, at_s=50.0)], lives=late)) != []


def test_a_build_may_be_there_twice_only_where_a_commit_was_cut_off() -> None:
    case = honest()
    case.asked[0].raised = 1
    facts = replace(case.facts, builds=(*case.facts.builds, replace(case.facts.builds[0], id=8)))
    assert judge(replace(case, facts=facts, may_double=True)) == []
    assert [broken.rule for broken in judge(replace(case, facts=facts))] == ["double-build"]


def test_after_a_retry_a_step_may_have_succeeded_twice_and_the_last_counts() -> None:
    case = honest()
    case.asked[0].retried = 1
    again = AttemptRow(id=32, step=3, number=3, status="finished", outcome="succeeded")
    newer = ArtifactRow(attempt=32, name=BINARY, kind="rpm", sha256=FENCED)
    facts = replace(case.facts, attempts=(*case.facts.attempts, again), artifacts=(*case.facts.artifacts, newer))
    stale = judge(replace(case, facts=facts))
    assert [broken.rule for broken in stale] == ["digest"], "the repository still has the older one"
    facts = replace(publish(facts, replace(RIGHT, said=FENCED, is_=FENCED)), pool=(*facts.pool, (OS, BINARY, FENCED)))
    assert judge(replace(case, facts=facts)) == []
