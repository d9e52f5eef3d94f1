"""What happens to a build: every transition, as functions of its state. No SQL, no Redis, no clock of its own.

Each function changes what it is given through `Changes`, which carries the time and collects what is to be written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from farm.model.arch import Arch
from farm.model.build import StepKind
from farm.model.outcome import Outcome, Status, combine
from farm.state.changes import BuildState, Changes, LiveAttempt, StepState
from farm.state.policy import RetryPolicy
from farm.state.text import clean

_LOGS_ONLY = "logs and records only"
_WITHOUT_LOGS = (Outcome.CANCELLED, Outcome.EXCLUDED)


# --- going out --------------------------------------------------------------------------------------------------


def send(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    wall_s: int,
    following_wall_s: int,
) -> None:
    """A ready step goes out, and with it what follows in its chain, which is claimed when its turn comes."""
    _attempt(changes, step, wall_s, is_first=True)
    following = build.next_in_chain(step)
    if following is not None and following.status is Status.WAITING:
        _attempt(changes, following, following_wall_s, is_first=False)


def send_again(changes: Changes, build: BuildState, step: StepState) -> None:
    """Nobody has the attempt's message: it never was. The step is ready again, for another attempt."""
    _withdraw(changes, step, Status.READY)
    _withdraw_following(changes, build, step)


def running(changes: Changes, build: BuildState, step: StepState, *, worker: str, holder: str) -> None:
    """A worker holds the attempt's lease. Whose it was first it stays, whatever Redis says later."""
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
    """The attempt never ran: it leaves no row. Its label is closed, and never used again."""
    if step.live is None:
        return
    changes.closes.append(step.label)
    if step.live.id is not None:
        changes.dropped_attempts.append(step.live.id)
    changes.dirty.pop(id(step.live), None)
    step.live = None
    changes.put(step, status=status)


# --- coming back ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FanOut:
    """The arches of a package: what each `build` step covers, and why the others have none."""

    covers: dict[Arch, tuple[Arch, ...]]
    excluded: dict[Arch, str]


def succeeded(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    outcome: Outcome,
    output: str,
    plan: FanOut | None = None,
) -> None:
    """The step's attempt is closed already; what needs its results may go on. An srpm step brings a plan."""
    reason = step.reason if step.is_logs_only else None
    changes.put(step, status=Status.FINISHED, outcome=outcome, reason=reason, output=output, not_before_at=None)
    _is_going(changes, build)
    following = build.next_in_chain(step)
    if plan is not None:
        _fan_out(changes, build, plan)
    elif following is not None:
        _let_go(changes, build, following)
    finish_if_done(changes, build)


def ended(
    changes: Changes,
    build: BuildState,
    step: StepState,
    outcome: Outcome,
    reason: str | None,
    *,
    has_logs: bool = False,
) -> None:
    """The step is over without success: what needs its results never has its turn. With `has_logs` there is
    something to bring to the repository back end all the same, and the build is not over before that is."""
    if step.is_logs_only:
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
    if has_logs and step.kind is not StepKind.UPLOAD and outcome not in _WITHOUT_LOGS:
        _publish_logs(changes, build, step, word)
    finish_if_done(changes, build)


def _publish_logs(changes: Changes, build: BuildState, step: StepState, word: str) -> None:
    """Of a `build` step the upload step of its arch does it, of the steps before one that has no arch."""
    upload = _ensure(changes, build, StepKind.UPLOAD, step.arch, Status.READY)
    fresh(changes, upload, Status.READY)
    changes.put(upload, is_skipped=True, reason=f"{_LOGS_ONLY}: {step.name} {word}")


def trouble(
    changes: Changes,
    build: BuildState,
    step: StepState,
    *,
    message: str,
    host: str | None,
    policy: RetryPolicy | None,
    has_logs: bool = False,
    is_death: bool = False,
) -> None:
    """The farm's fault: the step waits for another try, or is over after the last one. No policy means no retry.

    With `is_death` the worker died, or its process did, which a package can bring about: that has an end of its own.
    """
    hosts = step.trouble_hosts if not host or host in step.trouble_hosts else (*step.trouble_hosts, host)
    deaths = step.deaths + is_death
    if policy is not None and deaths >= policy.max_deaths:
        message = clean(
            f"{deaths} workers were lost while they ran it (on {', '.join(hosts) or 'unknown hosts'}), so it is not "
            f"given to another one; see its attempts' logs, then `farm retry {build.id}`. The last: {message}"
        )
        changes.put(step, deaths=deaths)
        ended(changes, build, step, Outcome.ERRORED, message, has_logs=has_logs)
        return
    if policy is None or step.troubles >= policy.max_troubles:
        ended(changes, build, step, Outcome.ERRORED, message, has_logs=has_logs)
        return
    changes.put(
        step,
        status=Status.READY if is_death else Status.WAITING,
        troubles=step.troubles + 1,
        deaths=deaths,
        trouble=message,
        trouble_hosts=hosts,
        # A worker's death is no outage that one had better wait out.
        not_before_at=changes.now + (timedelta(0) if is_death else policy.delay(step.troubles)),
    )
    _withdraw_following(changes, build, step)
    _is_going(changes, build)


def _withdraw_following(changes: Changes, build: BuildState, step: StepState) -> None:
    """What its chain would have gone on with waits again."""
    following = build.next_in_chain(step)
    if following is not None:
        _withdraw(changes, following, Status.WAITING)


def hand_back(changes: Changes, build: BuildState, step: StepState) -> None:
    """The step's attempt is closed already, and nobody is to blame: it is ready for another worker at once."""
    changes.put(step, status=Status.READY)
    _withdraw_following(changes, build, step)
    _is_going(changes, build)


def _fan_out(changes: Changes, build: BuildState, plan: FanOut) -> None:
    """The srpm is there: its build and upload steps come into being, or start anew when the srpm was made again."""
    for arch, covers in plan.covers.items():
        for kind, status in ((StepKind.BUILD, Status.READY), (StepKind.UPLOAD, Status.WAITING)):
            own = covers if covers != (arch,) else ()
            fresh(changes, _ensure(changes, build, kind, arch, status), status, covers=own)
    for arch, reason in plan.excluded.items():
        for kind in (StepKind.BUILD, StepKind.UPLOAD):
            step = _ensure(changes, build, kind, arch, Status.FINISHED)
            changes.put(step, status=Status.FINISHED, outcome=Outcome.EXCLUDED, reason=reason, is_skipped=False)
    for step in build.steps:
        if step.arch and step.status is not Status.FINISHED and step.arch not in plan.covers:
            reason = "not needed: a noarch package is built once"
            changes.put(step, status=Status.FINISHED, outcome=Outcome.EXCLUDED, reason=reason, is_skipped=True)


def fresh(changes: Changes, step: StepState, status: Status, *, covers: tuple[Arch, ...] | None = None) -> None:
    """A step as if it had never run, but for its number of attempts."""
    changes.put(
        step,
        status=status,
        outcome=None,
        reason=None,
        is_skipped=False,
        not_before_at=None,
        troubles=0,
        deaths=0,
        trouble=None,
        trouble_hosts=(),
        output=None,
        covers=step.covers if covers is None else covers,
    )


def finish_if_done(changes: Changes, build: BuildState) -> None:
    """A build is over when all of its steps are."""
    if build.status is Status.FINISHED or any(step.status is not Status.FINISHED for step in build.steps):
        return
    counted = [step for step in build.steps if not step.is_skipped and step.outcome is not None]
    # That fetch and srpm went well says nothing once there are steps that were to come of it.
    parts = [step for step in counted if step.arch or not (step.outcome and step.outcome.is_success)] or counted
    outcome = combine(step.outcome for step in parts if step.outcome is not None)
    reason = None
    if not outcome.is_success:
        worst = next(step for step in parts if step.outcome is outcome)
        reason = f"{worst.name}: {worst.reason}" if worst.reason else f"{worst.name} {outcome.value.replace('_', ' ')}"
        if outcome in (Outcome.CANCELLED, Outcome.EXCLUDED):
            reason = worst.reason
    changes.put(build, status=Status.FINISHED, outcome=outcome, reason=reason, finished_at=changes.now)


def _ensure(changes: Changes, build: BuildState, kind: StepKind, arch: Arch | None, status: Status) -> StepState:
    step = build.find(kind, arch)
    if step is None:
        step = StepState(id=None, build_id=build.id, kind=kind, arch=arch, status=status)
        build.steps.append(step)
        changes.new_steps.append(step)
    return step


def _let_go(changes: Changes, build: BuildState, following: StepState) -> None:
    """The next step's turn: its message is on its way with the chain, or it has to be sent."""
    if following.live is not None:
        changes.put(following.live, offered_at=changes.now)
        changes.offers.append((build, following))
    elif following.status is Status.WAITING:
        changes.put(following, status=Status.READY)


def _is_going(changes: Changes, build: BuildState) -> None:
    if build.status in (Status.WAITING, Status.READY, Status.DISPATCHED):
        changes.put(build, status=Status.RUNNING)


# --- what people do ---------------------------------------------------------------------------------------------


def cancel(changes: Changes, build: BuildState, *, by: str) -> None:
    """Every step that is not over ends now."""
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


def run_again(changes: Changes, build: BuildState, steps: Iterable[StepState]) -> None:
    """These steps are ready anew, and what needs their results waits for them anew."""
    for step in steps:
        fresh(changes, step, Status.READY)
        for other in build.downstream(step):
            if other.kind is StepKind.UPLOAD and other.arch is None:
                continue  # it has its turn when `step` fails again, and else never
            if other.outcome is not Outcome.EXCLUDED or step.arch is None:
                fresh(changes, other, Status.WAITING)
    changes.put(build, status=Status.RUNNING, outcome=None, reason=None, finished_at=None)
