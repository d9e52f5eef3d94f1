"""The facts that a worker reports about itself, and the holds that the farm has on hosts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from farm.model.arch import Arch


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """`name` is Celery's node name; `slots` is the number of steps that it runs at once; it can build for `arches`.

    `speaks` is the version of messages that it takes (farm.wire.VERSION); workers that do not report it speak 2.
    `consumes` are the queues that it consumes at present; None if it does not report them.
    """

    name: str
    host: str
    queues: tuple[str, ...]
    slots: int
    arches: tuple[Arch, ...]
    started_at: datetime
    version: str
    cpus: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    engines: tuple[str, ...] = ()
    unfit: str | None = None
    speaks: int = 2
    consumes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The holder of an attempt's lease: the digest of the token that the worker made, and the worker's name."""

    digest: str
    worker: str


def host_of(worker: str) -> str:
    """From Celery's node name, `build@host`."""
    return worker.partition("@")[2] or worker


QUARANTINE_AT_MOST = timedelta(hours=4)
_SKEW = timedelta(minutes=1)  # the tolerance between the clocks of two schedulers


class HoldKind(StrEnum):
    """The kinds of holds on a host. An operator drains a host (DRAINED), until it is undrained. The farm quarantines
    one (QUARANTINED): that ends by itself, and never takes the last host of a queue.
    """

    DRAINED = "drained"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, kw_only=True)
class HostHold:
    """`by` is the person or process that set it, `until_at` the time at which it ends by itself. With `hands_back` the
    running steps run on another host instead of being finished. `times` counts quarantines that followed each other.
    With a `role`, which is a queue's name, it holds the host for the workers of that role only: trouble that one role
    reports proves nothing about another role.
    """

    host: str
    kind: HoldKind
    reason: str
    by: str
    at: datetime
    until_at: datetime | None = None
    hands_back: bool = False
    times: int = 1
    role: str = ""

    @property
    def key(self) -> str:
        """The key of the hold: each role of a host can have one of its own."""
        return f"{self.role}@{self.host}" if self.role else self.host

    def holds(self, now: datetime) -> bool:
        """False once a quarantine has expired (it is kept so that the next one is longer), and for an end too far
        ahead, which a skewed clock must have written.
        """
        return self.until_at is None or now < self.until_at <= now + QUARANTINE_AT_MOST

    def is_ahead(self, now: datetime) -> bool:
        """True for a quarantine that begins in the future by a scheduler's clock: the clock of another scheduler was
        wrong then.
        """
        return self.until_at is not None and self.at > now + _SKEW

    @property
    def shown(self) -> str:
        """One line for people."""
        until = f" until {self.until_at:%Y-%m-%d %H:%M} UTC" if self.until_at else ""
        host = f"{self.host} ({self.role})" if self.role else self.host
        return f"{host} is {self.kind} by {self.by}{until}: {self.reason}"


def hold_of(host: str, queue: str, held: Mapping[str, HostHold]) -> HostHold | None:
    """The hold that keeps the workers of a host from a queue. `held` is keyed by HostHold.key."""
    return held.get(host) or held.get(f"{queue}@{host}")
