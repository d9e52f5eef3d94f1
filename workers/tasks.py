"""The Celery application of a worker: `celery -A workers.tasks worker -Q QUEUE`."""

import workers.agent.tasks  # noqa: F401 - registers the tasks of this worker's queues
from farm.app import app

__all__ = ["app"]
