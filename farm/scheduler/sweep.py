"""Deletes stale Redis keys: leases and offers of finished attempts, reply queues of dead Celery clients.

The farm deletes its keys as its attempts end, or lets them expire. The sweep is for keys of a process that died between
two commands, and for a Redis that was restored from a copy. A pass examines a limited number of keys and the next one
goes on from there, so that the cost of a pass does not grow with their number.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from farm import queues
from farm.broker import keys, scripts
from farm.broker.leases import Leases
from farm.config import Settings

_log = logging.getLogger(__name__)

_SCAN_COUNT = 500
_NAME_BYTES = 1024  # the longest name of a key: a label, or a worker's name with its prefix
_QUEUE_BYTES = 8 * 2**20  # of messages: the farm sends one for each free slot, of some KiB
_REPLY = keys.replies("")
_PIDBOX = keys.COMMANDS.encode()
_ANSWERS = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}" + re.escape(_REPLY.encode()))
_PRIORITY_MARK = b"\x06\x16"
_QUEUES = frozenset(name for queue in queues.WORKER_ROLES for name in queues.lists_of(queue))
_REPLY_IDLE_S = 300  # a client waits only seconds for a worker's answer


@dataclass(frozen=True, kw_only=True)
class Swept:
    """How many keys one sweep deleted, leases it closed, and answers to dead clients it deleted."""

    offers: int = 0
    leases: int = 0
    passing: int = 0
    replies: int = 0
    large: int = 0

    @property
    def total(self) -> int:
        return self.offers + self.leases + self.passing + self.replies + self.large


class Sweeper:
    """One connection of its own. `portion` is how many keys one sweep looks at, more or less."""

    def __init__(self, settings: Settings, leases: Leases, *, portion: int = 10_000) -> None:
        self._redis = redis.Redis.from_url(settings.redis, socket_timeout=30, socket_connect_timeout=5, protocol=2)
        self._scan = self._redis.register_script(scripts.of_scheduler(scripts.SCAN))
        self._leases = leases
        self._portion = portion
        self._cursor = 0

    def close(self) -> None:
        self._redis.close()

    def sweep(self, live: Callable[[], Collection[str]]) -> Swept:
        """Examine the next portion, and delete the keys that belong to no attempt that `live` names.

        `live` is called after the keys are listed: an attempt is in SQL before any key of it is in Redis, and no label
        is used twice, so an attempt that has a key and is not live will never be live. Raises redis.RedisError.
        """
        found = self._next_keys()
        labels = frozenset(live()) if found else frozenset()
        over = [key for key in found if keys.is_ours(key) and keys.after_kind(key) not in labels]
        swept = Swept(
            offers=self._delete([key for key in over if key.startswith(keys.OFFERS)]),
            leases=self._close([key.removeprefix(keys.LEASES) for key in over if key.startswith(keys.LEASES)]),
            passing=self._delete(self._without_end([key for key in over if _kind(key, keys.PASSING)])),
            replies=self._drop_replies([key for key in found if not keys.is_ours(key)]),
            large=self._delete(self._too_large([*found, *_QUEUES])),
        )
        if swept.total:
            _log.info("Deleted stale keys from Redis: %s", swept, extra={"action": "sweep"})
        return swept

    # --- the farm's own keys ------------------------------------------------------------------------------------

    def _next_keys(self) -> list[str]:
        """Each key once, of the kinds that are swept. A name that is not UTF-8 is not the farm's."""
        kinds = (keys.OFFERS, keys.LEASES, *keys.PASSING)
        names: list[bytes]
        found: dict[str, None] = {}
        for _ in range(0, self._portion, _SCAN_COUNT):
            answer: Any = self._scan(args=[self._cursor, _SCAN_COUNT, _NAME_BYTES, keys.PREFIX, keys.COMMANDS])
            self._cursor, names = int(answer[0]), answer[1]
            strays = {name for name in names if _is_stray(name, kinds)}
            self._delete([*strays])
            texts = (name.decode(errors="replace") for name in names if name not in strays)
            found |= dict.fromkeys(text for text in texts if text.startswith(kinds) or text.endswith(_REPLY))
            if self._cursor == 0:
                break
        return list(found)

    def _without_end(self, names: Sequence[str]) -> list[str]:
        """The keys that are there for longer than the farm keeps any of their kinds."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.ttl(name)
            left = zip(names, pipe.execute(), strict=True)
        return [name for name, left_s in left if left_s == -1 or left_s > keys.PASSING[_kind(name, keys.PASSING)]]

    def _too_large(self, names: Sequence[str]) -> list[str]:
        """The keys that have more than the farm writes into any of their kinds, and queues with far too many messages:
        the scheduler sends the honest ones again."""
        limits = {name: keys.LARGEST[kind] for name in names if (kind := _kind(name, keys.LARGEST))}
        limits |= dict.fromkeys(set(names) & _QUEUES, _QUEUE_BYTES)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in limits:
                pipe.memory_usage(name, samples=0)
            sizes = pipe.execute()
        return [name for (name, limit), size in zip(limits.items(), sizes, strict=True) if (size or 0) > limit]

    def _close(self, labels: Sequence[str]) -> int:
        """Close the leases, and do not only delete them, so that a worker that holds one is told."""
        if labels:
            self._leases.close_attempts(labels)
        return len(labels)

    def _delete(self, names: Sequence[str | bytes]) -> int:
        """A key that this account may not delete, since its rights are of an older version, stops no other."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.unlink(name)
            answers = pipe.execute(raise_on_error=False)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        for error in errors:
            if not isinstance(error, NoPermissionError):
                raise error
        if errors:
            words = "The broker denies the scheduler to delete %d stale keys; load what `farm keys acl` prints"
            _log.warning(words, len(errors), extra={"action": "sweep"})
        return sum(answer for answer in answers if isinstance(answer, int))

    # --- Celery's -----------------------------------------------------------------------------------------------

    def _drop_replies(self, names: Sequence[str]) -> int:
        """Delete answers to clients that asked workers something and died before they read the answer."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.object("IDLETIME", name)
            # A Redis with an LFU policy counts uses and cannot say; and a key may be gone by now.
            idle_s = pipe.execute(raise_on_error=False)
        old = [
            name for name, age_s in zip(names, idle_s, strict=True) if isinstance(age_s, int) and age_s > _REPLY_IDLE_S
        ]
        return self._delete(old)


def _kind(name: str, kinds: Iterable[str]) -> str:
    """The one of these prefixes that the key's name has; empty if it has none."""
    return next((kind for kind in kinds if name.startswith(kind)), "")


def _is_stray(name: bytes, kinds: tuple[str, ...]) -> bool:
    """Whether a worker's account can make the key, but the farm never does: a name of one of the farm's kinds that is
    not UTF-8, a queue that is none of kombu's priority queues, or a list of commands to one worker, which kombu
    publishes instead."""
    if name.startswith(tuple(kind.encode() for kind in kinds)):
        try:
            name.decode()
        except UnicodeDecodeError:
            return True
        return False
    if name.endswith(_PIDBOX) or name[:-3].endswith(_PIDBOX):
        return _ANSWERS.fullmatch(name) is None
    queue, mark = name[:-3], name[-3:-1]
    return queue.decode(errors="replace") in queues.ALL and mark != _PRIORITY_MARK
