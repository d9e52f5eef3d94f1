"""The door through which every step runs: its work folder and log before, its log and reason kept after.

Knows nothing of Celery, Redis or leases: `workers.tasks` and `workers.main` come in here with a work order.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import LeaseLost, Trouble
from farm.model.artifact import Artifact
from farm.model.build import StepKind
from farm.model.outcome import Outcome
from farm.model.work import AnyResult, AnyWork, StepResult
from workers.buildroot import engines
from workers.buildroot.scratch import is_orphan, remove_tree, room_name
from workers.log import StepLog
from workers.reason import find_reason
from workers.steps import build, fetch, srpm, upload
from workers.steps.context import Ended, StepContext
from workers.steps.results import store_log

#: One module a step. A new step is a new file and a line here.
STEPS: dict[StepKind, Callable[[Any, StepContext], Any]] = {
    StepKind.FETCH: fetch.run,
    StepKind.SRPM: srpm.run,
    StepKind.BUILD: build.run,
    StepKind.UPLOAD: upload.run,
}

_PREFIX = "step"
_numbers = itertools.count(1)


def run_step(
    work: AnyWork,
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    watch: Callable[[StepContext], None] | None = None,
) -> AnyResult:
    """Run one attempt and keep its log. `watch` is called once with the context, before the step starts.

    Raises Trouble, with the log among its `artifacts`, and LeaseLost, with nothing stored, once `stop` was set.
    """
    with _workdir(settings) as folder, StepLog(folder / "log", limit_bytes=work.limits.log_bytes) as log:
        (folder / "work").mkdir()
        context = StepContext(
            attempt=work.attempt,
            workdir=folder / "work",
            log=log,
            store=open_store(settings),
            settings=settings,
            limits=work.limits,
            stop=stop or threading.Event(),
            deadline=time.monotonic() + work.limits.wall_s,
        )
        if watch:
            watch(context)
        if settings.keep_failed:
            log.note(f"what is left of trouble is kept in {folder}")
        log.note(f"{work.kind} of {work.package} for {work.target.name}, attempt {work.attempt}")
        try:
            result = _run(work, context)
        except Trouble as trouble:
            log.note(f"farm trouble ({trouble.code}): {trouble}")
            trouble.artifacts = _store_log(work, context)
            raise
        if context.stop.is_set():
            raise LeaseLost(f"attempt {work.attempt} was stopped")
        if not result.outcome.is_success:
            result = _with_reason(result, log.path)
            log.note(f"{result.outcome}: {result.reason}")
        return replace(result, artifacts=(*result.artifacts, *_store_log(work, context)), phases=context.phases)


def _run(work: AnyWork, context: StepContext) -> AnyResult:
    try:
        result: AnyResult = STEPS[work.kind](work, context)
    except Ended as ended:
        return StepResult(outcome=ended.outcome, reason=ended.reason)
    return result


def _with_reason(result: AnyResult, log: Path) -> AnyResult:
    """A failed result without a reason has it in the log; one that has it keeps it."""
    found = find_reason(log)
    if result.reason is not None or found is None:
        reason = result.reason or "failed without a word in the log"
        excerpt = result.excerpt or (found.excerpt if found and result.outcome is Outcome.FAILED else None)
        return replace(result, reason=reason, excerpt=excerpt)
    return replace(result, reason=found.line, excerpt=result.excerpt or found.excerpt)


def _store_log(work: AnyWork, context: StepContext) -> tuple[Artifact, ...]:
    arch = getattr(work.input, "arch", None) if work.kind is StepKind.BUILD else None
    return store_log(context, f"{work.kind}.{arch}.log" if arch else f"{work.kind}.log")


@contextmanager
def _workdir(settings: Settings) -> Iterator[Path]:
    settings.work.mkdir(parents=True, exist_ok=True)
    folder = settings.work / room_name(_PREFIX, next(_numbers))
    folder.mkdir(mode=0o700)
    is_kept = settings.keep_failed
    try:
        yield folder
        is_kept = False
    finally:
        if not is_kept:
            remove_tree(folder)


def sweep(settings: Settings) -> int:
    """Remove what steps of dead workers left on this host; how many things. For when a worker starts."""
    swept = engines.sweep(settings)
    for folder in settings.work.glob(f"{_PREFIX}-*"):
        if is_orphan(folder.name, _PREFIX):
            remove_tree(folder)
            swept += 1
    return swept
