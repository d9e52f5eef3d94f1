"""Carries out what HostHealth decides about hosts: reads and writes SQL, tells workers, has work handed back."""

import logging
from collections.abc import Sequence
from datetime import datetime

from farm.broker.leases import Leases
from farm.model.remote import Remote
from farm.model.worker import HoldKind, HostHold, WorkerFacts, host_of
from farm.scheduler.hosts import HostHealth
from farm.store.settling import Finding, Verdict
from farm.store.store import Store

_log = logging.getLogger(__name__)


class HeldHosts:
    """Writes to Redis which hosts and queues are held; workers read that by themselves. The scheduler sends no worker a
    command: it would use its own rights on behalf of the sender of the report that it acts on."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._health = HostHealth()
        self._told: dict[str, str] | None = None
        self._off: dict[str, dict[str, list[str]]] | None = None

    def forget(self) -> None:
        """Write everything to Redis again: Redis may have lost it."""
        self._told = self._off = None

    def held(self, now: datetime) -> dict[str, HostHold]:
        """The hosts that get no work now."""
        return self._health.held(now)

    def look(self, workers: Sequence[WorkerFacts], now: datetime) -> list[Verdict]:
        """Stop work from going to held hosts. Returns a verdict for each attempt that must run on another host."""
        self._health.read(self._store.holds())
        held = self._health.held(now)
        # A quarantined host is asked to stop, and goes on where it is the only one; a drained host is refused work.
        drained = {hold.host: hold.shown for hold in held.values() if hold.kind is HoldKind.DRAINED}
        if drained != self._told:
            self._leases.hold_hosts(drained)
            self._told = drained
        off = self._health.off(workers, now)
        if off != self._off:
            self._leases.turn_off(off)
            self._off = off
        return self._handed_back({hold.host: hold.shown for hold in held.values() if hold.hands_back and not hold.role})

    def note(
        self,
        worker: str,
        label: str,
        now: datetime,
        *,
        trouble: str | None,
        remote: Remote | None = None,
        owner: str = "",
        package: str = "",
    ) -> None:
        """Record how an attempt of this owner's package went on a worker; `trouble` is the message of its trouble,
        `remote` the far end that caused it."""
        hold = self._health.note(worker, label, now, trouble=trouble, remote=remote, owner=owner, package=package)
        if hold is not None:
            extra = {"action": "quarantine", "host": hold.host}
            _log.warning("%s; `farm workers undrain %s` ends that", hold.shown, hold.host, extra=extra)
            self._store.hold(hold)

    def _handed_back(self, why: dict[str, str]) -> list[Verdict]:
        if not why:
            return []
        with self._store.read_view() as view:
            running = [(one.label, host_of(one.worker)) for one in view.live() if one.worker]
        return [
            Verdict(label=label, finding=Finding.HANDED_BACK, message=why[host])
            for label, host in running
            if host in why
        ]
