"""The Celery application for Flower (`celery -A farm.flower flower`), which logs in the form of all processes."""

from farm import process_log
from farm.app import app
from farm.config import Settings

__all__ = ["app"]

# Before Flower sets up its own lines: Tornado leaves a root logger alone that has a handler.
process_log.set_up(Settings.from_env().log_level)
