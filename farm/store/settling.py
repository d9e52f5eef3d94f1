"""Reports, and what the scheduler found out itself, become state: one transaction for all that is there."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from farm import wire
from farm.artifacts.names import check_name
from farm.errors import WorkerLost
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import StepKind
from farm.model.nevra import Nevra
from farm.model.outcome import Outcome, Status
from farm.model.work import AnyResult, BuildResult, FetchResult, SrpmResult, UploadResult
from farm.model.worker import host_of
from farm.store import machine, rows
from farm.store.arches import plan_arches
from farm.store.machine import RetryPolicy, clean
from farm.store.owners import claims_of, refusal
from farm.store.state import BuildState, Changes, LiveAttempt, StepState, build_of

_log = logging.getLogger(__name__)
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_INT = 2**63 - 1
_NAME_CHARS = 255


class Finding(StrEnum):
    """What the scheduler can find out about an attempt that has not reported."""

    RUNNING = "running"  # a worker holds its lease
    LOST = "lost"  # the worker that had it stopped renewing the lease
    UNSENT = "unsent"  # no worker has it, and no message will bring it to one
    OVERDUE = "overdue"  # it is past its limit, and its worker did not end it
    REFUSED = "refused"  # its work cannot be made
    DEFERRED = "deferred"  # its work cannot be made now, for a reason that may pass
    HANDED_BACK = "handed back"  # its worker is to run it no longer, for a reason that is nobody's fault


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`worker` is for RUNNING; `message` says more where the finding does not. With a `token` it is about the attempt
    that has it, and no other."""

    label: str
    finding: Finding
    worker: str = ""
    message: str = ""
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What settling needs to know: the policy for farm trouble, native arches with a free worker, best first, and
    whether logs and records of builds go to the repository back end."""

    policy: RetryPolicy
    native: tuple[Arch, ...] = ()
    uploads_logs: bool = False


def settle(changes: Changes, reports: Sequence[wire.AnyReport], around: Surroundings) -> list[str]:
    """Apply reports in order. Returns the labels of those that were dropped: late, repeated, or with a wrong token."""
    late = []
    for report in reports:
        match _find(changes.builds, report.attempt, report.token):
            case (build, step, _) if step.kind is report.kind:
                _settle_one(changes, build, step, report, around)
            case _:
                late.append(report.attempt)
    return late


def judge(changes: Changes, verdicts: Iterable[Verdict], around: Surroundings) -> None:
    """Apply what the scheduler found; what has changed since is left alone."""
    for verdict in verdicts:
        found = _find(changes.builds, verdict.label, verdict.token)
        if found is None:
            continue
        build, step, live = found
        match verdict.finding:
            case Finding.RUNNING:
                if live.status is Status.DISPATCHED:
                    machine.running(changes, build, step, worker=verdict.worker)
            case Finding.UNSENT:
                if live.status is Status.DISPATCHED:  # else somebody has it after all
                    machine.send_again(changes, build, step)
            case Finding.LOST:
                message = f"worker-lost: {live.worker} stopped renewing its lease"
                _trouble(changes, build, step, around, message, host=host_of(live.worker or ""), is_death=True)
            case Finding.OVERDUE:
                message = f"ran longer than {live.wall_s} s, and its worker did not end it"
                _end(changes, build, step, around, Outcome.TIMED_OUT, message)
            case Finding.REFUSED:
                _end(changes, build, step, around, Outcome.ERRORED, clean(verdict.message))
            case Finding.DEFERRED:
                _trouble(changes, build, step, around, clean(verdict.message), host=None)
            case Finding.HANDED_BACK:
                message = clean(verdict.message or f"{live.worker} handed it back")
                _close(changes, build, step, outcome=Outcome.CANCELLED, reason=message)
                machine.hand_back(changes, build, step)


def _end(
    changes: Changes, build: BuildState, step: StepState, around: Surroundings, outcome: Outcome, message: str
) -> None:
    """The attempt ends, and its step with it."""
    _close(changes, build, step, outcome=outcome, reason=message)
    machine.ended(changes, build, step, outcome, message, has_logs=_has_logs(step, around))


def _has_logs(step: StepState, around: Surroundings, artifacts: tuple[Artifact, ...] = ()) -> bool:
    """Whether this end of the step leaves anything to publish: of its own, of an earlier try, of an earlier step."""
    return around.uploads_logs and (bool(artifacts) or step.troubles > 0 or step.kind is not StepKind.FETCH)


def _find(
    builds: Mapping[int, BuildState], label: str, token: str | None
) -> tuple[BuildState, StepState, LiveAttempt] | None:
    """The live attempt with this label, and with this token where one is given, if it has been offered: one whose turn
    has not come ends with the step before it, and never alone."""
    build_id = build_of(label)
    build = builds.get(build_id) if build_id is not None else None
    step = build.by_label(label) if build is not None else None
    if build is None or step is None or step.live is None or step.live.offered_at is None:
        return None
    return (build, step, step.live) if token in (None, step.live.token) else None


def _settle_one(
    changes: Changes, build: BuildState, step: StepState, report: wire.AnyReport, around: Surroundings
) -> None:
    nonsense = _nonsense(build, report)
    if nonsense is not None:
        message = clean(f"{report.worker} sent a report that makes no sense: {nonsense}")
        _trouble(changes, build, step, around, message, host=host_of(report.worker))
    elif report.trouble is not None:
        _trouble(
            changes,
            build,
            step,
            around,
            clean(f"{report.trouble.code}: {report.trouble.message}"),
            host=host_of(report.worker),
            artifacts=report.trouble.artifacts,
            is_retryable=report.trouble.retryable,
            is_death=report.trouble.code == WorkerLost.code,
            **_facts(changes, report),
        )
    elif report.result is not None:
        _settle_result(changes, build, step, report, report.result, around)


def _trouble(
    changes: Changes,
    build: BuildState,
    step: StepState,
    around: Surroundings,
    message: str,
    *,
    host: str | None,
    artifacts: tuple[Artifact, ...] = (),
    is_retryable: bool = True,
    is_death: bool = False,
    **facts: Any,
) -> None:
    """The attempt ends with the farm's trouble, on `host` if it was one's; the step is tried again where that may help.

    `facts` are what the attempt is recorded with beside its outcome and reason.
    """
    _close(changes, build, step, artifacts=artifacts, **facts | {"outcome": Outcome.ERRORED, "reason": message})
    machine.trouble(
        changes,
        build,
        step,
        message=message,
        host=host,
        policy=around.policy if is_retryable else None,
        has_logs=_has_logs(step, around, artifacts),
        is_death=is_death,
    )


def _settle_result(
    changes: Changes,
    build: BuildState,
    step: StepState,
    report: wire.AnyReport,
    result: AnyResult,
    around: Surroundings,
) -> None:
    values = _facts(changes, report)
    if result.outcome.is_success and (taken := refusal(changes.owners, build, result)) is not None:
        result = replace(result, outcome=Outcome.FAILED, reason=taken)
    reason = clean(result.reason) if result.reason is not None else None
    values |= {"outcome": result.outcome, "reason": reason, "peak_memory_bytes": result.peak_memory_bytes}
    values |= {"phases": result.phases}
    values |= {"excerpt": clean(result.excerpt, machine.EXCERPT_CHARS) if result.excerpt else None}
    _close(changes, build, step, artifacts=result.artifacts, **values)
    if not result.outcome.is_success:
        has_logs = _has_logs(step, around, result.artifacts)
        machine.ended(changes, build, step, result.outcome, reason, has_logs=has_logs)
        return
    output = result.output
    if isinstance(output, FetchResult) and output.commit is not None:
        changes.put(build, source_commit=clean(output.commit))
    if isinstance(output, UploadResult):
        changes.published += output.versions
        if not step.is_logs_only:
            made = build.find(StepKind.BUILD, step.arch)
            text = made.output if made is not None else None
            changes.claims += claims_of(build, wire.decode_output(StepKind.BUILD, text) if text else None)
    plan = None
    if isinstance(output, SrpmResult):
        changes.put(build, package=Nevra.parse(output.nevra).name, nevra=output.nevra)
        plan = plan_arches(build.arches, output, around.native)
    machine.succeeded(changes, build, step, outcome=result.outcome, output=rows.to_text(output), plan=plan)


def _facts(changes: Changes, report: wire.AnyReport) -> dict[str, Any]:
    """Both times are by the worker's clock, so that their difference is right."""
    if report.trouble is not None and report.trouble.code == WorkerLost.code:
        return {"worker": clean(report.worker)}  # whoever says so for the dead does not know when it began; SQL does
    started_at, finished_at = _aware(report.started_at), _aware(report.finished_at)
    if started_at is None or finished_at is None:
        started_at = finished_at = changes.now
    return {"started_at": started_at, "finished_at": finished_at, "worker": clean(report.worker)}


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
    used_s = min(max(0.0, (finished_at - started_at).total_seconds()), live.wall_s)  # clocks may be set in between
    changes.used_s[build.owner] = changes.used_s.get(build.owner, 0.0) + used_s
    changes.closes.append(step.label)
    changes.close_attempt(live, **values)
    if artifacts:
        changes.artifacts.append((live.id, artifacts))
    step.live = None


def _nonsense(build: BuildState, report: wire.AnyReport) -> str | None:
    """Why a report cannot be believed, whoever sent it; None for a sound one."""
    if (report.result is None) == (report.trouble is None):
        return "it has not exactly one of a result and trouble"
    result = report.result
    for item in _artifacts(report):
        if not _SHA256.fullmatch(item.sha256) or not 0 <= item.size_bytes <= _MAX_INT or not _is_name(item.name):
            return f"artifact {item.name[:_NAME_CHARS]!a}"
    if result is None:
        return None
    if result.peak_memory_bytes is not None and not 0 <= result.peak_memory_bytes <= _MAX_INT:
        return f"peak memory {result.peak_memory_bytes}"
    if result.outcome.is_success and result.output is None:
        return "a success without output"
    if isinstance(result.output, FetchResult) and (spec := result.output.spec) is not None:
        is_sound = spec.endswith(".spec") and "/" not in spec and spec.isprintable()
        return None if is_sound else f"the spec's name {spec[:_NAME_CHARS]!a}"
    if isinstance(result.output, SrpmResult):
        return _bad_nevra(result.output.nevra)
    if isinstance(result.output, UploadResult):
        return next((bad for one in result.output.versions if (bad := _bad_version(build, *one))), None)
    return None


def _artifacts(report: wire.AnyReport) -> Iterator[Artifact]:
    """All that it speaks of: what is kept with the attempt, and what the next step is given."""
    if report.trouble is not None:
        yield from report.trouble.artifacts
    if report.result is None:
        return
    yield from report.result.artifacts
    match report.result.output:
        case FetchResult(archive=archive):
            yield archive
        case SrpmResult(srpm=srpm):
            yield srpm
        case BuildResult(rpms=rpms):
            yield from rpms
        case UploadResult() | None:
            pass


def _is_name(name: str) -> bool:
    """Another host may make a file of it: no path, and nothing that a person does not see."""
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _bad_version(build: BuildState, path: str, version: int, url: str) -> str | None:
    """The next builds are given it, so it is of this build's target, and can be written down."""
    is_sound = path.isascii() and path.isprintable() and path.startswith(f"{build.target}/") and 0 < version <= _MAX_INT
    if not is_sound or len(path) > _NAME_CHARS:
        return f"version {version} of {path[:_NAME_CHARS]!a}, which is no repository of {build.target}"
    if not url.isprintable() or any(char.isspace() for char in url) or len(url) > 4 * _NAME_CHARS or "://" not in url:
        return f"the URL {url[:_NAME_CHARS]!a} of {path}"
    return None


def _bad_nevra(nevra: str) -> str | None:
    try:
        Nevra.parse(nevra)
    except ValueError:
        return f"NEVRA {nevra[:_NAME_CHARS]!a}"
    return None if nevra.isprintable() and len(nevra) <= 4 * _NAME_CHARS else "a NEVRA that does not print"
