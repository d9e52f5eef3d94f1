"""Counts of what clients of the server do, in windows of time, in Redis: all servers of a farm count together.

While Redis does not answer, each process counts for itself.
"""

import hashlib
import logging
import threading
import time
from collections import Counter

import redis

from farm.broker import keys
from farm.broker.connection import connect
from farm.config import Settings

_TIMEOUT_S = 1.0
_AWAY_S = 5.0
_OWN_MAX = 10_000
_log = logging.getLogger(__name__)


class Rates:
    """Safe to use from several threads. It connects on first use."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings, timeout_s=_TIMEOUT_S, connect_s=_TIMEOUT_S)
        self._lock = threading.Lock()
        self._own: Counter[str] = Counter()
        self._away_until = 0.0

    def close(self) -> None:
        self._redis.close()

    def count(self, kind: str, who: str, amount: int, *, window_s: int) -> tuple[int, float]:
        """Add to the count of this window. Returns the count without what was added, and the seconds until the window
        ends. With 0 it only looks.
        """
        now = time.clock_gettime(time.CLOCK_REALTIME)
        window = int(now // window_s)
        left_s = (window + 1) * window_s - now
        key = keys.rate(kind, hashlib.sha256(who.encode()).hexdigest()[:32], window)
        if time.monotonic() >= self._away_until:
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    pipe.set(key, 0, ex=2 * window_s, nx=True)
                    pipe.incrby(key, amount)
                    return int(pipe.execute()[1]) - amount, left_s
            except redis.RedisError as error:
                self._away_until = time.monotonic() + _AWAY_S
                _log.warning("Rates are counted in this process alone: %s", error, extra={"action": "rates"})
        return self._count_here(key, amount), left_s

    def _count_here(self, key: str, amount: int) -> int:
        with self._lock:
            if len(self._own) > _OWN_MAX:  # windows that are over
                self._own.clear()
            before = self._own[key]
            self._own[key] += amount
            return before
