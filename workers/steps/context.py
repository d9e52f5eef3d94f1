"""What a step gets besides its input: a work folder, a log, the artifact store, limits, and a way to be stopped."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farm.artifacts.base import ArtifactStore
from farm.config import Settings
from farm.errors import FarmError
from farm.model.build import Phase
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.log import StepLog


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
