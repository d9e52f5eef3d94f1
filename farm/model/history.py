"""Questions about builds of the past, and their answers."""

from dataclasses import dataclass
from datetime import datetime

from farm.model.arch import Arch
from farm.model.outcome import Outcome, Status


@dataclass(frozen=True, kw_only=True)
class BuildQuery:
    """The builds that match all values that are not None."""

    status: Status | None = None
    outcome: Outcome | None = None
    target: str | None = None
    package: str | None = None
    owner: str | None = None
    batch: int | None = None
    project: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The numbers of builds, newest first; `next` is the number before which the next page begins."""

    ids: tuple[int, ...]
    next: int | None


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """The last attempt of a step of a build. `status` and `outcome` are the step's."""

    build: int
    kind: str
    arch: Arch | None
    status: Status
    outcome: Outcome | None
    started_at: datetime
    finished_at: datetime | None
    worker: str | None

    @property
    def seconds(self) -> float | None:
        """Its duration; None while it runs."""
        return max(0.0, (self.finished_at - self.started_at).total_seconds()) if self.finished_at else None
