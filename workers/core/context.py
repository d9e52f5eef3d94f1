"""What a step gets besides its input: a work folder, a log, the artifact store, limits, and a way to be stopped."""

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
    """The step is over before its time, for a reason that is the package's: becomes a result, never trouble.

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
    """A file to be read in pieces, however large it is: reading raises LeaseLost once `stop` is set."""
    return io.BufferedReader(_Watched(path, stop), _PIECE_BYTES)


def over_disk(words: str) -> Ended:
    """What a step brings or makes is larger than its disk limit, as the words say."""
    return Ended(Outcome.OVER_LIMIT, f"{words}; --limit disk=… or the target's limits raise it")


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """One attempt's surroundings.

    `workdir` is private and empty at first, and is removed afterwards by whoever made the context. `stop` is set
    when the attempt was cancelled or its lease lost: every wait looks at it, and kills what it waits for.
    `deadline` is the wall-clock limit on time.monotonic()'s clock, in seconds.
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
