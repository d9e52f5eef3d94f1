"""How the farm connects to Redis, and its words for a Redis that does not answer. kombu's connections are
transport.py's."""

from typing import Any

import redis

from farm.config import Settings
from farm.errors import FarmNotRunning


def connect(settings: Settings, *, timeout_s: float, connect_s: float = 5, **options: Any) -> redis.Redis:
    """A pool of connections. `timeout_s` is for each answer; `options` are those of redis-py."""
    return redis.Redis.from_url(
        settings.redis,
        socket_timeout=timeout_s,
        socket_connect_timeout=connect_s,
        protocol=2,
        health_check_interval=25,
        driver_info=None,  # most accounts may not send it, and to find the version takes 5 ms
        **options,
    )


def unanswered(error: Exception) -> FarmNotRunning:
    return FarmNotRunning(f"the farm's broker does not answer ({error}); start it with `farm up`")
