"""The parameters of one siege: its length, its database, the timeouts of the farm's settings. Values only."""

from dataclasses import dataclass
from enum import StrEnum


class DatabaseKind(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Role(StrEnum):
    """The purpose of a worker process; also the first half of its Celery name."""

    SOURCE = "source"
    BUILD = "build"
    PUBLISH = "publish"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`attack_s` is how long the adversary is at work; the farm then has `quiet_s` to bring everything to its end.

    `act_every_s` and `enqueue_every_s` are the shortest and the longest pause. `lost_within_s` is the limit for a
    dead worker's step to run elsewhere, `waits_at_most_s` that for a step that could run and does not. `wounds_first`
    are inflicted before any that chance picks, and the attack goes on until they are healed, so that a short siege has
    them all the same. `patience` multiplies what is allowed to be late: a test suite's machine is busy with more than a
    siege.
    """

    seed: int
    database: DatabaseKind
    attack_s: float
    quiet_s: float = 120.0
    lease_s: int = 30
    claim_s: int = 60
    act_every_s: tuple[float, float] = (3.0, 9.0)
    enqueue_every_s: tuple[float, float] = (2.0, 6.0)
    restart_after_s: tuple[float, float] = (1.0, 8.0)
    wounds_first: tuple[str, ...] = ()
    longest_build_s: int = 20
    lost_within_s: float = 45.0
    patience: float = 1.0

    @property
    def waits_at_most_s(self) -> float:
        """An attempt whose message was lost is sent again after `claim_s`; the rest is for the sending."""
        return self.claim_s + 15.0


def long_siege(seed: int, database: DatabaseKind, minutes: float) -> Shape:
    """With the farm's own default settings."""
    return Shape(seed=seed, database=database, attack_s=minutes * 60)


def short_siege(seed: int, database: DatabaseKind, wounds: tuple[str, ...]) -> Shape:
    """Less than a minute: leases are short, so that what is lost is found out in time."""
    return Shape(
        seed=seed,
        database=database,
        attack_s=20.0,
        quiet_s=60.0,
        lease_s=6,
        claim_s=12,
        act_every_s=(1.0, 2.0),
        enqueue_every_s=(0.6, 1.8),
        restart_after_s=(1.0, 3.0),
        wounds_first=wounds,
        longest_build_s=8,
        lost_within_s=21.0,
        patience=2.0,
    )
