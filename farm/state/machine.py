"""The state machine of a build: every transition, as functions of its state. No SQL, no Redis, no clock of its own.

Each function changes steps and builds through `Changes`, which carries the time and collects the rows to write.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from farm.model.arch import Arch
from farm.model.outcome import Outcome, Status, combine
from farm.state.changes import BuildState, Changes, LiveAttempt, StepState
from farm.state.graph import How, Planned
from farm.state.policy import RetryPolicy
from farm.state.text import clean

_LOGS_ONLY = "logs and records only"
_WITHOUT_LOGS = (Outcome.CANCELLED, Outcome.EXCLUDED)


# --- sending ----------------------------------------------------------------------------------------------------


def send(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    wall_s: int,
    following_wall_s: int,
) -> None:
    """Send a ready step, and with it the next step in its chain, which a worker can claim when its turn comes."""
    _attempt(changes, step, wall_s, is_first=True)
    following = build.next_in_chain(step)
    if following is not None and following.status is Status.WAITING:
        _attempt(changes, following, following_wall_s, is_first=False)


def send_again(changes: Changes, build: BuildState, step: StepState) -> None:
    """The message was never delivered: drop the attempt, and make the step ready for another one."""
    _withdraw(changes, step, Status.READY)
    _withdraw_following(changes, build, step)


def running(changes: Changes, build: BuildState, step: StepState, *, worker: str, holder: str) -> None:
    """A worker holds the attempt's lease. The first holder stays its holder, whatever Redis says later."""
    assert step.live is not None  # noqa: S101 - the caller looked
    holder = step.live.holder or clean(holder)
    changes.put(step.live, status=Status.RUNNING, worker=clean(worker), holder=holder or None, started_at=changes.now)
    changes.put(step, status=Status.RUNNING)
    _is_going(changes, build)


def _attempt(changes: Changes, step: StepState, wall_s: int, *, is_first: bool) -> None:
    number = step.attempts + 1
    step.live = LiveAttempt(
        id=None,
        number=number,
        status=Status.DISPATCHED,
        wall_s=wall_s,
        dispatched_at=changes.now,
        offered_at=changes.now if is_first else None,
    )
    changes.new_attempts.append((step, step.live))
    changes.put(step, status=Status.DISPATCHED, attempts=number)


def _withdraw(changes: Changes, step: StepState, status: Status) -> None:
    """Drop an attempt that never ran: it leaves no row. Its label is closed, and never used again."""
    if step.live is None:
        return
    changes.closes.append(step.label)
    if step.live.id is not None:
        changes.dropped_attempts.append(step.live.id)
    changes.dirty.pop(id(step.live), None)
    step.live = None
    changes.put(step, status=status)


def put_off(changes: Changes, step: StepState, *, message: str, until: datetime) -> None:
    """Withdraw the attempt that was made or offered in this transaction. The step waits until `until`, for the reason
    that the message gives."""
    live = step.live
    _withdraw(changes, step, Status.WAITING)
    changes.new_attempts = [pair for pair in changes.new_attempts if pair[1] is not live]
    changes.put(step, trouble=message, not_before_at=until)


# --- settling ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FanOut:
    """The arches of a package: the arches that each `build` step covers, and why other arches have no step."""

    covers: dict[Arch, tuple[Arch, ...]]
    excluded: dict[Arch, str]


def succeeded(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    outcome: Outcome,
    output: str,
    settle: Callable[[], None] = lambda: None,
) -> None:
    """The step has succeeded, and its attempt is closed already: start the steps that need its results. `settle` makes
    all other changes; it runs before the check whether the build is over."""
    reason = step.reason if step.is_aftermath else None
    changes.put(step, status=Status.FINISHED, outcome=outcome, reason=reason, output=output, not_before_at=None)
    _is_going(changes, build)
    settle()
    for other in build.needing(step):
        if other.status is not Status.FINISHED and build.may_go(other):
            _begin_turn(changes, build, other)
    finish_if_done(changes, build)


def ended(
    changes: Changes,
    build: BuildState,
    step: StepState,
    outcome: Outcome,
    reason: str | None,
    *,
    after: Planned | None = None,
) -> None:
    """End the step without success: the steps that need its results never have their turn. The step `after` runs next,
    and the build is not over before that step is."""
    if step.is_aftermath:
        reason = clean(f"{_LOGS_ONLY}, not published: {reason or outcome.value}")
    changes.put(step, status=Status.FINISHED, outcome=outcome, reason=reason, output=None, not_before_at=None)
    _is_going(changes, build)
    word = outcome.value.replace("_", " ")
    for other in build.downstream(step):
        if other.status is Status.FINISHED:
            continue
        _withdraw(changes, other, Status.WAITING)
        changes.put(
            other,
            status=Status.FINISHED,
            outcome=Outcome.CANCELLED,
            reason=f"{step.name} {word}",
            is_skipped=True,
            not_before_at=None,
        )
    if after is not None and outcome not in _WITHOUT_LOGS:
        other = _ensure(changes, build, after, Status.READY)
        fresh(changes, other, Status.READY)
        changes.put(other, reason=_why_logs_only(step))
    finish_if_done(changes, build)


def trouble(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    message: str,
    host: str | None,
    policy: RetryPolicy | None,
    after: Planned | None = None,
    is_death: bool = False,
) -> None:
    """The farm had trouble: the step waits for another try, or is over after the last one. No policy means no retry.

    With `is_death` the worker or its process died. A package can cause that, so deaths have a limit of their own.
    """
    hosts = _with_host(step, host)
    deaths = step.deaths + is_death
    if policy is not None and deaths >= policy.max_deaths:
        message = clean(
            f"{deaths} workers were lost while they ran it (on {', '.join(hosts) or 'unknown hosts'}), so it is not "
            f"given to another one; see its attempts' logs, then `farm retry {build.id}`. The last: {message}"
        )
        changes.put(step, deaths=deaths)
        ended(changes, build, step, Outcome.ERRORED, message, after=after)
        return
    if policy is None or step.troubles >= policy.max_troubles:
        ended(changes, build, step, Outcome.ERRORED, message, after=after)
        return
    changes.put(
        step,
        status=Status.READY if is_death else Status.WAITING,
        troubles=step.troubles + 1,
        deaths=deaths,
        trouble=message,
        trouble_hosts=hosts,
        # A worker's death is no outage, so waiting does not help.
        not_before_at=changes.now + (timedelta(0) if is_death else policy.delay(step.troubles)),
    )
    _tried_again(changes, build, step)


def _with_host(step: StepState, host: str | None) -> tuple[str, ...]:
    """The hosts on which the step had trouble, with this one."""
    return step.trouble_hosts if not host or host in step.trouble_hosts else (*step.trouble_hosts, host)


def _withdraw_following(changes: Changes, build: BuildState, step: StepState) -> None:
    """Make the next step in the chain wait again."""
    following = build.next_in_chain(step)
    if following is not None:
        _withdraw(changes, following, Status.WAITING)


def hand_back(changes: Changes, build: BuildState, step: StepState) -> None:
    """Make the step ready for another worker at once, without blame. Its attempt is closed already."""
    changes.put(step, status=Status.READY)
    _tried_again(changes, build, step)


def handed_back(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    message: str,
    host: str | None,
    policy: RetryPolicy,
    after: Planned | None = None,
) -> None:
    """A worker on `host` handed the step back of its own accord. Another host gets it at once, if there is one.

    A worker that takes the step and hands it back again and again must not keep it from its end: beyond the policy's
    number of times each one is trouble.
    """
    count = step.hand_backs + 1
    words = clean(f"{count} times workers handed it back, the last on {host or 'an unknown host'}: {message}")
    changes.put(step, hand_backs=count)
    if count > policy.max_hand_backs:
        trouble(changes, build, step, message=words, host=host, policy=policy, after=after)
        return
    # The time and the hosts make the scheduler wait a while for a slot on another host.
    hosts = _with_host(step, host)
    changes.put(step, status=Status.READY, trouble=words, trouble_hosts=hosts, not_before_at=changes.now)
    _tried_again(changes, build, step)


def _tried_again(changes: Changes, build: BuildState, step: StepState) -> None:
    """The build goes on with another try of the step."""
    _withdraw_following(changes, build, step)
    _is_going(changes, build)


def fan_out(changes: Changes, build: BuildState, plan: FanOut, steps_of: Callable[[Arch], Sequence[Planned]]) -> None:
    """Make the steps of each arch, now that the arches are known; steps that exist already start again."""
    for arch, covers in plan.covers.items():
        for planned in steps_of(arch):
            step = _ensure(changes, build, planned, Status.WAITING)
            fresh(changes, step, Status.WAITING, covers=covers if covers != (arch,) else ())
    for arch, reason in plan.excluded.items():
        for planned in steps_of(arch):
            _exclude(changes, _ensure(changes, build, planned, Status.FINISHED), reason)
    for step in build.steps:
        if step.arch and step.status is not Status.FINISHED and step.arch not in plan.covers:
            _exclude(changes, step, "not needed: a noarch package is built once")


def _exclude(changes: Changes, step: StepState, reason: str) -> None:
    changes.put(step, status=Status.FINISHED, outcome=Outcome.EXCLUDED, reason=reason, is_skipped=False)


def fresh(changes: Changes, step: StepState, status: Status, *, covers: tuple[Arch, ...] | None = None) -> None:
    """Reset a step as if it had never run, except for its number of attempts."""
    changes.put(
        step,
        status=status,
        outcome=None,
        reason=None,
        is_skipped=False,
        not_before_at=None,
        troubles=0,
        deaths=0,
        hand_backs=0,
        trouble=None,
        trouble_hosts=(),
        output=None,
        covers=step.covers if covers is None else covers,
    )


def finish_if_done(changes: Changes, build: BuildState) -> None:
    """End the build when all of its steps are over."""
    if build.status is Status.FINISHED or any(step.status is not Status.FINISHED for step in build.steps):
        return
    counted = [step for step in build.steps if step.counts and not step.is_skipped and step.outcome is not None]
    # The success of fetch and srpm does not count once there are steps of arches.
    parts = [step for step in counted if step.arch or not (step.outcome and step.outcome.is_success)] or counted
    outcome = combine(step.outcome for step in parts if step.outcome is not None)
    reason = None
    if not outcome.is_success:
        worst = next(step for step in parts if step.outcome is outcome)
        reason = f"{worst.name}: {worst.reason}" if worst.reason else f"{worst.name} {outcome.value.replace('_', ' ')}"
        if outcome in (Outcome.CANCELLED, Outcome.EXCLUDED):
            reason = worst.reason
    changes.put(build, status=Status.FINISHED, outcome=outcome, reason=reason, finished_at=changes.now)


def _ensure(changes: Changes, build: BuildState, planned: Planned, status: Status) -> StepState:
    """The planned step, with its edges. It is made unless the build has it already."""
    step = build.find(planned.kind, planned.arch)
    if step is None:
        step, new = StepState.planned(planned, job_id=build.id, status=status), planned.needs
        build.steps.append(step)
        changes.new_steps.append(step)
    else:
        new = tuple(need for need in planned.needs if need not in step.needs)
        step.needs = (*step.needs, *new)
    changes.new_needs += [(step, need) for need in new]
    return step


def _begin_turn(changes: Changes, build: BuildState, following: StepState) -> None:
    """Offer the step if its message was sent with the chain; else make it ready."""
    if following.live is not None:
        if following.live.offered_at is None:
            changes.put(following.live, offered_at=changes.now)
            changes.offers.append((build, following))
    elif following.status is Status.WAITING:
        changes.put(following, status=Status.READY)


def _is_going(changes: Changes, build: BuildState) -> None:
    if build.status in (Status.WAITING, Status.READY, Status.DISPATCHED):
        changes.put(build, status=Status.RUNNING)


# --- requests of people -----------------------------------------------------------------------------------------


def cancel(changes: Changes, build: BuildState, *, by: str) -> None:
    """End every step that is not over."""
    reason = clean(f"cancelled by {by}")
    for step in build.steps:
        if step.status is Status.FINISHED:
            continue
        if step.live is not None and step.live.offered_at is None:
            _withdraw(changes, step, Status.WAITING)
        elif step.live is not None:
            changes.closes.append(step.label)
            changes.close_attempt(step.live, outcome=Outcome.CANCELLED, reason=reason)
            step.live = None
        changes.put(step, status=Status.FINISHED, outcome=Outcome.CANCELLED, reason=reason, not_before_at=None)
    finish_if_done(changes, build)


def _why_logs_only(before: StepState) -> str:
    """The reason of a step that is there because `before` ended without success."""
    word = (before.outcome or Outcome.FAILED).value.replace("_", " ")
    return f"{_LOGS_ONLY}: {before.name} {word}"


def run_again(changes: Changes, build: BuildState, steps: Iterable[StepState]) -> None:
    """Make these steps ready again; the steps that need their results wait for them again."""
    for step in steps:
        fresh(changes, step, Status.READY)
        for before in build.needed(step, How.END):
            changes.put(step, reason=_why_logs_only(before))
        for other in build.downstream(step):
            if other.outcome is not Outcome.EXCLUDED or step.arch is None:
                fresh(changes, other, Status.WAITING)
    changes.put(build, status=Status.RUNNING, outcome=None, reason=None, finished_at=None)
