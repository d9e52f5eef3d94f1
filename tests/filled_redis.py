"""Fills a test's own Redis up to its memory limit, keeps it so, and frees it again."""

import threading
from contextlib import suppress
from types import TracebackType

import redis

from farm.config import Settings

_LIMIT_BYTES = 4 * 2**20
#: The excess over its limit then: the server's memory for connections varies.
_OVER_BYTES = 2**19
_SIZES = (10_000, 1_000, 100, 10)
_AGAIN_S = 0.02


class FilledRedis:
    """Not full before `fill`. The limit stays for the life of the server; `free` frees memory below it."""

    def __init__(self, settings: Settings, *, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._redis = redis.Redis.from_url(settings.redis, protocol=2)
        self._limit_bytes = limit_bytes
        self._redis.config_set("maxmemory", limit_bytes)
        self._count = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "FilledRedis":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._redis.close()

    def fill(self) -> None:
        """Until nothing more goes in; what others free from then on, until `free`, is taken within moments."""
        self._redis.config_set("maxmemory", self._limit_bytes + _OVER_BYTES)
        self._fill()
        self._redis.config_set("maxmemory", self._limit_bytes)
        self._done.clear()
        self._thread = threading.Thread(target=self._keep_full, daemon=True)
        self._thread.start()

    def free(self) -> None:
        """Take away all that `fill` brought."""
        self._stop()
        for first in range(0, self._count, 1000):
            self._redis.delete(*(f"junk:{number}" for number in range(first, min(first + 1000, self._count))))
        self._count = 0

    def _fill(self) -> None:
        for size in _SIZES:
            with suppress(redis.OutOfMemoryError):
                while True:
                    self._redis.set(f"junk:{self._count}", b"x" * size)
                    self._count += 1

    def _keep_full(self) -> None:
        while not self._done.wait(_AGAIN_S):
            self._fill()

    def _stop(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
