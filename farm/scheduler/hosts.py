"""Which hosts get no work: those a person drained, those that cause trouble, and those of another version.

Three troubles in a row within ten minutes, with three builds, and a host is quarantined: for ten minutes, and twice as
long each time that this happens again. Trouble that half of the other hosts have too is not the host's. What was
decided is in SQL (farm.store.hosts); only the counting is lost with a scheduler.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from farm import wire
from farm.model.worker import QUARANTINE_AT_MOST, HoldKind, HostHold, WorkerFacts, host_of, kept_from
from farm.queues import queue_of
from farm.store.state import build_of

TROUBLES = 3
WITHIN = timedelta(minutes=10)
QUARANTINE = timedelta(minutes=10)
_GENERAL = 2  # troubles that make another host count as one that has them too


class HostHealth:
    def __init__(self) -> None:
        self._troubles: dict[str, deque[tuple[datetime, int | None, str]]] = {}
        self._seen_at: dict[str, datetime] = {}
        self._holds: dict[str, HostHold] = {}

    def read(self, holds: Mapping[str, HostHold]) -> None:
        """This is what SQL has."""
        self._holds = dict(holds)

    def held(self, now: datetime) -> dict[str, HostHold]:
        """The hosts that get no work now."""
        return {host: hold for host, hold in self._holds.items() if hold.holds(now) and not hold.is_ahead(now)}

    def note(self, worker: str, label: str, now: datetime, *, trouble: str | None) -> HostHold | None:
        """How an attempt went on a worker; `trouble` is its message. Returns what holds the host from now on, if that
        is new and to be written down.

        It counts for the worker's host in the role that the attempt belongs to, and in no other: whoever has an account
        of one role cannot have a host of another role quarantined.
        """
        role = queue_of(label) or ""
        name = host_of(worker)
        host = f"{role}@{name}" if role else name
        self._seen_at[host] = now
        if trouble is None:
            self._troubles.pop(host, None)
            return None
        troubles = self._troubles.setdefault(host, deque(maxlen=TROUBLES))
        if build_of(label) not in {build for _, build, _ in troubles}:  # one build's bad server is not the host's fault
            troubles.append((now, build_of(label), trouble))
        if len(troubles) < TROUBLES or now - troubles[0][0] > WITHIN or self._is_held(host, now):
            return None
        if self._is_general(host, now):
            return None
        before = self._holds.get(host)
        times = (
            before.times + 1
            if before is not None and before.until_at and now - before.until_at < QUARANTINE_AT_MOST
            else 1
        )
        builds = ", ".join(str(build) for _, build, _ in troubles)
        hold = HostHold(
            host=name,
            role=role,
            kind=HoldKind.QUARANTINED,
            by="the farm",
            at=now,
            until_at=now + min(QUARANTINE * 2 ** (times - 1), QUARANTINE_AT_MOST),
            reason=f"trouble with {TROUBLES} builds in a row ({builds}), the last: {trouble}",
            times=times,
        )
        self._holds[host] = hold
        del self._troubles[host]
        return hold

    def _is_held(self, host: str, now: datetime) -> bool:
        """`host` is a HostHold's key. A drained host is held in all of its roles."""
        held = self.held(now)
        return host in held or host.partition("@")[2] in held

    def _is_general(self, host: str, now: datetime) -> bool:
        """Whether at least half of the other hosts of this role that did anything of late have trouble too."""
        role = host.partition("@")[0]
        seen = [(other, at) for other, at in self._seen_at.items() if other.partition("@")[0] == role]
        others = [other for other, at in seen if other != host and now - at <= WITHIN]
        ill = [other for other in others if len(self._troubles.get(other, ())) >= _GENERAL or self._is_held(other, now)]
        return bool(others) and len(ill) * 2 >= len(others) and any(not self._is_held(other, now) for other in ill)

    def off(self, workers: Iterable[WorkerFacts], now: datetime) -> dict[str, dict[str, list[str]]]:
        """By role and node name: the queues from which a worker is to stop taking."""
        workers = tuple(workers)
        held = self.held(now)
        found: dict[str, dict[str, list[str]]] = {}
        for worker in workers:
            for queue in worker.queues:
                if kept_from(worker, queue, held, workers, speaks=wire.VERSION) is not None:
                    found.setdefault(queue, {}).setdefault(worker.name, []).append(queue)
        return found
