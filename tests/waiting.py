"""Waiting in tests: for something to be so, or a failure that says in words what did not come about; and an event that
is set after so many looks, where a time would be a guess."""

import threading
import time
from collections.abc import Callable

WITHIN_S = 60.0
_LOOK_EVERY_S = 0.01


def until(is_so: Callable[[], object], what: str | Callable[[], str], within_s: float = WITHIN_S) -> float:
    """How many seconds it took. Raises AssertionError, naming `what`, when it is not so in time."""
    start = time.monotonic()
    while not is_so():
        if time.monotonic() - start > within_s:
            raise AssertionError(f"waited {within_s:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(_LOOK_EVERY_S)
    return time.monotonic() - start


class SetLater(threading.Event):
    """Set when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0
