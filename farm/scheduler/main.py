"""The scheduler as a process: settings, logging, signals."""

import gc
import logging
import signal
import sys
import threading

from farm.config import Settings
from farm.errors import FarmError
from farm.permissions import close_data
from farm.scheduler.loop import Scheduler

_log = logging.getLogger(__name__)
_IDS = ("action", "attempt", "build", "host")


class _Formatter(logging.Formatter):
    """One line an event; what `extra` brought is at its end as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\n", "\\n") if not record.exc_info else super().format(record)
        found = [f"{name}={getattr(record, name)}" for name in _IDS if hasattr(record, name)]
        return " ".join((line, *found))


def main() -> int:
    """Until SIGTERM or SIGINT. Returns the exit code."""
    try:
        settings = Settings.from_env()
        _set_up_logging(settings.log_level)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        for line in close_data(settings):
            _log.warning("%s", line, extra={"action": "closed"})
        scheduler = Scheduler(settings)
        # What is here by now stays: the collector need not look at all these modules again and again.
        gc.collect()
        gc.freeze()
        scheduler.run(stop)
    except FarmError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _set_up_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
