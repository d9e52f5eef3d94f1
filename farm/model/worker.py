"""What a worker says of itself, and what the farm says of the host that it is on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from farm.model.arch import Arch


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """`name` is Celery's node name; `slots` how many steps it runs at once; `arches` those it can build for.

    `speaks` is the version of messages that it takes (farm.wire.VERSION); workers that do not say speak 2. `consumes`
    are those of its queues that it takes from at present; None when it does not say.
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
    """Who has an attempt's lease: the digest of the token that it made itself, and its worker's name."""

    digest: str
    worker: str


def host_of(worker: str) -> str:
    """From Celery's node name, `build@host`."""
    return worker.partition("@")[2] or worker


QUARANTINE_AT_MOST = timedelta(hours=4)
_SKEW = timedelta(minutes=1)  # between the clocks of two schedulers


class HoldKind(StrEnum):
    """Why a host gets no work. DRAINED is a person's wish, and holds for ever; QUARANTINED is the farm's own doing,
    ends by itself, and never takes a queue's last host away."""

    DRAINED = "drained"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, kw_only=True)
class HostHold:
    """`by` is who, `until_at` when it ends by itself. With `hands_back` what runs there is run elsewhere instead of
    being finished. `times` counts quarantines that followed each other. With a `role`, which is a queue's name, it
    holds the host for the workers of that role only: trouble that one role reports says nothing of another."""

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
        """What it is kept under: two roles of one host can be held apart."""
        return f"{self.role}@{self.host}" if self.role else self.host

    def holds(self, now: datetime) -> bool:
        """False for a quarantine that is over, which is kept to make the next one longer; and for one that would last
        longer than any does, whose end was written by a clock that was wrong."""
        return self.until_at is None or now < self.until_at <= now + QUARANTINE_AT_MOST

    def is_ahead(self, now: datetime) -> bool:
        """Whether it is a quarantine that is still to begin, by a scheduler's clock: another one's was wrong then."""
        return self.until_at is not None and self.at > now + _SKEW

    @property
    def shown(self) -> str:
        """One line for people."""
        until = f" until {self.until_at:%Y-%m-%d %H:%M} UTC" if self.until_at else ""
        host = f"{self.host} ({self.role})" if self.role else self.host
        return f"{host} is {self.kind} by {self.by}{until}: {self.reason}"


def hold_of(host: str, queue: str, held: Mapping[str, HostHold]) -> HostHold | None:
    """What keeps the workers of a host from a queue. `held` is by HostHold.key."""
    return held.get(host) or held.get(f"{queue}@{host}")
