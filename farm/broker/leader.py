"""The leader lock: a key in Redis that one scheduler holds and renews. It only saves work; two schedulers do no harm,
because SQL compares tokens."""

import secrets
from enum import StrEnum
from typing import Any

import redis

from farm.broker import keys
from farm.config import Settings

HOLD_S = 10
# The first write is DEL, which needs no memory: after it the script may go on at the memory limit.
_RENEW = """
redis.call('DEL', KEYS[3])
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'others' end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return redis.call('SET', KEYS[2], ARGV[1], 'NX') and 'emptied' or 'held'
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


class Lock(StrEnum):
    OTHERS = "others"
    HELD = "held"
    EMPTIED = "emptied"  # held, and Redis has lost its data, or is new


class SchedulerLock:
    """Methods raise redis.RedisError while the broker is away."""

    def __init__(self, settings: Settings) -> None:
        self._token = secrets.token_hex(8)
        self._redis = redis.Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5, protocol=2)
        self._renew = self._redis.register_script(_RENEW)
        self._release = self._redis.register_script(_RELEASE)

    def take(self) -> Lock:
        """Take or renew the lock, for ten seconds."""
        answer: Any = self._renew(keys=[keys.SCHEDULER, keys.BORN, keys.NONE], args=[self._token, HOLD_S])
        return Lock(answer.decode())

    def release(self) -> None:
        self._release(keys=[keys.SCHEDULER], args=[self._token])

    def close(self) -> None:
        self._redis.close()
