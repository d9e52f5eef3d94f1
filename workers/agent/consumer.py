"""The Celery consumer of the farm's workers: it reduces each message, and stops its worker after a fatal error."""

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from workers.agent import denial
from workers.agent.messages import reduce_message

_log = logging.getLogger(__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Ends the worker for errors after which Celery's own consumer would connect again and again, and keeps only the
    parts of a message that the farm's own messages have."""

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> None:
            try:
                reduce_message(message)
            except ValueError as error:
                _log.warning("Dropped a message: %.300s", error, extra={"action": "bad-message"})
                message.ack_log_error(_log, self.connection_errors)
                return
            try:
                handle(message)
            except Exception as error:
                if isinstance(error, self.connection_errors):
                    raise
                if not denial.stop_for(error):
                    _log.warning("Dropped a message: %.300r", error, extra={"action": "bad-message"})
                # A message without an acknowledgement would use up a slot for good.
                message.ack_log_error(_log, self.connection_errors)

        return on_message

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        if not denial.stop_for(exc):
            super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if not denial.stop_for(exc):
            super().on_connection_error_after_connected(exc)
