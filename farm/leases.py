"""Who may work on what, in Redis: offers, leases, live logs, the register of workers, events. Never the truth.

An attempt's life here: the scheduler *offers* its work under a token; one worker *claims* it, which takes the offer
away and starts the lease in one atomic command; the worker *touches* the lease while it works; the scheduler
*closes* it when the report is settled or the attempt is cancelled, which wakes the worker. A lease that is missing and
was not closed went with a Redis that was emptied: the worker asks to go on, and the scheduler, which knows from SQL
whether the attempt is still the worker's, *restores* or closes it.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from secrets import token_hex
from typing import Any

import msgspec
import redis

from farm import bounds, queues, wire
from farm.config import Settings
from farm.errors import BrokerFull, FarmNotRunning, HostHeld, LeaseLost
from farm.model.work import AnyWork
from farm.model.worker import WorkerFacts, host_of

_log = logging.getLogger(__name__)

LIVE_LOG_BYTES = 8 * 2**20  # of an attempt's log that can be followed; the whole log is an artifact afterwards
_LIVE_LOG_KEPT_S = 600
_CLOSED_KEPT_S = 300  # how long a duplicate message of a closed attempt is turned away at once
_WAKE_KEPT_S = 60
_WORKER_KEPT_S = 30
_ASK_AGAIN_S = 0.2
_EVENTS = "farm:events"
_NO_KEY = "farm:none"
_HELD = "farm:held"
_NAME_BYTES = 255

# A claim whose answer got lost is repeated under the same name, and is answered as before.
# PERSIST changes nothing; a script whose first write needs no memory may go on at the memory limit, though.
_CLAIM = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
local lease = redis.call('HMGET', KEYS[2], 'claim', 'work')
if lease[1] then
  if lease[1] ~= ARGV[4] then return 'gone' end
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return lease[2]
end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'gone' end
local offer = redis.call('HMGET', KEYS[1], 'token', 'work')
if not offer[1] then return 'wait' end
if offer[1] ~= ARGV[1] then return 'gone' end
local why = redis.call('HGET', KEYS[4], ARGV[5])
if why then return 'held ' .. why end
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[2], 'token', ARGV[1], 'worker', ARGV[2], 'claim', ARGV[4], 'work', offer[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('DEL', KEYS[1])
return offer[2]
"""
_TOUCH = """
local token = redis.call('HGET', KEYS[1], 'token')
if token == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('EXPIRE', KEYS[3], ARGV[3])
  return 'held'
end
if token or redis.call('EXISTS', KEYS[2]) == 1 then return 'gone' end
return 'missing'
"""
# In a script that begins with DEL, so that at the memory limit it is done all the same: a cancel reaches what runs.
_CLOSE = """
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], '1', 'EX', ARGV[1])
redis.call('LPUSH', KEYS[4], '1')
redis.call('EXPIRE', KEYS[4], ARGV[2])
"""
_RESTORE = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 1 then return end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'worker', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[3])
"""
# Only the scheduler runs it. A role's workers can fill their own part of the register, and nobody else's.
_PRUNE = """
redis.call('DEL', KEYS[2])
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'set' and kind ~= 'none' then redis.call('DEL', KEYS[1]) return end
local over = redis.call('SCARD', KEYS[1]) - tonumber(ARGV[2])
if over > 0 then redis.call('SPOP', KEYS[1], over) end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if #name > tonumber(ARGV[3]) or redis.call('EXISTS', ARGV[1] .. name) == 0 then redis.call('SREM', KEYS[1], name) end
end
"""


class Touch(StrEnum):
    """What a worker finds when it renews its lease."""

    HELD = "held"
    GONE = "gone"  # closed, or another's
    MISSING = "missing"  # Redis knows nothing of the attempt


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """What Redis knows of an attempt. Neither offered nor held: lost, or not yet the chain's turn."""

    is_offered: bool
    worker: str | None = None

    @property
    def is_held(self) -> bool:
        return self.worker is not None


class Leases:
    """One connection pool to the farm's Redis. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._ttl_ms = settings.lease_s * 1000
        self._redis = redis.Redis.from_url(
            settings.redis, socket_timeout=30, socket_connect_timeout=5, protocol=2, health_check_interval=25
        )
        self._claim = self._redis.register_script(_CLAIM)
        self._touch = self._redis.register_script(_TOUCH)
        self._close = self._redis.register_script(_CLOSE)
        self._restore = self._redis.register_script(_RESTORE)
        self._prune = self._redis.register_script(_PRUNE)
        self._strangers: set[tuple[str, str]] = set()

    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise self._unanswered(error) from error

    def check_room(self) -> None:
        """Raises FarmNotRunning when the broker does not answer, BrokerFull when it takes nothing more."""
        try:
            self._redis.lpushx(_NO_KEY, b"")  # refused at the limit as every push is, and pushes nothing
        except redis.RedisError as error:
            raise self._unanswered(error) from error

    def _unanswered(self, error: redis.RedisError) -> FarmNotRunning | BrokerFull:
        if isinstance(error, redis.OutOfMemoryError):
            return BrokerFull(f"the farm's broker is at its memory limit{self._limit()}")
        return FarmNotRunning(f"the farm's broker does not answer ({error}); start it with `farm up`")

    def _limit(self) -> str:
        """In words, where this account may ask."""
        try:
            memory: Any = self._redis.info("memory")
        except redis.RedisError:
            return ""
        return f" (maxmemory {memory['maxmemory_human']}, {memory['maxmemory_policy']})"

    def close(self) -> None:
        self._redis.close()

    def uptime_s(self) -> int:
        """For how long the broker has been running."""
        server: Any = self._redis.info("server")
        return int(server["uptime_in_seconds"])

    @property
    def renew_every_s(self) -> float:
        """A sixth of what a lease lasts: five renewals in a row may fail."""
        return self._ttl_ms / 6000

    # --- the scheduler's side -----------------------------------------------------------------------------------

    def offer(self, work: AnyWork) -> None:
        """Put the work where the holder of its token can claim it; wakes a worker that already waits for it."""
        self.hand_on(works=(work,))

    def close_attempts(self, labels: Iterable[str]) -> None:
        """End leases and withdraw offers: settled, cancelled, or to be sent again. Safe to repeat."""
        self.hand_on(closes=labels)

    def hand_on(
        self, *, closes: Iterable[str] = (), works: Iterable[AnyWork] = (), events: Iterable[dict[str, Any]] = ()
    ) -> None:
        """`close_attempts`, `offer` and `publish` for many, in this order and in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in closes:
                keys = [_offer(label), _lease(label), _closed(label), _wake(label)]
                self._close(keys=keys, args=[_CLOSED_KEPT_S, _WAKE_KEPT_S], client=pipe)
            for work in works:
                pipe.hset(_offer(work.attempt), mapping={"token": work.token, "work": wire.encode_work(work)})
                pipe.lpush(_wake(work.attempt), b"1")
                pipe.expire(_wake(work.attempt), _WAKE_KEPT_S)
            for event in events:
                pipe.publish(_EVENTS, msgspec.json.encode(event))
            pipe.execute()

    def restore(self, label: str, token: str, worker: str) -> None:
        """The lease is this worker's again, unless somebody has it or it was closed meanwhile."""
        keys = [_lease(label), _closed(label), _offer(label)]
        self._restore(keys=keys, args=[token, worker, self._ttl_ms])

    def hold_hosts(self, why: Mapping[str, str]) -> None:
        """Workers on these hosts, and no others, are given no work from now on, for the reason given in words."""
        with self._redis.pipeline() as pipe:
            pipe.delete(_HELD)
            if why:
                pipe.hset(_HELD, mapping={host: reason.encode() for host, reason in why.items()})
            pipe.execute()

    def turn_off(self, off: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """By role and node name: the queues from which a worker is to stop taking. Workers not named take from all."""
        with self._redis.pipeline() as pipe:
            for role in queues.WORKER_ROLES:
                pipe.delete(_off(role))
                if nodes := off.get(role):
                    pipe.hset(_off(role), mapping={node: json.dumps([*names]) for node, names in nodes.items()})
            pipe.execute()

    def prune_workers(self) -> None:
        """Take out of the register the names of workers that are gone, and those that are too long or too many."""
        for role in queues.WORKER_ROLES:
            args: list[str | int] = [_worker(role, ""), bounds.WORKERS_OF_A_ROLE, _NAME_BYTES]
            self._prune(keys=[_workers(role), _NO_KEY], args=args)

    def unclaimed(self, names: Sequence[str]) -> dict[str, int]:
        """How many messages are in each of these Celery queues."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.llen(name)
            return dict(zip(names, pipe.execute(), strict=True))

    def states(self, labels: Sequence[str]) -> dict[str, LeaseState]:
        """What Redis knows of these attempts, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in labels:
                pipe.exists(_offer(label))
                pipe.hget(_lease(label), "worker")
            answers = pipe.execute()
        states = {}
        for label, offered, worker in zip(labels, answers[::2], answers[1::2], strict=True):
            name = worker.decode(errors="replace") if worker else None
            states[label] = LeaseState(is_offered=bool(offered), worker=name)
        return states

    # --- a worker's side ----------------------------------------------------------------------------------------

    def claim(self, label: str, token: str, worker: str, *, wait_s: float) -> AnyWork:
        """The work of this attempt, which is now this worker's.

        Waits for an offer that is still to come: the second step of a chain arrives while the first one's report
        is being settled. Raises LeaseLost when the attempt is another's, closed, or not offered within `wait_s`;
        HostHeld when the worker's host is to be given no work; UnknownVersion for work of another version, whose
        lease is then this worker's all the same; FarmNotRunning or BrokerFull when the broker gives no answer, for
        which it is asked again for as long.
        """
        name = token_hex(8)
        until = time.monotonic() + wait_s
        while True:
            try:
                return self._claimed(label, token, worker, wait_s, name=name)
            except redis.RedisError as error:
                is_passing = isinstance(error, redis.ConnectionError | redis.TimeoutError)
                if not is_passing or time.monotonic() > until:
                    raise self._unanswered(error) from error
            time.sleep(_ASK_AGAIN_S)

    def _claimed(self, label: str, token: str, worker: str, wait_s: float, *, name: str) -> AnyWork:
        keys = [_offer(label), _lease(label), _closed(label), _HELD]
        host = host_of(worker)
        waited = False
        while True:
            answer: Any = self._claim(keys=keys, args=[token, worker, self._ttl_ms, name, host])
            if answer == b"gone":
                raise LeaseLost(f"attempt {label} is no longer to be done by whoever has this message")
            if answer.startswith(b"held "):
                raise HostHeld(answer[5:].decode())
            if answer != b"wait":
                return wire.decode_work(answer)
            if waited:
                raise LeaseLost(f"attempt {label} was not offered within {wait_s:g} s")
            waited = self._redis.blpop([_wake(label)], timeout=wait_s) is None

    def touch(self, label: str, token: str) -> Touch:
        """Renew the lease, and keep what is shown of the log."""
        keys = [_lease(label), _closed(label), _live_log(label)]
        answer: Any = self._touch(keys=keys, args=[token, self._ttl_ms, _LIVE_LOG_KEPT_S])
        return Touch(answer.decode())

    def closed(self, labels: Sequence[str]) -> list[str]:
        """Those of these attempts that were closed of late."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in labels:
                pipe.exists(_closed(label))
            return [label for label, is_closed in zip(labels, pipe.execute(), strict=True) if is_closed]

    def wait(self, label: str, *, timeout_s: float) -> bool:
        """Wait until something happened to an attempt's offer or lease, such as its end; False after `timeout_s`."""
        return self._redis.blpop([_wake(label)], timeout=timeout_s) is not None

    def wake(self, label: str) -> None:
        """Let whoever waits for the attempt go on."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(_wake(label), b"1")
            pipe.expire(_wake(label), _WAKE_KEPT_S)
            pipe.execute()

    def ask_back(self, label: str, token: str, worker: str) -> None:
        """Have the scheduler restore a lease that is missing, or close it if the attempt is no longer this worker's."""
        notice = wire.Notice(notice=wire.NoticeKind.RESUME, attempt=label, token=token, worker=worker)
        self._redis.lpush(queues.control_list(queues.role_of(label) or queues.SOURCE), wire.encode_notice(notice))

    def show_log(self, label: str, offset: int, data: bytes) -> None:
        """Show what is at `offset` of a running attempt's log to whoever follows it. Safe to repeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.setrange(_live_log(label), offset, data)
            pipe.expire(_live_log(label), _LIVE_LOG_KEPT_S)
            pipe.execute()

    def announce(self, facts: WorkerFacts) -> None:
        """Say that this worker is there, once in each of its roles; to be repeated more often than every 30 s."""
        with self._redis.pipeline() as pipe:
            for role in facts.queues:
                consumes = None if facts.consumes is None else tuple(name for name in facts.consumes if name == role)
                document = wire.to_json(replace(facts, queues=(role,), consumes=consumes))
                pipe.sadd(_workers(role), facts.name)
                pipe.set(_worker(role, facts.name), document, ex=_WORKER_KEPT_S)
            pipe.execute()

    def is_announced(self, name: str, roles: Sequence[str]) -> bool:
        """Whether this worker is known in each of its roles."""
        return int(self._redis.exists(*(_worker(role, name) for role in roles))) == len(roles)

    def retire(self, name: str, roles: Sequence[str] = queues.WORKER_ROLES) -> None:
        """Say that this worker takes no more work."""
        self._redis.delete(*(_worker(role, name) for role in roles))

    def turned_off(self, name: str, roles: Sequence[str]) -> frozenset[str]:
        """The queues from which the scheduler has this worker stop taking."""
        with self._redis.pipeline(transaction=False) as pipe:
            for role in roles:
                pipe.hget(_off(role), name)
            answers = pipe.execute()
        return frozenset(name for answer in answers if answer is not None for name in _names(answer))

    # --- anybody's ----------------------------------------------------------------------------------------------

    def read_log(self, label: str, offset: int) -> bytes:
        """The live log from a byte offset on, at most up to LIVE_LOG_BYTES; empty when there is nothing new or it is
        no longer kept."""
        if offset >= LIVE_LOG_BYTES:
            return b""
        data: bytes = self._redis.getrange(_live_log(label), offset, LIVE_LOG_BYTES - 1)  # type: ignore[assignment]  # no decode_responses
        return data

    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that were heard of within the last 30 s, by name; one that has several roles once for each."""
        with self._redis.pipeline(transaction=False) as pipe:
            for role in queues.WORKER_ROLES:
                pipe.srandmember(_workers(role), bounds.WORKERS_OF_A_ROLE)
            answers = pipe.execute(raise_on_error=False)
        known = [
            (bytes(name).decode(errors="replace"), role)
            for role, names in zip(queues.WORKER_ROLES, answers, strict=True)
            for name in _or_raise(names, [])
            if len(name) <= _NAME_BYTES
        ]
        known.sort()
        with self._redis.pipeline(transaction=False) as pipe:
            for name, role in known:
                pipe.getrange(_worker(role, name), 0, bounds.FACTS_BYTES)
            documents = pipe.execute(raise_on_error=False) if known else []
        found = (
            self._facts(role, name, document)
            for (name, role), answer in zip(known, documents, strict=True)
            if (document := _or_raise(answer, b""))
        )
        return tuple(facts for facts in found if facts is not None)

    def _facts(self, role: str, name: str, document: bytes) -> WorkerFacts | None:
        """None for a document that is not understood, such as that of a newer worker; it hides no other worker."""
        try:
            return bounds.decode_facts(role, name, document)
        except (ValueError, RecursionError) as error:
            if (role, name) not in self._strangers and len(self._strangers) < bounds.WORKERS_OF_A_ROLE:
                self._strangers.add((role, name))
                extra = {"action": "bad-document", "role": role}
                _log.warning("Worker %a is not understood, and given no work: %a", name, str(error)[:300], extra=extra)
            return None

    def publish(self, event: dict[str, Any]) -> None:
        """Tell whoever listens right now. Nothing depends on it being heard."""
        self.hand_on(events=(event,))

    def events(self, *, timeout_s: float) -> Iterator[dict[str, Any] | None]:
        """Events as they come; None whenever `timeout_s` passed without one, so that the caller can look itself."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(_EVENTS)
            while True:
                message = pubsub.get_message(timeout=timeout_s)
                if message is None:
                    yield None
                elif (event := bounds.decode_event(message["data"])) is not None:
                    yield event


def _or_raise(answer: Any, empty: Any) -> Any:
    """`empty` for a key that holds a value of another type. Raises the broker's other errors."""
    if isinstance(answer, Exception):
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
            return empty
        raise answer
    return answer


def _names(document: bytes) -> list[str]:
    try:
        return msgspec.json.decode(document, type=list[str])
    except (ValueError, RecursionError):
        return []


def _workers(role: str) -> str:
    return f"farm:workers:{role}"


def _worker(role: str, node: str) -> str:
    return f"farm:worker:{role}:{node}"


def _off(role: str) -> str:
    return f"farm:off:{role}"


def _offer(label: str) -> str:
    return f"farm:offer:{label}"


def _lease(label: str) -> str:
    return f"farm:lease:{label}"


def _closed(label: str) -> str:
    return f"farm:closed:{label}"


def _wake(label: str) -> str:
    return f"farm:wake:{label}"


def _live_log(label: str) -> str:
    return f"farm:log:{label}"
