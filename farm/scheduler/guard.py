"""Keeps one failure from ending the scheduler: the guard runs each job, and logs its failure so that the others run.

An outage of the broker or the database is not a failure of a job: it is raised, and the scheduler waits for its end.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from farm.errors import FarmNotRunning
from farm.model.tally import Tally

_log = logging.getLogger(__name__)
ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


def is_outage(error: Exception) -> bool:
    """Whether the broker or the database is away. A key that holds a value of another type is no outage: one sender
    caused it, and waiting does not help."""
    if isinstance(error, redis.ResponseError):
        return "WRONGTYPE " not in str(error)  # the error of a pipeline begins with the command
    return isinstance(error, redis.RedisError | FarmNotRunning)


class Guard:
    """Logs the first failure of each job and kind with its traceback, then the tenth, the hundredth, and so on."""

    def __init__(self) -> None:
        self._failures = Tally()

    def run(self, job: str, do: Callable[[], object]) -> bool:
        """False when the job failed. Raises the job's error when `is_outage` says that it is an outage."""
        try:
            do()
        except Exception as error:
            if is_outage(error):
                raise
            self.note(job, error)
            return False
        return True

    def split(self, job: str, items: Sequence[ItemT], do: Callable[[Sequence[ItemT]], Sequence[Any]]) -> list[Any]:
        """Call `do` with all items, and if that fails with each half of them: a bad item stops no other item."""
        if not items:
            return []
        try:
            return list(do(items))
        except Exception as error:
            if is_outage(error):
                raise
            if len(items) == 1:
                self.note(job, error)
                return []
        half = len(items) // 2
        return self.split(job, items[:half], do) + self.split(job, items[half:], do)

    def note(self, job: str, error: Exception) -> None:
        """Log it, unless it was logged before."""
        if times := self._failures.due((job, type(error).__name__)):
            extra = {"action": "guard", "job": job}
            _log.error("The scheduler's job %r failed (%d times)", job, times, extra=extra, exc_info=error)
