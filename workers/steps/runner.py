"""Runs every step: makes its work folder and log before, and stores its log and reason afterwards.

Knows nothing of Celery, Redis or leases: `workers.agent.tasks` and `workers.by_hand` call it with the work.
"""

import errno
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from farm.artifacts import Access, open_store
from farm.config import Settings
from farm.errors import GIVEN, BadRequest, DiskFull, FarmError, InputMissing, LeaseLost, NotFound, Unforeseen
from farm.model.artifact import Artifact
from farm.model.outcome import Outcome
from farm.model.work import AnyResult, AnyWork, StepResult
from farm.steps.registry import step_type
from workers.core.collect import store_log
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.core.run import CommandFailed
from workers.core.text import shown
from workers.formats import registry
from workers.formats.base import Reason
from workers.isolation.scratch import (
    STEP_PREFIX,
    alive_folder,
    at_work,
    attempted,
    remove_tree,
    scratch_name,
    sweep_orphans,
)
from workers.steps.registry import find_run

_REASON_CHARS = 1000
_KEPT = "kept-"
#: The file in a kept folder that names the attempt.
_ATTEMPT = "attempt"
_numbers = itertools.count(1)


def run_step(
    work: AnyWork,
    settings: Settings,
    *,
    access: Access | None = None,
    stop: threading.Event | None = None,
    watch: Callable[[StepContext], AbstractContextManager[object]] = nullcontext,
) -> AnyResult:
    """Run one attempt and keep its log. `access` opens the artifact store. `watch` is entered with the context before
    the step starts, and left before its work folder is removed.

    Raises Trouble, with the log among its `artifacts`, and LeaseLost, with nothing stored, once `stop` was set.
    Any other error is Unforeseen trouble, and its log has the traceback.
    """
    with (
        _full_disk(settings),
        _workdir(settings, work.attempt) as (folder, remove),
        StepLog(folder / "log", limit_bytes=work.limits.log_bytes) as log,
    ):
        (folder / "work").mkdir()
        context = StepContext(
            attempt=work.attempt,
            workdir=folder / "work",
            log=log,
            store=open_store(settings, access=access),
            settings=settings,
            limits=work.limits,
            stop=stop or threading.Event(),
            deadline=time.monotonic() + work.limits.wall_s,
        )
        if settings.keep_failed:
            log.note(f"unless the step succeeds, its work folder is kept in {_kept(folder)}")
        with watch(context):
            result = _logged(work, context)
        if result.outcome.is_success:
            remove.set()
        return result


def _logged(work: AnyWork, context: StepContext) -> AnyResult:
    log = context.log
    log.note(f"{work.kind} of {work.package} for {work.target.name}, attempt {work.attempt}")
    try:
        result = _run(work, context)
    except LeaseLost:
        raise
    except FarmError as error:
        log.note(f"farm trouble ({error.code}): {error}")
        if isinstance(error, CommandFailed):
            error.remote = error.remote or GIVEN
        error.artifacts = _store_log(work, context)
        raise
    except Exception as error:
        log.note("".join(traceback.format_exception(error)))
        unforeseen = Unforeseen(f"{type(error).__name__} in {work.kind}: {error}; its log has the traceback")
        unforeseen.remote = GIVEN  # a package may trigger a bug of the farm, for which no host must be blamed
        unforeseen.artifacts = _store_log(work, context)
        raise unforeseen from error
    if context.stop.is_set():
        raise LeaseLost(f"attempt {work.attempt} was stopped")
    if not result.outcome.is_success:
        result = _with_reason(result, registry.format_of(work.target).find_reason(log.path))
        log.note(f"{result.outcome}: {result.reason}")
    return replace(result, artifacts=(*result.artifacts, *_store_log(work, context)), phases=context.phases)


def _run(work: AnyWork, context: StepContext) -> AnyResult:
    try:
        with _full_disk(context.settings):
            result: AnyResult = find_run(work.kind)(work, context)
    except Ended as ended:
        return StepResult(outcome=ended.outcome, reason=ended.reason)
    except NotFound as error:
        raise InputMissing(str(error)) from error
    except BadRequest as error:
        # The host must not be blamed for the input of the step, whose sender may be malicious.
        error.remote = error.remote or GIVEN
        raise
    return result


@contextmanager
def _full_disk(settings: Settings) -> Iterator[None]:
    """Turn the error of a full disk into DiskFull. Any write, also to the log, can meet one: it is never unforeseen."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"the disk of {settings.data} is full: {error}; free some space there") from error


def _with_reason(result: AnyResult, found: Reason | None) -> AnyResult:
    """The result with the reason from the log, if it failed without one; its own reason is made printable."""
    if result.reason is not None or found is None:
        reason = shown(result.reason or "failed without a word in the log", limit=_REASON_CHARS)
        excerpt = result.excerpt or (found.excerpt if found and result.outcome is Outcome.FAILED else None)
        return replace(result, reason=reason, excerpt=excerpt)
    return replace(result, reason=found.line, excerpt=result.excerpt or found.excerpt)


def _store_log(work: AnyWork, context: StepContext) -> tuple[Artifact, ...]:
    kind = step_type(work.kind)
    arch = work.input.arch if kind.is_per_arch and kind.runs_in_root else None
    return store_log(context, f"{work.kind}.{arch}.log" if arch else f"{work.kind}.log")


@contextmanager
def _workdir(settings: Settings, attempt: str) -> Iterator[tuple[Path, threading.Event]]:
    """A folder that is removed afterwards. With `keep_failed` it is kept, unless the event is set."""
    settings.work.mkdir(parents=True, exist_ok=True)
    folder = settings.work / scratch_name(STEP_PREFIX, next(_numbers))
    with at_work(alive_folder(settings)):
        folder.mkdir(mode=0o700)
        remove = threading.Event()
        if not settings.keep_failed:
            remove.set()
        try:
            yield folder, remove
        finally:
            if not remove.is_set():
                (folder / _ATTEMPT).write_text(attempt)
                folder.rename(_kept(folder))
            else:
                remove_tree(folder)


def _kept(folder: Path) -> Path:
    """The path of a folder that is kept for people. No sweep takes its name for a dead worker's."""
    return folder.with_name(f"{_KEPT}{folder.name}")


@contextmanager
def scratch_folder(settings: Settings) -> Iterator[Path]:
    """A work folder as a step's, for work that is no step. It is removed afterwards."""
    with _workdir(replace(settings, keep_failed=False), "") as (folder, _):
        yield folder


def find_kept(settings: Settings, attempt: str) -> Path | None:
    """The work folder of that attempt, if it was kept; the newest if several farms used this folder."""
    found = [one.parent for one in settings.work.glob(f"{_KEPT}*/{_ATTEMPT}") if one.read_text() == attempt]
    return max(found, key=lambda one: one.stat().st_ctime, default=None)


def forget_kept(settings: Settings, attempt: str) -> None:
    """Remove the work folder of that attempt, if it was kept."""
    if (found := find_kept(settings, attempt)) is not None:
        remove_tree(found)


def sweep(settings: Settings) -> int:
    """Remove the files of dead workers' steps. Returns their number. Called when a worker starts. A failure is logged,
    and the sweep goes on with the rest."""

    def folders() -> int:
        return sweep_orphans(settings.work.glob(f"{STEP_PREFIX}-*"), STEP_PREFIX, alive_folder(settings))

    return registry.sweep(settings) + attempted(str(settings.work), folders)
