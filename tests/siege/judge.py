"""The judge: finds the faults of the final state. Pure: from facts, the requests, and the adversary's excuses.

Each rule is one function. A rule that cannot be broken is worth nothing: tests/unit/test_siege_judge.py plants a lie
for each.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.siege.facts import AttemptRow, Facts, StepRow
from tests.siege.field import Cause
from tests.siege.hostile import MARK
from tests.siege.stream import Asked

_SUCCESSES = ("succeeded", "unchanged")
_LOST = re.compile(r"worker-lost|renew")
#: Trouble that the adversary's wounds make, as the reason of an attempt begins: its code.
_WOUNDS = re.compile(r"(worker-lost|disk-full|artifact-store|host-unfit|repository|farm-not-running)\b|.*renew")
_TROUBLES = 3  # with as many builds
_OS = "demo/x86_64/os"
_SOURCE = "demo/source"


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule that was broken. `build` is the build whose story explains it; None if there is no such build."""

    rule: str
    text: str
    build: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """`lives` says from when to when each attempt was seen to be out, on the timeline on which the causes are. `held`
    are the hosts that the farm quarantined, as `role@host`, or `host` for all roles. `denials` are commands that the
    broker refused an honest account, `let_through` those of other roles that it did not refuse the evil host's.
    `may_double` where a database that was killed in the middle of a commit
    leaves it open whether a batch was written.
    """

    facts: Facts
    asked: Sequence[Asked]
    causes: Sequence[Cause] = ()
    lives: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    held: Collection[str] = ()
    denials: Collection[str] = ()
    let_through: Collection[str] = ()
    may_double: bool = False


def judge(case: Case) -> list[Broken]:
    rules = (
        everything_is_there_once,
        everything_ended_as_it_must,
        everything_is_over,
        attempts_are_in_order,
        losses_have_a_cause,
        quarantines_have_a_cause,
        packages_are_published_once,
        nothing_else_is_published,
        nothing_of_an_attack_reaches_an_honest_build,
        attacks_cost_no_host_its_trust,
        accounts_have_the_rights_of_their_roles,
        nothing_is_left,
    )
    return [broken for rule in rules for broken in rule(case)]


# --- builds -----------------------------------------------------------------------------------------------------


def everything_is_there_once(case: Case) -> Iterator[Broken]:
    """A build that the farm said it has is there; one that it refused is not."""
    found: dict[str, list[int]] = defaultdict(list)
    for build in case.facts.builds:
        found[build.filename].append(build.id)
    for one in case.asked:
        ids = found.pop(one.recipe.filename, [])
        for missing in set(one.ids) - set(ids):
            yield Broken(rule="lost-build", text=f"{one.recipe.name}: build {missing} was enqueued and is not there")
        more = len(set(ids) - set(one.ids))
        if more > (one.raised if case.may_double else 0):
            text = f"{one.recipe.name} is there as {ids}, and only {one.ids} were said to be enqueued"
            yield Broken(rule="double-build", text=text, build=ids[0])
    for filename, ids in found.items():
        yield Broken(rule="unknown-build", text=f"{filename} was never asked for: {ids}", build=ids[0])


def everything_ended_as_it_must(case: Case) -> Iterator[Broken]:
    right: dict[int, set[str]] = {}
    natural = {one.recipe.filename: {one.recipe.outcome} for one in case.asked}
    for one in case.asked:
        for build in one.ids:
            right[build] = one.outcomes
    for row in case.facts.builds:
        wanted = right.get(row.id, natural.get(row.filename, set()))
        if row.status == "finished" and row.outcome not in wanted:
            ways = " or ".join(sorted(wanted))
            text = f"build {row.id} {row.filename} ended as {row.outcome} ({row.reason}), not as {ways}"
            yield Broken(rule="outcome", text=text, build=row.id)


def everything_is_over(case: Case) -> Iterator[Broken]:
    steps = {step.id: step for step in case.facts.steps}
    for build in case.facts.builds:
        if build.status != "finished" or build.outcome is None:
            yield Broken(rule="not-over", text=f"build {build.id} {build.filename} is {build.status}", build=build.id)
    for step in case.facts.steps:
        if step.status != "finished" or step.outcome is None:
            yield Broken(rule="not-over", text=f"step {_name(step)} is {step.status}", build=step.build)
    for attempt in case.facts.attempts:
        if attempt.status != "finished" or attempt.outcome is None:
            step = steps[attempt.step]
            text = f"attempt {_name(step)}.{attempt.number} is {attempt.status} on {attempt.worker}"
            yield Broken(rule="not-over", text=text, build=step.build)
    for label in case.facts.closing:
        yield Broken(
            rule="not-over", text=f"the lease of {label} is still to be closed", build=int(label.split(".")[0])
        )


def attempts_are_in_order(case: Case) -> Iterator[Broken]:
    """Numbers are unique, and a step succeeds once, plus once for each request to run it again."""
    retried = {build: one.retried for one in case.asked for build in one.ids}
    for step, attempts in _by_step(case.facts):
        numbers = Counter(attempt.number for attempt in attempts)
        for number, count in numbers.items():
            if count > 1:
                text = f"step {_name(step)} has {count} attempts of number {number}"
                yield Broken(rule="numbers", text=text, build=step.build)
        good = [attempt.number for attempt in attempts if attempt.outcome in _SUCCESSES]
        if len(good) > 1 + retried.get(step.build, 0):
            text = f"step {_name(step)} succeeded {len(good)} times, as attempts {good}"
            yield Broken(rule="twice", text=text, build=step.build)
        if step.outcome in _SUCCESSES and not good:
            yield Broken(rule="no-attempt", text=f"step {_name(step)} succeeded without an attempt", build=step.build)


def losses_have_a_cause(case: Case) -> Iterator[Broken]:
    """An attempt is lost only where the adversary took its worker away."""
    for step, attempts in _by_step(case.facts):
        for attempt in attempts:
            if attempt.outcome != "errored" or not _LOST.search(attempt.reason or ""):
                continue
            label = f"{_name(step)}.{attempt.number}"
            life = case.lives.get(label, (0.0, math.inf))
            if not any(_explains(cause, label, attempt.worker, life) for cause in case.causes):
                text = f"{label} was given up at {life[1]:.1f} s ({attempt.reason}) though {attempt.worker} was well"
                yield Broken(rule="lost-attempt", text=text, build=step.build)


def quarantines_have_a_cause(case: Case) -> Iterator[Broken]:
    """A host is given no work only where three builds met trouble on it."""
    for host in case.held:
        builds = _troubled(case, host)
        if len(builds) < _TROUBLES:
            yield Broken(rule="held", text=f"{host} was quarantined for trouble of builds {sorted(builds)}")


def _troubled(case: Case, host: str) -> set[int]:
    """Builds that met trouble on a host, in the role that is named with it."""
    role, at, name = host.rpartition("@")
    return {
        step.build
        for step, attempts in _by_step(case.facts)
        for attempt in attempts
        if attempt.outcome == "errored"
        and (attempt.worker or "").partition("@")[2] == name
        and (not at or (attempt.worker or "").partition("@")[0] == role.partition(".")[0])
    }


def _explains(cause: Cause, label: str, worker: str | None, life: tuple[float, float]) -> bool:
    if label in cause.labels:  # it was seen at work there, however late SQL had it
        return cause.at_s <= life[1]
    return worker in cause.workers and cause.at_s <= life[1] and life[0] <= cause.until_s


# --- packages ---------------------------------------------------------------------------------------------------


def packages_are_published_once(case: Case) -> Iterator[Broken]:
    """For each build that succeeded, the newest version has the packages of its last good attempts: each once, with the
    digest that was recorded, and the file matches the metadata."""
    for one in case.facts.published:
        if one.said != one.is_:
            text = f"{one.repository} says that {one.filename} is {one.said[:12]}, and it is {one.is_[:12]}"
            yield Broken(rule="corrupt", text=text)
    here: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in case.facts.published:
        here[one.repository, one.filename].append(one.said)
    for (repository, filename), wanted in _wanted(case.facts).items():
        found = here.get((repository, filename), [])
        build = next(iter(wanted.values()))
        if len(found) != 1:
            text = f"{filename} is {len(found)} times in {repository}, not once"
            yield Broken(rule="published", text=text, build=build)
        elif found[0] not in wanted:
            right = ", ".join(key[:12] for key in wanted)
            text = f"{filename} in {repository} is {found[0][:12]}, and recorded was {right}"
            yield Broken(rule="digest", text=text, build=build)


def _wanted(facts: Facts) -> dict[tuple[str, str], dict[str, int]]:
    """By repository and file name: digests that are right, and the build that made them."""
    good = {build.id for build in facts.builds if build.outcome in _SUCCESSES}
    files: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for artifact in facts.artifacts:
        files[artifact.attempt].append((artifact.kind, artifact.name, artifact.sha256))
    wanted: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for step, attempts in _by_step(facts):
        last = max((one for one in attempts if one.outcome in _SUCCESSES), key=lambda one: one.number, default=None)
        if step.build not in good or last is None:
            continue
        for kind, name, sha256 in files[last.id]:
            if (step.kind, kind) == ("build", "rpm"):
                wanted[_OS, name][sha256] = step.build
            elif (step.kind, kind) == ("srpm", "srpm"):
                wanted[_SOURCE, name][sha256] = step.build
    return wanted


def nothing_else_is_published(case: Case) -> Iterator[Broken]:
    """No file of any version came from an attempt that did not succeed, or that was not recorded."""
    outcomes = {attempt.id: attempt.outcome for attempt in case.facts.attempts}
    recorded: dict[str, set[str | None]] = defaultdict(set)
    for artifact in case.facts.artifacts:
        recorded[artifact.sha256].add(outcomes.get(artifact.attempt))
    for repository, filename, sha256 in case.facts.pool:
        found = recorded.get(sha256)
        if found is None:
            text = f"{repository} has {filename} of {sha256[:12]}, which no recorded attempt made"
            yield Broken(rule="fenced", text=text)
        elif not found & set(_SUCCESSES):
            text = f"{repository} has {filename} of an attempt that {', '.join(str(one) for one in found)}"
            yield Broken(rule="fenced", text=text)


# --- attacks ----------------------------------------------------------------------------------------------------


def nothing_of_an_attack_reaches_an_honest_build(case: Case) -> Iterator[Broken]:
    """Every forged text, and every file that a hostile package makes, has a mark. Texts that the farm keeps of an
    honest build or of itself do not have it, and neither does the record of an honest build's root, which names its
    packages.
    """
    hostile = _hostile(case)
    for words in case.facts.words:
        if words.build not in hostile and MARK in words.text:
            at = words.text.index(MARK)
            text = f"{words.where} of {_whose(words.build)} has {words.text[max(0, at - 40) : at + 60]!r} of an attack"
            yield Broken(rule="reached", text=text, build=words.build)
    for attempt, step in _attempts(case.facts):
        if step.build not in hostile and attempt.worker and MARK in attempt.worker:
            text = f"{_name(step)}.{attempt.number} was given to {attempt.worker}"
            yield Broken(rule="reached", text=text, build=step.build)


def attacks_cost_no_host_its_trust(case: Case) -> Iterator[Broken]:
    """A hostile build meets trouble only by a wound, as an honest one does. Other trouble of it would count against the
    host that ran it, and in the end quarantine that host."""
    hostile = _hostile(case)
    for attempt, step in _attempts(case.facts):
        if step.build not in hostile or attempt.outcome != "errored":
            continue
        label = f"{_name(step)}.{attempt.number}"
        life = case.lives.get(label, (0.0, math.inf))
        is_wounded = any(_explains(cause, label, attempt.worker, life) for cause in case.causes)
        if not is_wounded and not _WOUNDS.match(attempt.reason or ""):
            text = f"{label} is booked as trouble of {attempt.worker}: {attempt.reason}"
            yield Broken(rule="blamed", text=text, build=step.build)


def accounts_have_the_rights_of_their_roles(case: Case) -> Iterator[Broken]:
    for text in sorted(case.denials):
        yield Broken(rule="denied", text=text)
    for text in sorted(case.let_through):
        yield Broken(rule="let-through", text=f"the evil host's account was allowed {text}")


def _hostile(case: Case) -> set[int]:
    names = {one.recipe.filename for one in case.asked if one.recipe.is_hostile}
    asked = {build for one in case.asked if one.recipe.is_hostile for build in one.ids}
    return asked | {build.id for build in case.facts.builds if build.filename in names}


def _whose(build: int | None) -> str:
    return "the farm" if build is None else f"build {build}"


# --- the rest ---------------------------------------------------------------------------------------------------


def nothing_is_left(case: Case) -> Iterator[Broken]:
    for text in case.facts.left:
        yield Broken(rule="left", text=f"left behind: {text}")


def _attempts(facts: Facts) -> Iterator[tuple[AttemptRow, StepRow]]:
    for step, attempts in _by_step(facts):
        for attempt in attempts:
            yield attempt, step


def _by_step(facts: Facts) -> Iterable[tuple[StepRow, list[AttemptRow]]]:
    attempts: dict[int, list[AttemptRow]] = defaultdict(list)
    for attempt in facts.attempts:
        attempts[attempt.step].append(attempt)
    return [(step, attempts[step.id]) for step in facts.steps]


def _name(step: StepRow) -> str:
    return f"{step.build}.{step.kind}.{step.arch}" if step.arch else f"{step.build}.{step.kind}"
