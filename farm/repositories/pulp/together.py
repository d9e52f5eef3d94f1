"""Group commit: coalesces concurrent publications of one repository across processes.

It works over Redis: a publisher writes its additions there. Then it either gets the repository's lock and publishes all
waiting additions, or gets the result from the publisher with the lock. Only efficiency depends on it. Pulp runs the
changes of one repository one after the other, each relative to the newest version, so two publishers that know nothing
of each other (a lock that ran out, another farm, a Redis that is away) make one version more and lose nothing.

The publisher with the lock waits for those that are still uploading, at most for as long as the repository's last
publication took: so waiting never costs more than it can save.

An entry counts only while its publisher renews it, so no publisher publishes additions of an attempt that was cancelled
or fenced.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis

from farm.broker import keys, scripts
from farm.broker.scripts import Script
from farm.config import Settings
from farm.errors import LeaseLost

_log = logging.getLogger(__name__)

_LOCK_S = 15
_RENEW_S = 4.0
_WAIT_S = 0.5  # how often one that waits looks whether the lock is free
_KEPT_S = 6.0  # how long an entry counts that is not renewed
_KEEP_S = 2.0  # how often it is
_ANSWER_KEPT_S = 60
_TOOK_KEPT_S = 3600
_ENTRIES_KEPT_S = 60  # all keys here end: the scheduler deletes those that do not (keys.PASSING)
_GATHER_S = (1.0, 15.0)  # for a repository that was not published yet, and at most
_LOOK_S = 0.05

#: The additions: path in the repository to content unit.
Units = Mapping[str, str]
#: Returns the number of a version that has them.
Publish = Callable[[Units], int]


class Together:
    """Safe to use from many threads."""

    def __init__(self, settings: Settings, *, alone_after: Sequence[type[Exception]] = ()) -> None:
        """`alone_after`: errors after which each one's part is tried by itself, since one of them is to blame."""
        self._redis = redis.Redis.from_url(settings.redis, socket_timeout=10, socket_connect_timeout=2, protocol=2)
        self._take = Script(self._redis, scripts.LOCK)
        self._renew = Script(self._redis, scripts.RENEW_LOCK)
        self._unlock = Script(self._redis, scripts.UNLOCK)
        self._alone_after = tuple(alone_after)

    @contextmanager
    def coming(self, key: str) -> Iterator[None]:
        """An upload goes on during the block: the publisher with the lock waits a little for it."""
        me = secrets.token_hex(8)
        try:
            came_s = self._now_s()
        except redis.RedisError:
            yield
            return
        with self._kept(key, me, {"came_s": came_s, "units": None}):
            yield

    def publish(self, key: str, units: Units, publish: Publish, stop: threading.Event) -> int:
        """The number of a version that has the units. Raises what `publish` raises; LeaseLost once `stop` is set."""
        me = secrets.token_hex(8)
        try:
            with self._kept(key, me, {"came_s": self._now_s(), "units": dict(units)}):
                return self._lead_or_follow(key, me, units, publish, stop)
        except redis.RedisError as error:
            _log.warning("Publishing %s alone, since the broker is away: %s", key, error, extra={"action": "publish"})
            return publish(units)

    @contextmanager
    def locked(self, key: str, stop: threading.Event) -> Iterator[None]:
        """No other process of this farm publishes to it meanwhile, unless the broker is away."""
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

    # --- leading and following ----------------------------------------------------------------------------------

    def _lead_or_follow(self, key: str, me: str, units: Units, publish: Publish, stop: threading.Event) -> int:
        while True:
            if stop.is_set():
                raise LeaseLost(f"stopped before {key} was published")
            if self._lock(key, me):
                with self._renewed(key, me):
                    # The previous holder of the lock may have published this.
                    answer = self._redis.lpop(keys.publish_answer(key, me))
                    if answer is not None:
                        return int(answer)  # type: ignore[arg-type]
                    self._gather(key, stop)
                    return self._lead(key, me, units, publish)
            answers = self._redis.blpop([keys.publish_answer(key, me)], timeout=_WAIT_S)
            if isinstance(answers, (list, tuple)):
                return int(answers[1])

    def _gather(self, key: str, stop: threading.Event) -> None:
        took = self._redis.get(keys.publish_took(key))
        limit_s = _GATHER_S[0] if took is None else min(float(took), _GATHER_S[1])
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and any(one["units"] is None for _, one in self._entries(key)):
            if stop.wait(_LOOK_S):
                raise LeaseLost(f"stopped before {key} was published")

    def _lead(self, key: str, me: str, own: Units, publish: Publish) -> int:
        began = time.monotonic()
        others = {name: one["units"] for name, one in self._entries(key) if name != me and one["units"] is not None}
        everything = {path: unit for one in (*others.values(), own) for path, unit in one.items()}
        try:
            number = publish(everything)
        except self._alone_after:
            if not others:
                raise
            return publish(own)
        with self._redis.pipeline() as pipe:
            pipe.set(keys.publish_took(key), f"{time.monotonic() - began:.3f}", ex=_TOOK_KEPT_S)
            for other in others:
                pipe.hdel(keys.publish_waiting(key), other)
                pipe.lpush(keys.publish_answer(key, other), number)
                pipe.expire(keys.publish_answer(key, other), _ANSWER_KEPT_S)
            pipe.execute()
        return number

    # --- entries ------------------------------------------------------------------------------------------------

    def _entries(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """The entries in order of arrival; entries that are no longer renewed are removed."""
        now_s = self._now_s()
        found = self._redis.hgetall(keys.publish_waiting(key))
        entries = {name.decode() if isinstance(name, bytes) else name: json.loads(text) for name, text in found.items()}
        dead = [name for name, one in entries.items() if one["until_s"] <= now_s]
        if dead:
            self._redis.hdel(keys.publish_waiting(key), *dead)
        alive = [(name, one) for name, one in entries.items() if one["until_s"] > now_s]
        return sorted(alive, key=lambda pair: (pair[1]["came_s"], pair[0]))

    @contextmanager
    def _kept(self, key: str, me: str, entry: Mapping[str, Any]) -> Iterator[None]:
        """An entry for the time of the block."""

        def keep() -> None:
            until_s = self._now_s() + _KEPT_S
            with self._redis.pipeline() as pipe:
                pipe.hset(keys.publish_waiting(key), me, json.dumps({**entry, "until_s": until_s}))
                pipe.expire(keys.publish_waiting(key), _ENTRIES_KEPT_S)
                pipe.execute()

        with suppress(redis.RedisError):
            keep()
        try:
            with _repeating(keep, _KEEP_S):
                yield
        finally:
            with suppress(redis.RedisError):
                self._redis.hdel(keys.publish_waiting(key), me)
                self._redis.delete(keys.publish_answer(key, me))

    def _lock(self, key: str, me: str) -> bool:
        return bool(self._take(keys=[keys.publish_lock(key)], args=[me, _LOCK_S]))

    @contextmanager
    def _renewed(self, key: str, me: str) -> Iterator[None]:
        """Holding the lock for the block, which may be long."""
        try:
            with _repeating(lambda: self._renew(keys=[keys.publish_lock(key)], args=[me, _LOCK_S]), _RENEW_S):
                yield
        finally:
            with suppress(redis.RedisError):
                self._unlock(keys=[keys.publish_lock(key)], args=[me])

    def _now_s(self) -> float:
        """By Redis's clock, which is one for all hosts."""
        seconds, micros = self._redis.time()
        return float(seconds) + float(micros) / 1e6


@contextmanager
def _repeating(act: Callable[[], object], every_s: float) -> Iterator[None]:
    """Act now and then, in a thread, until the block ends; over a broker that is away."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            with suppress(redis.RedisError):
                act()

    thread = threading.Thread(target=run, name="keep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
