"""`Status` says how far a build, step or attempt has come, `Outcome` how it ended; outcomes of parts combine to one."""

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """How far a build, step or attempt has come, but not how it ended."""

    WAITING = "waiting"
    READY = "ready"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(StrEnum):
    """How a finished thing ended. `ERRORED` alone is the farm's fault."""

    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    EXCLUDED = "excluded"
    CANCELLED = "cancelled"
    UNRESOLVABLE = "unresolvable"
    FAILED = "failed"
    STALLED = "stalled"
    TIMED_OUT = "timed_out"
    OVER_LIMIT = "over_limit"
    ERRORED = "errored"

    @property
    def is_success(self) -> bool:
        return self in (Outcome.SUCCEEDED, Outcome.UNCHANGED)


#: The outcome of the whole is the first of these that any part has. A build with some arches excluded has succeeded;
#: a build with every arch excluded is excluded.
_WORST_FIRST = (
    Outcome.ERRORED,
    Outcome.CANCELLED,
    Outcome.OVER_LIMIT,
    Outcome.TIMED_OUT,
    Outcome.STALLED,
    Outcome.FAILED,
    Outcome.UNRESOLVABLE,
    Outcome.SUCCEEDED,
    Outcome.UNCHANGED,
    Outcome.EXCLUDED,
)


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a whole from the outcomes of its parts.

    Raises ValueError for no parts.
    """
    return min(outcomes, key=_WORST_FIRST.index)
