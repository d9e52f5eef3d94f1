"""Settling: how reports, and verdicts of the scheduler on attempts without a report, change the state of builds.

The caller checks nothing: a report that cannot be true (reports.py) is trouble of the host that sent it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hmac import compare_digest
from typing import Any

from farm import wire
from farm.errors import RepositoryTrouble, SourceUnavailable, WorkerLost
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome, Status
from farm.model.work import AnyResult
from farm.model.worker import Holder, host_of
from farm.state import machine
from farm.state.changes import BuildState, Changes, LiveAttempt, StepState, build_for
from farm.state.graph import Planned
from farm.state.policy import RetryPolicy
from farm.state.text import EXCERPT_CHARS, clean
from farm.steps.base import Settling
from farm.steps.registry import build_workflow, step_type
from farm.store import columns
from farm.store.owners import Claim, claims_of, refusal
from farm.store.published import replacement_refusal
from farm.store.reports import report_problem


class Finding(StrEnum):
    """The findings of the scheduler about an attempt that has not reported."""

    RUNNING = "running"  # a worker holds its lease
    LOST = "lost"  # its worker stopped renewing the lease
    UNSENT = "unsent"  # no worker has it, and no message will bring it to one
    UNCLAIMED = "unclaimed"  # the same, and its step was sent too often without effect
    OVERDUE = "overdue"  # it is past its limit, and its worker did not end it
    REFUSED = "refused"  # its work cannot be made
    DEFERRED = "deferred"  # its work cannot be made now, for a reason that may pass
    HANDED_BACK = "handed back"  # another worker must run it; neither the package nor the host is to blame


#: An attempt that ends in one of these ways did not report how far it came. An upload may have published by then, so
#: its names belong to its owner from then on.
_MAY_HAVE_PUBLISHED = (Finding.LOST, Finding.OVERDUE, Finding.HANDED_BACK)

_UNSENT = (Finding.UNSENT, Finding.UNCLAIMED)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`lease` is the attempt's holder in Redis, for RUNNING and for a verdict with a `digest`; `message` explains the
    finding. A verdict with the `digest` of a token comes from the token's owner, and counts only if that is the
    attempt's holder."""

    label: str
    finding: Finding
    lease: Holder | None = None
    message: str = ""
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class SettlePolicy:
    """The rules by which attempts are settled: the policy for farm trouble, native arches with a free worker, best
    first, and whether logs and records of builds go to the repository back end."""

    retry: RetryPolicy
    native: tuple[Arch, ...] = ()
    uploads_logs: bool = False


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A report that counted, the worker that sent it, and the owner and the package of its build."""

    report: wire.AnyReport
    worker: str
    owner: str
    package: str


@dataclass(kw_only=True)
class Settled:
    """`heard` are the reports that counted; `late` are the labels of reports that are late, repeated, or not from the
    holder of the attempt."""

    heard: list[Heard] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def settle(
    changes: Changes, reports: Sequence[wire.AnyReport], policy: SettlePolicy, leases: Mapping[str, Holder]
) -> Settled:
    """Apply reports in order. `leases` are the holders of these attempts in Redis, by label."""
    settled = Settled()
    for report in reports:
        lease = leases.get(report.attempt)
        match _find(changes.builds, report.attempt):
            case (build, step, live) if step.kind == report.kind and _is_holder(
                live, wire.digest_of(report.token), lease
            ):
                worker = clean((live.worker if live.holder else None) or (lease.worker if lease else ""))
                _settle_one(changes, build, step, report, worker, policy)
                settled.heard.append(Heard(report=report, worker=worker, owner=build.owner, package=build.package))
            case _:
                settled.late.append(report.attempt)
    return settled


def _counts(verdict: Verdict, live: LiveAttempt) -> bool:
    return verdict.digest is None or _is_holder(live, verdict.digest, verdict.lease)


def _is_holder(live: LiveAttempt, digest: str, lease: Holder | None) -> bool:
    """Whether a token with this digest is the holder's. The holder in SQL counts, whatever Redis has said since."""
    known = live.holder or (lease.digest if lease is not None else "")
    return bool(known) and compare_digest(known.encode(), digest.encode())


def judge(changes: Changes, verdicts: Iterable[Verdict], policy: SettlePolicy) -> None:
    """Apply the scheduler's verdicts; an attempt that has changed since is left as it is."""
    for verdict in verdicts:
        found = _find(changes.builds, verdict.label)
        if found is None or not _counts(verdict, found[2]):
            continue
        if verdict.finding in _UNSENT and found[2].status is not Status.DISPATCHED:
            continue  # a worker has it after all
        build, step, live = found
        changes.claims += _claims_without_report(build, step, verdict.finding)
        match verdict.finding:
            case Finding.RUNNING:
                if live.status is Status.DISPATCHED and (lease := verdict.lease) is not None:
                    machine.running(changes, build, step, worker=lease.worker, holder=lease.digest)
            case Finding.UNSENT:
                machine.send_again(changes, build, step)
            case Finding.LOST:
                message = f"worker-lost: {live.worker} stopped renewing its lease"
                _trouble(changes, build, step, policy, message, host=host_of(live.worker or ""), is_death=True)
            case Finding.OVERDUE:
                message = f"ran longer than {live.wall_s} s, and its worker did not end it"
                _end(changes, build, step, policy, Outcome.TIMED_OUT, message)
            case Finding.REFUSED:
                _end(changes, build, step, policy, Outcome.ERRORED, clean(verdict.message))
            case Finding.DEFERRED | Finding.UNCLAIMED:
                _trouble(changes, build, step, policy, clean(verdict.message), host=None)
            case Finding.HANDED_BACK:
                message = clean(verdict.message or f"{live.worker} handed it back")
                _close(changes, build, step, outcome=Outcome.CANCELLED, reason=message)
                _hand_back(changes, build, step, verdict, message, host_of(live.worker or ""), policy)


def _hand_back(
    changes: Changes,
    build: BuildState,
    step: StepState,
    verdict: Verdict,
    message: str,
    host: str,
    policy: SettlePolicy,
) -> None:
    """Without a digest a person drained the host, which is not counted."""
    if verdict.digest is None:
        machine.hand_back(changes, build, step)
        return
    # An attempt that was handed back before it was seen running has its worker in the lease alone.
    name = host or (host_of(verdict.lease.worker) if verdict.lease is not None else "")
    machine.handed_back(
        changes, build, step, message=message, host=clean(name) or None, policy=policy.retry, after=_after(step, policy)
    )


def _claims_without_report(build: BuildState, step: StepState, finding: Finding) -> Iterable[Claim]:
    return claims_of(build, step) if finding in _MAY_HAVE_PUBLISHED else ()


def _end(
    changes: Changes, build: BuildState, step: StepState, policy: SettlePolicy, outcome: Outcome, message: str
) -> None:
    """End the attempt, and its step with it."""
    _close(changes, build, step, outcome=outcome, reason=message)
    machine.ended(changes, build, step, outcome, message, after=_after(step, policy))


def _after(step: StepState, policy: SettlePolicy, artifacts: tuple[Artifact, ...] = ()) -> Planned | None:
    """The step that publishes the logs, if this end of the step leaves any logs: its own, those of an earlier try, or
    of a step that it needed."""
    has_logs = bool(artifacts) or step.troubles > 0 or bool(step.needs)
    return build_workflow().after_end(step) if policy.uploads_logs and has_logs else None


def _find(builds: Mapping[int, BuildState], label: str) -> tuple[BuildState, StepState, LiveAttempt] | None:
    """The live attempt with this label, if it has been offered: an attempt before its turn ends with the step before
    it, and never alone."""
    build = build_for(builds, label)
    step = build.by_label(label) if build is not None else None
    if build is None or step is None or step.live is None or step.live.offered_at is None:
        return None
    return build, step, step.live


def _settle_one(
    changes: Changes, build: BuildState, step: StepState, report: wire.AnyReport, worker: str, policy: SettlePolicy
) -> None:
    problem = report_problem(build, step, report)
    if problem is not None:
        message = clean(f"{worker} sent an invalid report: {problem}")
        _trouble(changes, build, step, policy, message, host=host_of(worker))
    elif report.trouble is not None and _is_packages_fault(step, report.trouble):
        message = clean(f"{report.trouble.message}; tried twice: correct the source, or retry when its server is back")
        facts = _facts(changes, report, worker)
        given = {"outcome": Outcome.FAILED, "reason": message}
        _close(changes, build, step, artifacts=report.trouble.artifacts, **facts | given)
        after = _after(step, policy, report.trouble.artifacts)
        machine.ended(changes, build, step, Outcome.FAILED, message, after=after)
    elif report.trouble is not None:
        _trouble(
            changes,
            build,
            step,
            policy,
            clean(f"{report.trouble.code}: {report.trouble.message}"),
            host=host_of(worker),
            artifacts=report.trouble.artifacts,
            is_retryable=report.trouble.retryable,
            is_death=report.trouble.code == WorkerLost.code,
            **_facts(changes, report, worker),
        )
    elif report.result is not None:
        facts = _facts(changes, report, worker)
        _settle_result(changes, build, step, report.result, facts, policy)


def _is_packages_fault(step: StepState, trouble: wire.TroubleReport) -> bool:
    """Whether the step had such trouble before: a server that the package names is its own matter, not one host's."""
    code = SourceUnavailable.code
    return trouble.code == code and (step.trouble or "").startswith(f"{code}: ")


def _trouble(
    changes: Changes,
    build: BuildState,
    step: StepState,
    policy: SettlePolicy,
    message: str,
    *,
    host: str | None,
    artifacts: tuple[Artifact, ...] = (),
    is_retryable: bool = True,
    is_death: bool = False,
    **facts: Any,
) -> None:
    """End the attempt with trouble, which `host` had unless it is None; the step is tried again where that may help.

    `facts` are further columns of the attempt, beside its outcome and reason.
    """
    if is_death or message.startswith(f"{RepositoryTrouble.code}: "):
        changes.claims += claims_of(build, step)  # some of the packages may be published already
    _close(changes, build, step, artifacts=artifacts, **facts | {"outcome": Outcome.ERRORED, "reason": message})
    machine.trouble(
        changes,
        build,
        step,
        message=message,
        host=host,
        policy=policy.retry if is_retryable else None,
        after=_after(step, policy, artifacts),
        is_death=is_death,
    )


def _settle_result(
    changes: Changes,
    build: BuildState,
    step: StepState,
    result: AnyResult,
    facts: dict[str, Any],
    policy: SettlePolicy,
) -> None:
    values = dict(facts)
    taken = refusal(changes.owners, build, step, result) or replacement_refusal(changes.occupants, build, step, result)
    if result.outcome.is_success and taken is not None:
        result = replace(result, outcome=Outcome.FAILED, reason=taken)
    reason = clean(result.reason) if result.reason is not None else None
    values |= {"outcome": result.outcome, "reason": reason, "peak_memory_bytes": result.peak_memory_bytes}
    values |= {"phases": result.phases}
    values |= {"excerpt": clean(result.excerpt, EXCERPT_CHARS) if result.excerpt else None}
    _close(changes, build, step, artifacts=result.artifacts, **values)
    if not result.outcome.is_success:
        after = _after(step, policy, result.artifacts)
        machine.ended(changes, build, step, result.outcome, reason, after=after)
        return
    kind, output = step_type(step.kind), result.output
    changes.claims += claims_of(build, step)
    settling = Settling(changes=changes, build=build, step=step, native=policy.native, workflow=build_workflow())
    machine.succeeded(
        changes,
        build,
        step,
        outcome=result.outcome,
        output=columns.to_text(output),
        settle=lambda: kind.settle(settling, output),
    )


def _facts(changes: Changes, report: wire.AnyReport, worker: str) -> dict[str, Any]:
    """Both times are by the worker's clock, so that their difference is right."""
    if report.trouble is not None and report.trouble.code == WorkerLost.code:
        return {"worker": worker}  # the process that reports the death does not know when it began; SQL does
    started_at, finished_at = _aware(report.started_at), _aware(report.finished_at)
    if started_at is None or finished_at is None:
        started_at = finished_at = changes.now
    return {"started_at": started_at, "finished_at": finished_at, "worker": worker}


def _aware(at: datetime) -> datetime | None:
    return at if at.tzinfo is not None else None


def _close(
    changes: Changes, build: BuildState, step: StepState, *, artifacts: tuple[Artifact, ...] = (), **values: Any
) -> None:
    live = step.live
    if live is None or live.id is None:
        return
    started_at = values.get("started_at") or live.started_at or changes.now
    finished_at = values.get("finished_at") or changes.now
    used_s = _used_s(live, finished_at - started_at, changes.now)
    changes.used_s[build.owner] = changes.used_s.get(build.owner, 0.0) + used_s
    changes.closes.append(step.label)
    changes.close_attempt(live, **values)
    if artifacts:
        changes.artifacts.append((live.id, artifacts))
    step.live = None


def _used_s(live: LiveAttempt, said: timedelta, now: datetime) -> float:
    """The time for which the owner pays. A host may say any time, so it is no longer than since the attempt was
    offered. Clocks may be set in between."""
    since = min(at for at in (live.offered_at or live.dispatched_at, live.started_at) if at is not None)
    return max(0.0, min(said.total_seconds(), (now - since).total_seconds(), live.wall_s))
