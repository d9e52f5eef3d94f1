"""The Celery tasks: claim the attempt, run the step, report. The steps themselves are in `steps`.

Start one with `celery -A workers.tasks worker -Q build.x86_64`. Each process makes its state after the fork.
"""

import hashlib
import hmac
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import redis
from billiard.exceptions import WorkerLostError
from celery import signals

from farm import process_log, wire
from farm.app import app
from farm.artifacts import Access
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import (
    BrokerFull,
    FarmError,
    FarmNotRunning,
    HostHeld,
    LeaseLost,
    Unforeseen,
    UnknownVersion,
    WorkerLost,
)
from farm.model.label import AttemptLabel
from farm.model.work import AnyResult, AnyWork
from farm.permissions import close_data
from farm.steps.registry import kinds_for, queue_of, step_type, step_types
from workers.agent import denial
from workers.agent.lease import LeaseKeeper
from workers.agent.outbox import Outbox
from workers.agent.register import Register
from workers.steps.runner import run_step, sweep

_log = logging.getLogger(__name__)

#: Usually longer than the previous step takes to be settled; otherwise the scheduler sends the message again. Not
#: longer, since a message may be forged, and takes a slot while it waits.
_OFFER_WAIT_S = 0.5
#: Made before the fork, so that all processes of this worker have it, and no other worker has.
_SECRET = secrets.token_bytes(32)
#: The queues for which this worker was started; None outside of a worker.
_queues: frozenset[str] | None = None
_SWEEP_AGAIN_S = 5.0


class _Process:
    """The state that a process keeps between tasks. It has threads and connections, which do not survive a fork."""

    def __init__(self) -> None:
        self.settings = Settings.from_env()
        self.leases = Leases(self.settings)
        self.control = Control(self.settings)
        self.outbox = Outbox(self.control, self.leases)


#: By process id. State from before a fork stays here unused: to close it would take locks that a thread of the parent
#: process may have held at the time of the fork.
_made: dict[int, _Process] = {}


def _here() -> _Process:
    pid = os.getpid()
    return _made.get(pid) or _made.setdefault(pid, _Process())


def _attempt(task: Any, *, attempt: str, v: int, **_: Any) -> str:
    """Run one attempt. Only Flower shows the answer. Unknown fields are of other versions, and ignored."""
    # No notice before the claim has the token: a forged message must not make this worker speak for an attempt that it
    # runs already.
    token = ""
    try:
        _check_is_ours(attempt, task.name)
        if v != wire.VERSION:
            raise UnknownVersion(f"message version {v} is not {wire.VERSION}, which is what this host speaks")
        token = _token(attempt)
        work = _here().leases.claim(attempt, token, task.request.hostname, wait_s=_OFFER_WAIT_S)
        if (work.attempt, step_type(work.kind).task) != (attempt, task.name):
            raise LeaseLost(f"the work that was offered for {attempt} is that of {work.attempt}, a {work.kind} step")
        report = _work(work, token, task.request.hostname)
    except SystemExit:
        # The worker was told to stop at once, and the step has ended: another worker can run it.
        _notify(wire.NoticeKind.HANDED_BACK, attempt, token, task, f"{task.request.hostname} was stopped")
        raise
    except (LeaseLost, UnknownVersion, HostHeld, FarmNotRunning, BrokerFull) as lost:
        denial.note(lost)
        if isinstance(lost, UnknownVersion | HostHeld):
            _notify(wire.NoticeKind.REFUSED, attempt, token, task, str(lost))
        _log.warning("Dropped %s: %s", attempt, lost, extra={"action": "dropped", "attempt": attempt})
        task.request.chain = None
        return f"dropped: {lost}"
    except ValueError as error:
        # Not an error of the step, which would be in its report: the offer itself could not be read.
        _notify(wire.NoticeKind.HANDED_BACK, attempt, token, task, "the work that was offered cannot be read")
        _log.warning("Dropped %s: %.200s", attempt, error, extra={"action": "dropped", "attempt": attempt})
        task.request.chain = None
        return "dropped: the work that was offered cannot be read"
    if report.result is None or not report.result.outcome.is_success:
        task.request.chain = None  # the rest of the chain must not be sent; the scheduler makes a new one on retry
    _here().outbox.send(report)
    if report.result is None:
        return f"trouble: {report.trouble.message if report.trouble else 'unknown'}"
    return f"{report.result.outcome}: {report.result.reason}" if report.result.reason else str(report.result.outcome)


def _add_task(name: str) -> None:
    @app.task(bind=True, name=name)  # type: ignore[untyped-decorator]
    def run(self: Any, **order: Any) -> str:
        return _attempt(self, **order)


for _one in step_types():
    _add_task(_one.task)


def _token(attempt: str) -> str:
    """Proves to the scheduler alone that a report is from the worker that claimed the attempt. The worker's main
    process can make the same token, on behalf of a process that died; no other worker can."""
    return hmac.new(_SECRET, attempt.encode(errors="replace"), hashlib.sha256).hexdigest()


def _check_is_ours(attempt: str, task: str) -> None:
    """Refuse an attempt of another queue: its message was forged or moved. Raises LeaseLost."""
    queue = queue_of(attempt)
    if queue is None or step_type(AttemptLabel.parse(attempt).kind).task != task:
        raise LeaseLost(f"{attempt[:64]!a} is no attempt of {task}")
    if _queues is not None and queue not in _queues:
        raise LeaseLost(f"{attempt} is for {queue}, and this worker is for {', '.join(sorted(_queues))}")


def _work(work: AnyWork, token: str, worker: str) -> wire.AnyReport:
    here = _here()
    started_at = datetime.now(UTC)
    result: AnyResult | None = None
    trouble: wire.TroubleReport | None = None
    with LeaseKeeper(here.leases, work.attempt, token, worker=worker) as keeper:
        try:
            access = Access(attempt=work.attempt, token=token)
            result = run_step(work, here.settings, access=access, stop=keeper.stop, watch=keeper.watch)
        except LeaseLost:
            raise
        except Unforeseen as error:
            _log.exception("%s failed in an unforeseen way", work.attempt, extra={"action": "unforeseen"})
            trouble = _trouble(error)
        except FarmError as error:
            trouble = _trouble(error)
        except Exception as error:
            # The error is outside the step. The package must not be blamed, and the slot must stay usable.
            _log.exception("%s failed around its step", work.attempt, extra={"action": "unforeseen"})
            trouble = _trouble(Unforeseen(f"{type(error).__name__} around the step: {error}"))
    return wire.Report(
        attempt=work.attempt,
        token=token,
        kind=work.kind,
        worker=worker,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        result=result,
        trouble=trouble,
    )


def _trouble(error: FarmError) -> wire.TroubleReport:
    return wire.TroubleReport(
        code=error.code,
        retryable=error.retryable,
        message=f"{socket.gethostname()}: {error}" if str(error) else f"{socket.gethostname()}: {error!r}",
        artifacts=error.artifacts,
        remote=error.remote[: wire.REMOTE_MAX_CHARS] if error.remote else None,
        remote_kind=error.remote_kind,
    )


def _notify(kind: wire.NoticeKind, attempt: str, token: str, task: Any, reason: str) -> None:
    """If the notice cannot be sent, the scheduler finds out by itself within half a minute to a minute."""
    notice = wire.Notice(notice=kind, attempt=attempt, token=token, worker=task.request.hostname, reason=reason)
    with suppress(FarmNotRunning):
        _here().control.notify(notice)


# --- the worker's main process ---------------------------------------------------------------------------------


@cache
def _register() -> Register:
    return Register(Settings.from_env())


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _on_setup(instance: Any, **_: Any) -> None:
    """Called before the pool forks, so that its processes inherit the queues. Celery's remote control can make the
    worker consume other queues later; it still does only the work of the queues with which it was started."""
    global _queues  # noqa: PLW0603 - a fork copies it
    _queues = frozenset(instance.app.amqp.queues.consume_from)
    own = {kind.task for queue in _queues for kind in kinds_for(queue)}
    for kind in step_types():
        if kind.task not in own:
            instance.app.tasks.unregister(kind.task)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _on_process_init(**_: Any) -> None:
    # Celery starts a pool process with its worker, and in place of one that died in the middle of a step. This runs in
    # a thread, since the pool considers a process dead that is not ready within four seconds.
    _in_thread("sweep", _sweep)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _on_ready(sender: Any, **_: Any) -> None:
    names = tuple(queue.name for queue in sender.task_consumer.queues)
    _register().start(
        name=sender.hostname,
        queues=names,
        slots=sender.controller.concurrency,
        # Looked up each time: after an outage of the broker there is a new consumer.
        is_consuming=lambda name: (consumer := sender.task_consumer) is not None and consumer.consuming_from(name),
        consume=lambda name, is_on: _consume(sender, name, is_on),
        check=denial.raise_noted,
        stop_for=_stop_for,
    )
    # A pool of threads has no processes, in which `_on_process_init` would do this.
    _in_thread("sweep", _sweep)


def _consume(consumer: Any, queue: str, is_on: bool) -> None:
    """Let Celery's loop do it, as for a command of its remote control: a consumer may not be used in other threads."""
    consumer.call_soon(consumer.add_task_queue if is_on else consumer.cancel_task_queue, queue)


def _stop_for(error: Exception) -> bool:
    """True if the worker stops for this error; it is then no longer announced."""
    if not denial.stop_for(error):
        return False
    with suppress(redis.RedisError):
        _register().stop()
    return True


def _sweep() -> None:
    settings = Settings.from_env()
    sweep(settings)
    # On a busy machine, a worker that was killed a moment ago may still have been alive at the first sweep.
    time.sleep(_SWEEP_AGAIN_S)
    sweep(settings)


@signals.task_failure.connect  # type: ignore[untyped-decorator]
def _on_failure(exception: BaseException, kwargs: Any, **_: Any) -> None:
    # Celery calls this in the main process for a pool process that died; for a task that raised, in the pool process.
    if isinstance(exception, WorkerLostError):
        worker = _register().name
        _in_thread("report-death", lambda: _report_death(exception, worker, **kwargs))


def _report_death(exception: BaseException, worker: str, *, attempt: str, **_: Any) -> None:
    """The attempt cannot speak for itself any more, and its lease would take half a minute to end."""
    now = datetime.now(UTC)
    message = f"{worker}: the process that ran it died: {exception}"
    report: wire.AnyReport = wire.Report(
        attempt=attempt,
        token=_token(attempt),
        kind=AttemptLabel.parse(attempt).kind,
        worker=worker,
        started_at=now,
        finished_at=now,
        trouble=wire.TroubleReport(code=WorkerLost.code, retryable=True, message=message, remote=WorkerLost.remote),
    )
    _log.warning("%s: %s", attempt, message, extra={"action": "worker-lost", "attempt": attempt})
    _here().outbox.send(report)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _on_shutting_down(**_: Any) -> None:
    # A thread, since this runs in a signal handler, which must not wait for the network.
    _in_thread("retire", _register().stop)


def _in_thread(name: str, do: Callable[[], None]) -> None:
    threading.Thread(target=do, name=name, daemon=True).start()


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _on_setup_logging(**_: Any) -> None:
    settings = Settings.from_env()
    process_log.set_up(settings.log_level)
    # Before the pool exists: a file that its processes make must not be readable by others even for a moment.
    for line in close_data(settings):
        _log.warning("%s", line, extra={"action": "closed"})
