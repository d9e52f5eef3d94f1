"""Carries out what HostHealth decides about hosts: reads and writes SQL, tells workers, has work handed back."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from farm.leases import Leases
from farm.model.worker import HoldKind, HostHold, WorkerFacts, host_of
from farm.scheduler.hosts import HostHealth
from farm.store.settling import Finding, Verdict
from farm.store.store import Store

_log = logging.getLogger(__name__)


class HeldHosts:
    """`consume(worker, queue, is_off)` tells a worker to stop, or go on, taking from a queue."""

    def __init__(self, store: Store, leases: Leases, consume: Callable[[str, str, bool], None]) -> None:
        self._store = store
        self._leases = leases
        self._consume = consume
        self._health = HostHealth()
        self._told: dict[str, str] | None = None

    def forget(self) -> None:
        """What Redis was told may be gone."""
        self._told = None

    def held(self, now: datetime) -> dict[str, HostHold]:
        """The hosts that get no work now."""
        return self._health.held(now)

    def look(self, workers: Sequence[WorkerFacts], now: datetime) -> list[Verdict]:
        """See to it that nothing goes where nothing is to go. Returns what is to be run elsewhere instead."""
        self._health.read(self._store.holds())
        held = self._health.held(now)
        # Quarantined hosts are asked to stop, and serve on where there is no other; drained ones are refused work.
        drained = {host: hold.shown for host, hold in held.items() if hold.kind is HoldKind.DRAINED}
        if drained != self._told:
            self._leases.hold_hosts(drained)
            self._told = drained
        self._health.hold_off(workers, now, self._consume)
        return self._handed_back({host: hold.shown for host, hold in held.items() if hold.hands_back})

    def note(self, worker: str, label: str, now: datetime, *, trouble: str | None, remote: str | None = None) -> None:
        """How an attempt went on a worker; `trouble` is its message, `remote` the far end that it was with."""
        hold = self._health.note(worker, label, now, trouble=trouble, remote=remote)
        if hold is not None:
            extra = {"action": "quarantine", "host": hold.host}
            _log.warning("%s; `farm workers undrain %s` ends that", hold.shown, hold.host, extra=extra)
            self._store.hold(hold)

    def _handed_back(self, why: dict[str, str]) -> list[Verdict]:
        if not why:
            return []
        with self._store.looking() as look:
            running = [(one.label, host_of(one.worker)) for one in look.live() if one.worker]
        return [
            Verdict(label=label, finding=Finding.HANDED_BACK, message=why[host])
            for label, host in running
            if host in why
        ]
