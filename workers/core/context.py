"""The context in which a step runs: a work folder, a log, the artifact store, limits, and a way to be stopped."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.artifacts.base import ArtifactStore
from farm.config import Settings
from farm.errors import FarmError, LeaseLost
from farm.model.build import Phase
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.log import StepLog

_PIECE_BYTES = 2**20


class Ended(FarmError):
    """Ends the step early for a reason that lies in the package. It becomes a result, never trouble.

    Positional arguments: the outcome, and one line that says why.
    """

    code = "ended"
    exit_code = 50

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(outcome, reason)
        self.outcome = outcome
        self.reason = reason


class _Watched(io.FileIO):
    def __init__(self, path: Path, stop: threading.Event) -> None:
        super().__init__(path, "r")
        self._stop = stop

    def readinto(self, buffer: Any) -> int | None:
        if self._stop.is_set():
            raise LeaseLost(f"stopped while {Path(str(self.name)).name} was read")
        return super().readinto(buffer)


def open_watched(path: Path, stop: threading.Event) -> io.BufferedReader:
    """The open file. Reading it, in pieces if it is large, raises LeaseLost once `stop` is set."""
    return io.BufferedReader(_Watched(path, stop), _PIECE_BYTES)


def over_disk(words: str) -> Ended:
    """The error of a step whose files are larger than its disk limit, as `words` say."""
    return Ended(Outcome.OVER_LIMIT, f"{words}; --limit disk=… or the target's limits raise it")


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """The environment of one attempt.

    `workdir` is private and empty at first; the maker of the context removes it afterwards. `stop` is set when the
    attempt is cancelled or its lease lost: every wait checks it, and kills the process that it waits for. `deadline`
    is the wall-clock limit on time.monotonic()'s clock, in seconds.
    """

    attempt: str
    workdir: Path
    log: StepLog
    store: ArtifactStore
    settings: Settings
    limits: Limits
    stop: threading.Event = field(default_factory=threading.Event)
    deadline: float
    _phases: list[Phase] = field(default_factory=list)

    def check(self, doing: str) -> None:
        """For loops over what a recipe names. Raises LeaseLost once the attempt is stopped, and Ended at its deadline;
        `doing` says what goes on."""
        if self.stop.is_set():
            raise LeaseLost(f"stopped while {doing}")
        if time.monotonic() >= self.deadline:
            raise Ended(Outcome.TIMED_OUT, f"{doing} took longer than the step's time limit")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the step, and head it in the log."""
        start = time.monotonic()
        self.log.note(f"phase {name}")
        try:
            yield
        finally:
            self._phases.append(Phase(name=name, seconds=round(time.monotonic() - start, 4)))

    def timed(self, name: str, seconds: float) -> None:
        """Add a part of the step that a tool timed itself."""
        self._phases.append(Phase(name=name, seconds=round(seconds, 4)))

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(self._phases)
