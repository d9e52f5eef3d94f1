"""A scheduler in a thread of the test's own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from farm.config import Settings
from farm.scheduler.loop import Scheduler

_END_WITHIN_S = 60.0


@contextmanager
def scheduling(settings: Settings) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Scheduler(settings).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_WITHIN_S)
        assert not thread.is_alive()
