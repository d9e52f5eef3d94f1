"""Decides which hosts get no work: hosts that a person drained, that cause trouble, or that have another version.

After three troubles in a row within ten minutes, with three builds, a host is quarantined for ten minutes, and for
twice as long each time that this happens again. Trouble that half of the other hosts have too is not the host's fault.
The decisions are in SQL (farm.store.hosts); only the counts are lost with a scheduler.

Trouble may be the package's: one package that is asked for again and again has trouble everywhere, and one person can
send many such packages. So trouble is *confirmed* once another host has done the same step of the same package, and
trouble that another host has with this step too counts for neither host until then. Unconfirmed trouble counts once for
each package, and not while all of it is one owner's and builds of others run in this role.

Trouble with a far end, a server that a build named, may be the server's fault. It counts for the host only once it is
confirmed, and then once for each far end.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from farm import wire
from farm.fitness import Withholding
from farm.model.label import AttemptLabel
from farm.model.remote import Remote, RemoteKind
from farm.model.worker import QUARANTINE_AT_MOST, HoldKind, HostHold, WorkerFacts, host_of
from farm.steps.registry import queue_of

TROUBLES = 3
WITHIN = timedelta(minutes=10)
QUARANTINE = timedelta(minutes=10)
_UNCLEAR_MAX = 10_000
_KEPT = 50  # troubles of one host
_OWNERS_MAX = 1000
_GENERAL = 2  # so many troubles of another host show that the trouble is general


@dataclass(frozen=True)
class _Trouble:
    """`build` is None for a label that does not parse, `remote` is None for trouble without a far end."""

    at: datetime
    build: int | None
    message: str
    remote: Remote | None = None
    owner: str = ""
    package: str = ""
    is_confirmed: bool = False


class HostHealth:
    def __init__(self) -> None:
        self._troubles: dict[str, deque[_Trouble]] = {}
        self._unclear: dict[str, dict[str, _Trouble]] = {}
        self._fine: dict[tuple[str, str], tuple[str, datetime]] = {}
        self._well_at: dict[str, datetime] = {}
        self._seen_at: dict[str, datetime] = {}
        self._owners_at: dict[str, dict[str, datetime]] = {}
        self._holds: dict[str, HostHold] = {}

    def read(self, holds: Mapping[str, HostHold]) -> None:
        """Take over the holds that SQL has."""
        self._holds = dict(holds)

    def held(self, now: datetime) -> dict[str, HostHold]:
        """The hosts that get no work now."""
        return {host: hold for host, hold in self._holds.items() if hold.holds(now) and not hold.is_ahead(now)}

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
    ) -> HostHold | None:
        """Count how an attempt went on a worker; `trouble` is the message of its trouble, `remote` the far end that
        caused it, `owner` and `package` those of its build. Returns the new hold of a host, which the caller has to
        record, or None.

        It counts for the worker's host in the role that the attempt belongs to, and in no other: an account of one
        role cannot have a host of another role quarantined.
        """
        role, name = queue_of(label) or "", host_of(worker)
        host = f"{role}@{name}" if role else name
        self._seen_at[host] = now
        owners = self._owners_at.setdefault(host, {})
        if owner in owners or len(owners) < _OWNERS_MAX:
            owners[owner] = now
        attempt = AttemptLabel.parse_or_none(label)
        step = attempt.step if attempt is not None else label
        if trouble is None:
            self._troubles.pop(host, None)
            self._well_at[host] = now
            return self._confirm(step, host, now) or self._vouch(role, package, host, now)
        build = attempt.job_id if attempt is not None else None
        found = _Trouble(now, build, trouble, remote, owner, package or str(build))
        elsewhere = self._keep(step, host, found)
        if remote is not None:
            return None
        if elsewhere:
            self._forget(elsewhere, found)
            self._fine.pop((role, package), None)
            return None
        fine_on, fine_at = self._fine.get((role, package), (host, now))
        if fine_on != host and now - fine_at <= WITHIN:
            found = replace(found, is_confirmed=True)
        return self._count(host, found, now)

    def _keep(self, step: str, host: str, found: _Trouble) -> list[str]:
        """Keep the trouble until a host does the step. Returns the other hosts that had trouble with it."""
        while step not in self._unclear and len(self._unclear) >= _UNCLEAR_MAX:
            self._unclear.pop(next(iter(self._unclear)))
        hosts = self._unclear.setdefault(step, {})
        hosts.setdefault(host, found)
        return [other for other in hosts if other != host]

    def _confirm(self, step: str, host: str, now: datetime) -> HostHold | None:
        """A host has done the step: its trouble on other hosts was theirs, unless they have done others since."""
        for other, found in self._unclear.pop(step, {}).items():
            if other != host and found.at > self._well_at.get(other, datetime.min.replace(tzinfo=UTC)):
                hold = self._count(other, replace(found, is_confirmed=True), now)
                if hold is not None:
                    return hold
        return None

    def _vouch(self, role: str, package: str, host: str, now: datetime) -> HostHold | None:
        """A host has done this step of the package: trouble of its other builds on other hosts was theirs."""
        if not package:
            return None
        self._fine.pop((role, package), None)
        while len(self._fine) >= _UNCLEAR_MAX:
            self._fine.pop(next(iter(self._fine)))
        self._fine[role, package] = (host, now)
        for other, troubles in list(self._troubles.items()):
            if other != host and other.partition("@")[0] == role:
                for found in [one for one in troubles if one.package == package and not one.is_confirmed]:
                    hold = self._count(other, replace(found, is_confirmed=True), now)
                    if hold is not None:
                        return hold
        return None

    def _forget(self, hosts: Iterable[str], found: _Trouble) -> None:
        """The trouble follows its build from host to host."""
        for host in hosts:
            kept = [one for one in self._troubles.get(host, ()) if one.build != found.build or one.is_confirmed]
            self._troubles[host] = deque(kept, maxlen=_KEPT)

    def _count(self, host: str, found: _Trouble, now: datetime) -> HostHold | None:
        """Count trouble that the host may have caused. Returns the new hold of the host, or None."""
        known = self._troubles.setdefault(host, deque(maxlen=_KEPT))
        if found.is_confirmed:
            self._forget([host], found)
            known = self._troubles[host]
        # A bad server that one build or several builds name is not the host's fault.
        is_known = any(
            one.build == found.build or (_is_server(one.remote) and one.remote == found.remote) for one in known
        )
        if not is_known:
            known.append(found)
        troubles = _counted(one for one in known if max(other.at for other in known) - one.at <= WITHIN)
        if len(troubles) < TROUBLES or self._is_held(host, now):
            return None
        if self._is_general(host, now) or self._is_one_owners(host, now):
            return None
        if not all(one.is_confirmed for one in troubles[-TROUBLES:]) and self._is_one_of_many(host, now):
            return None
        before = self._holds.get(host)
        times = (
            before.times + 1
            if before is not None and before.until_at and now - before.until_at < QUARANTINE_AT_MOST
            else 1
        )
        builds = ", ".join(str(one.build) for one in troubles[-TROUBLES:])
        role, at, name = host.partition("@")
        hold = HostHold(
            host=name if at else host,
            role=role if at else "",
            kind=HoldKind.QUARANTINED,
            by="the farm",
            at=now,
            until_at=now + min(QUARANTINE * 2 ** (times - 1), QUARANTINE_AT_MOST),
            reason=f"trouble with {TROUBLES} builds in a row ({builds}), the last: {troubles[-1].message}",
            times=times,
        )
        self._holds[host] = hold
        del self._troubles[host]
        return hold

    def _is_one_owners(self, host: str, now: datetime) -> bool:
        """Whether all troubles of the host are with builds of one owner, while builds of others ran there too. One
        person may make packages and servers that look like a bad host."""
        owners = {one.owner for one in self._troubles[host]}
        others = [owner for owner, at in self._owners_at[host].items() if owner not in owners and now - at <= WITHIN]
        return len(owners) == 1 and bool(others)

    def _is_one_of_many(self, host: str, now: datetime) -> bool:
        """Whether all troubles of the host are with builds of one owner, while builds of others ran on any host."""
        owners = {one.owner for one in self._troubles[host]}
        role = host.partition("@")[0]
        seen = [
            owner
            for other, by_owner in self._owners_at.items()
            if other.partition("@")[0] == role
            for owner, at in by_owner.items()
            if now - at <= WITHIN
        ]
        return len(owners) == 1 and not owners.issuperset(seen)

    def _is_held(self, host: str, now: datetime) -> bool:
        """`host` is a HostHold's key. A drained host is held in all of its roles."""
        held = self.held(now)
        return host in held or host.partition("@")[2] in held

    def _is_general(self, host: str, now: datetime) -> bool:
        """Whether at least half of the other hosts of this role that ran anything recently have trouble too."""
        role = host.partition("@")[0]
        seen = [(other, at) for other, at in self._seen_at.items() if other.partition("@")[0] == role]
        others = [other for other, at in seen if other != host and now - at <= WITHIN]
        ill = [other for other in others if len(self._troubles.get(other, ())) >= _GENERAL or self._is_held(other, now)]
        return bool(others) and len(ill) * 2 >= len(others) and any(not self._is_held(other, now) for other in ill)

    def off(self, workers: Iterable[WorkerFacts], now: datetime) -> dict[str, dict[str, list[str]]]:
        """By role and node name: the queues from which a worker must stop taking work."""
        workers = tuple(workers)
        withholding = Withholding(self.held(now), workers, speaks=wire.VERSION)
        found: dict[str, dict[str, list[str]]] = {}
        for worker in workers:
            for queue in worker.queues:
                if withholding.reason(worker, queue) is not None:
                    found.setdefault(queue, {}).setdefault(worker.name, []).append(queue)
        return found


def _counted(troubles: Iterable[_Trouble]) -> list[_Trouble]:
    """The troubles that count: confirmed ones, and others with a package that no trouble before had."""
    counted: list[_Trouble] = []
    for one in sorted(troubles, key=lambda one: not one.is_confirmed):
        if one.is_confirmed or all(one.package != other.package for other in counted):
            counted.append(one)
    return sorted(counted, key=lambda one: one.at)


def _is_server(remote: Remote | None) -> bool:
    """False for a build's input: each build has inputs of its own."""
    return remote is not None and remote.kind is RemoteKind.SERVER
