"""One publication for all that waits for a repository, whichever process of the farm it waits in.

A group commit over Redis: who has something to add says so there, then either gets the repository's lock and
publishes all that is waiting, or hears from who does. Only efficiency hangs on it. Pulp runs the changes of one
repository one after the other, each relative to the newest version, so two publishers that know nothing of each
other (a lock that ran out, another farm, a Redis that is away) make one version more and lose nothing.

What waits is kept only as long as somebody waits for it: an entry that is not renewed is ignored, so nothing of an
attempt that was cancelled or fenced is published by another.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import redis

from farm.config import Settings
from farm.errors import LeaseLost

_log = logging.getLogger(__name__)

_LOCK_S = 15
_RENEW_S = 4.0
_WAIT_S = 0.5  # how often one that waits renews what it wants, and looks whether the lock is free
_KEPT_S = 5.0  # how long an entry counts that is not renewed
_ANSWER_KEPT_S = 60
_UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end"

#: What is to be added: file name to content unit. Returns the number of a version that has it.
Units = Mapping[str, str]
Publish = Callable[[Units], int]


class Together:
    """Safe to use from many threads."""

    def __init__(self, settings: Settings, *, alone_after: Sequence[type[Exception]] = ()) -> None:
        """`alone_after`: errors after which each one's part is tried by itself, since one of them is to blame."""
        self._redis = redis.Redis.from_url(settings.redis, socket_timeout=10, socket_connect_timeout=2, protocol=2)
        self._alone_after = tuple(alone_after)

    def publish(self, key: str, units: Units, publish: Publish, stop: threading.Event) -> int:
        """The number of a version that has the units. Raises what `publish` raises; LeaseLost once `stop` is set."""
        me = secrets.token_hex(8)
        try:
            with self._entered(key, me, units) as enter:
                return self._lead_or_follow(key, me, units, publish, stop, enter)
        except redis.RedisError as error:
            _log.warning("Publishing %s alone, since the broker is away: %s", key, error, extra={"action": "publish"})
            return publish(units)

    @contextmanager
    def locked(self, key: str, stop: threading.Event) -> Iterator[None]:
        """Nobody of this farm publishes to it meanwhile; or everybody may, when the broker is away."""
        me = secrets.token_hex(8)
        try:
            while not self._lock(key, me):
                if stop.wait(_WAIT_S / 5):
                    raise LeaseLost(f"stopped before {key} was free")
        except redis.RedisError as error:
            _log.warning("Working on %s without a lock: %s", key, error, extra={"action": "lock"})
            yield
            return
        with self._renewed(key, me):
            yield

    def _lead_or_follow(
        self, key: str, me: str, units: Units, publish: Publish, stop: threading.Event, enter: Callable[[], None]
    ) -> int:
        while True:
            if stop.is_set():
                raise LeaseLost(f"stopped before {key} was published")
            if self._lock(key, me):
                with self._renewed(key, me):
                    # Whoever had the lock until now may have published this.
                    answer = self._redis.lpop(_answer(key, me))
                    if answer is not None:
                        return int(answer)  # type: ignore[arg-type]
                    return self._lead(key, me, units, publish)
            answers = self._redis.blpop([_answer(key, me)], timeout=_WAIT_S)
            if isinstance(answers, (list, tuple)):
                return int(answers[1])
            enter()

    def _lead(self, key: str, me: str, own: Units, publish: Publish) -> int:
        waiting = self._waiting(key)
        waiting.pop(me, None)
        everything = {name: unit for one in (*waiting.values(), own) for name, unit in one.items()}
        try:
            number = publish(everything)
        except self._alone_after:
            if not waiting:
                raise
            return publish(own)
        with self._redis.pipeline() as pipe:
            for other in waiting:
                pipe.hdel(_entries(key), other)
                pipe.lpush(_answer(key, other), number)
                pipe.expire(_answer(key, other), _ANSWER_KEPT_S)
            pipe.execute()
        return number

    def _waiting(self, key: str) -> dict[str, Units]:
        """In the order in which they came, without those that nobody waits for any more."""
        now_s = self._now_s()
        found = self._redis.hgetall(_entries(key))
        entries = {name.decode() if isinstance(name, bytes) else name: json.loads(text) for name, text in found.items()}
        dead = [name for name, one in entries.items() if one["until_s"] <= now_s]
        if dead:
            self._redis.hdel(_entries(key), *dead)
        alive = [(one["came_s"], name, one["units"]) for name, one in entries.items() if one["until_s"] > now_s]
        return {name: units for _, name, units in sorted(alive)}

    @contextmanager
    def _entered(self, key: str, me: str, units: Units) -> Iterator[Callable[[], None]]:
        """Wanting the units for the time of the block; yields what renews it."""
        came_s = self._now_s()

        def enter() -> None:
            entry = {"came_s": came_s, "until_s": self._now_s() + _KEPT_S, "units": dict(units)}
            self._redis.hset(_entries(key), me, json.dumps(entry))

        enter()
        try:
            yield enter
        finally:
            with suppress(redis.RedisError):
                self._redis.hdel(_entries(key), me)
                self._redis.delete(_answer(key, me))

    def _lock(self, key: str, me: str) -> bool:
        return bool(self._redis.set(_lock(key), me, nx=True, ex=_LOCK_S))

    @contextmanager
    def _renewed(self, key: str, me: str) -> Iterator[None]:
        """Holding the lock for the block, which may be long."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(_RENEW_S):
                with suppress(redis.RedisError):
                    self._redis.eval(_RENEW, 1, _lock(key), me, str(_LOCK_S))

        thread = threading.Thread(target=renew, name=f"lock of {key}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with suppress(redis.RedisError):
                self._redis.eval(_UNLOCK, 1, _lock(key), me)

    def _now_s(self) -> float:
        """By Redis's clock, which is one for all hosts."""
        seconds, micros = self._redis.time()
        return float(seconds) + float(micros) / 1e6


def _entries(key: str) -> str:
    return f"farm:publish:{key}"


def _answer(key: str, who: str) -> str:
    return f"farm:published:{key}:{who}"


def _lock(key: str) -> str:
    return f"farm:publishing:{key}"
