"""Shows the progress of the preparations: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_INTERVAL_S = 1.0


class Progress(Protocol):
    """Counts one stage's items."""

    def step(self, what: str) -> None:
        """Count one more item that is done or has begun; `what` names it."""


class _Plain:
    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._said_at = title, total, 0, time.monotonic()

    def step(self, what: str) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done == self._total or now - self._said_at >= PLAIN_INTERVAL_S:
            self._said_at = now
            say(f"{self._title}: {self._done} of {self._total}, {what}")


class _Live:
    def __init__(self, title: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.fields[title]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Bars(*columns, TextColumn("{task.description}"), transient=True)
        self._line = self.bars.add_task("", total=total, title=title)

    def step(self, what: str) -> None:
        self.bars.update(self._line, advance=1, description=what)


def say(text: str) -> None:
    """One plain line for the person who waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def counted(title: str, total: int) -> Iterator[Progress]:
    """Show progress through `total` items, and the time when they are done."""
    started_at = time.monotonic()
    if sys.stdout.isatty():
        live = _Live(title, total)
        with live.bars:
            yield live
    else:
        yield _Plain(title, total)
    say(f"{title}: {total} in {time.monotonic() - started_at:.1f} s")
