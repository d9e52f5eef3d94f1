"""Which hosts cause trouble: three times in a row within ten minutes, with three builds, and a host is drained.

A drained host gets nothing from a queue that another host serves too; a queue's last host is never taken away.
Kept in memory: a scheduler that starts anew gives every host another chance, and so does a worker that starts anew.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from farm.model.worker import WorkerFacts
from farm.store.settling import host_of
from farm.store.state import build_of

TROUBLES = 3
WITHIN = timedelta(minutes=10)


class HostHealth:
    def __init__(self) -> None:
        self._troubles: dict[str, deque[tuple[datetime, int | None]]] = {}
        self._drained: dict[str, datetime] = {}
        self._held_off: frozenset[tuple[str, str]] = frozenset()

    @property
    def drained(self) -> frozenset[str]:
        return frozenset(self._drained)

    def note(self, worker: str, label: str, now: datetime, *, is_trouble: bool) -> str | None:
        """How an attempt went on a worker. Returns the host's name when it is drained from now on."""
        host = host_of(worker)
        if not is_trouble:
            self._troubles.pop(host, None)
            return None
        troubles = self._troubles.setdefault(host, deque(maxlen=TROUBLES))
        if build_of(label) not in {build for _, build in troubles}:  # one build's bad server is not the host's fault
            troubles.append((now, build_of(label)))
        if host in self._drained or len(troubles) < TROUBLES or now - troubles[0][0] > WITHIN:
            return None
        self._drained[host] = now
        return host

    def hold_off(self, workers: Iterable[WorkerFacts], change: Callable[[str, str, bool], None]) -> None:
        """Call `change(worker, queue, is_off)` for each that is to stop, or to go on, taking from a queue.

        A worker that started after its host was drained has the host back: somebody saw to it.
        """
        workers = tuple(workers)
        for worker in workers:
            drained_at = self._drained.get(worker.host)
            if drained_at is not None and worker.started_at > drained_at:
                del self._drained[worker.host]
                self._troubles.pop(worker.host, None)
                self._held_off = frozenset(pair for pair in self._held_off if pair[0] != worker.name)
        served = {queue for worker in workers if worker.host not in self._drained for queue in worker.queues}
        wanted = frozenset(
            (worker.name, queue)
            for worker in workers
            if worker.host in self._drained
            for queue in worker.queues
            if queue in served
        )
        for worker_name, queue in sorted(wanted ^ self._held_off):
            change(worker_name, queue, (worker_name, queue) in wanted)
        self._held_off = wanted
