"""The scheduler as a process: settings, logging, signals."""

import gc
import logging
import signal
import sys
import threading

from farm import process_log
from farm.config import Settings
from farm.errors import FarmError
from farm.permissions import close_data
from farm.scheduler.loop import Scheduler

_log = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    try:
        settings = Settings.from_env()
        process_log.set_up(settings.log_level)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        for line in close_data(settings):
            _log.warning("%s", line, extra={"action": "closed"})
        scheduler = Scheduler(settings)
        # All objects made so far stay: the collector need not examine the modules again and again.
        gc.collect()
        gc.freeze()
        scheduler.run(stop)
    except FarmError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0
