"""Fills a test's own Redis up to its memory limit, to the last byte that it takes, and frees it again."""

from contextlib import suppress
from types import TracebackType

import redis

from farm.config import Settings

_LIMIT = "4mb"
_SIZES = (100_000, 10_000, 1_000, 100, 10)


class FilledRedis:
    """Not full before `fill`. The limit stays for the life of the server; `free` makes room below it."""

    def __init__(self, settings: Settings, *, limit: str = _LIMIT) -> None:
        self._redis = redis.Redis.from_url(settings.redis, protocol=2)
        self._redis.config_set("maxmemory", limit)
        self._count = 0

    def __enter__(self) -> "FilledRedis":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()

    def fill(self) -> None:
        """Until nothing more goes in: what others free meanwhile is not filled anew."""
        for size in _SIZES:
            with suppress(redis.OutOfMemoryError):
                while True:
                    self._redis.set(f"junk:{self._count}", b"x" * size)
                    self._count += 1

    def free(self) -> None:
        """Take away all that `fill` brought."""
        for first in range(0, self._count, 1000):
            self._redis.delete(*(f"junk:{number}" for number in range(first, min(first + 1000, self._count))))
        self._count = 0
