"""Decides whether a worker is given work from a queue, and gives the reason if it is not."""

from collections.abc import Iterable, Mapping

from farm.model.worker import HoldKind, HostHold, WorkerFacts, hold_of
from farm.steps.registry import needs_root


def unfit_reason(worker: WorkerFacts, queue: str) -> str | None:
    """The reason this worker cannot run the steps of `queue`; None if it can. A host on which no build root can be made
    runs steps that need none."""
    return worker.unfit if needs_root(queue) else None


class Withholding:
    """Decides which workers are given no work, from one snapshot of holds and workers.

    `held` are hosts without work, by HostHold.key; `speaks` is the version of messages that the scheduler sends.
    """

    def __init__(self, held: Mapping[str, HostHold], workers: Iterable[WorkerFacts], *, speaks: int) -> None:
        self._held = held
        self._workers = tuple(workers)
        self._speaks = speaks
        # One account can register 2,000 workers on a quarantined host, and each of them asks for the others.
        self._has_free_host: dict[str, bool] = {}

    def reason(self, worker: WorkerFacts, queue: str) -> str | None:
        """The reason this worker is given no work from `queue`; None if it may have work."""
        if worker.speaks != self._speaks:
            return f"{worker.name} speaks version {worker.speaks} of messages and the scheduler {self._speaks}"
        hold = hold_of(worker.host, queue, self._held)
        if hold is None:
            return None
        if hold.kind is HoldKind.QUARANTINED and not self._is_served_elsewhere(queue):
            return None  # a queue's last host is better than none
        return hold.shown

    def _is_served_elsewhere(self, queue: str) -> bool:
        if queue not in self._has_free_host:
            self._has_free_host[queue] = any(self._is_free(worker, queue) for worker in self._workers)
        return self._has_free_host[queue]

    def _is_free(self, worker: WorkerFacts, queue: str) -> bool:
        return (
            worker.speaks == self._speaks
            and queue in worker.queues
            and hold_of(worker.host, queue, self._held) is None
            and unfit_reason(worker, queue) is None
        )
