"""Decides whether a worker is given work from a queue, and gives the reason if it is not."""

from collections.abc import Iterable, Mapping

from farm.model.worker import HoldKind, HostHold, WorkerFacts, hold_of
from farm.steps.registry import needs_root


def unfit_reason(worker: WorkerFacts, queue: str) -> str | None:
    """The reason this worker cannot run the steps of `queue`; None if it can. A host on which no build root can be made
    runs steps that need none."""
    return worker.unfit if needs_root(queue) else None


def withheld_reason(
    worker: WorkerFacts, queue: str, held: Mapping[str, HostHold], workers: Iterable[WorkerFacts], *, speaks: int
) -> str | None:
    """The reason this worker is given no work from `queue`; None if it may have work. `held` are hosts without work,
    by HostHold.key; `speaks` is the version of messages that the scheduler sends."""
    if worker.speaks != speaks:
        return f"{worker.name} speaks version {worker.speaks} of messages and the scheduler {speaks}"
    hold = hold_of(worker.host, queue, held)
    if hold is None:
        return None
    if hold.kind is HoldKind.QUARANTINED and not _has_free_host(queue, held, workers, speaks=speaks):
        return None  # a queue's last host is better than none
    return hold.shown


def _has_free_host(queue: str, held: Mapping[str, HostHold], workers: Iterable[WorkerFacts], *, speaks: int) -> bool:
    return any(
        other.speaks == speaks
        and queue in other.queues
        and hold_of(other.host, queue, held) is None
        and unfit_reason(other, queue) is None
        for other in workers
    )
