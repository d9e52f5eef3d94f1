"""Figures of a farm for a monitoring system: its queues now, and the work that ended within some time."""

from collections.abc import Mapping
from dataclasses import dataclass

from farm.model.arch import Arch
from farm.model.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """`ready` steps wait in a queue, its workers have `busy` ones in `slots`. `oldest_wait_s` is how long the oldest
    ready step has been ready; 0 without one. `arch` is that of a queue of one arch.
    """

    queue: str
    arch: Arch | None
    ready: int
    busy: int
    slots: int
    oldest_wait_s: float


@dataclass(frozen=True, kw_only=True)
class StepTroubles:
    """The trouble that the steps of one kind had: `retries` after trouble of the farm, workers that were lost while
    they ran it, and steps that workers handed back."""

    kind: str
    retries: int
    losses: int
    hand_backs: int


@dataclass(frozen=True, kw_only=True)
class EndedAttempt:
    """`ran_s` is from its start to its end, `waited_s` from when a worker could claim it to its start; None if that is
    not known. `is_publication` marks one that brings packages to a repository."""

    kind: str
    arch: str
    ran_s: float | None
    waited_s: float | None
    is_publication: bool


@dataclass(frozen=True, kw_only=True)
class EndedWork:
    """The builds that ended within some time, by outcome, with their steps and attempts."""

    outcomes: Mapping[Outcome, int]
    troubles: tuple[StepTroubles, ...]
    attempts: tuple[EndedAttempt, ...]
