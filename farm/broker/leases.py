"""Offers, leases, live logs, the register of workers and events, in Redis. SQL has the truth.

An attempt's life in Redis: the scheduler *offers* its work. One worker *claims* it under a token that the worker makes,
which deletes the offer and starts the lease in one atomic command. The worker *touches* the lease while it works. The
scheduler *closes* it when the report is settled or the attempt is cancelled, which wakes the worker. Redis has only the
token's digest, so that a reader of a lease cannot act as its holder. A lease that is missing and was not closed was
lost with the data of Redis: the worker asks to go on, and the scheduler, which knows from SQL whether this worker holds
the attempt, *restores* the lease or turns this worker away (docs/decisions/0010-claims-without-tokens.md).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
import redis

from farm import queues, wire
from farm.broker import bounds, keys, scripts
from farm.broker.connection import connect, unanswered
from farm.broker.register import WorkerRegister
from farm.config import Settings
from farm.errors import BrokerFull, FarmNotRunning, HostHeld, LeaseLost
from farm.model.work import AnyWork
from farm.model.worker import Holder, host_of
from farm.steps.registry import queue_of

LIVE_LOG_BYTES = 8 * 2**20  # the part of a running attempt's log that can be followed; the whole log is an artifact
_LIVE_LOG_KEPT_S = 600
_CLOSED_KEPT_S = 300  # how long a duplicate message of a closed attempt is turned away at once
_WAKE_KEPT_S = 60
_NEARLY_FULL = 0.9
_TURNED_AWAY_KEPT_S = 60  # a worker asks every second
_WAITS = 2  # messages that may wait for an attempt before its turn: its own, and one that Celery repeats
_ASK_AGAIN_S = 0.2
_AT_ONCE = 250  # attempts to close, or events to tell, in one script
_BYTES_AT_ONCE = 2**20  # of work in one script
ItemT = TypeVar("ItemT")


class Touch(StrEnum):
    """The state of a lease that its worker renews."""

    HELD = "held"
    GONE = "gone"  # closed, or held by another worker
    MISSING = "missing"  # Redis knows nothing of the attempt


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """The state of an attempt in Redis. One that is neither offered nor held is lost, or its turn has not come."""

    is_offered: bool
    holder: Holder | None = None

    @property
    def is_held(self) -> bool:
        return self.holder is not None


@dataclass(frozen=True, kw_only=True)
class EncodedWork:
    """The bytes of an attempt's work, as they are offered: their length can be checked before."""

    attempt: str
    document: bytes


class Leases(WorkerRegister):
    """Leases and the register of workers. One connection pool to the farm's Redis, for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._ttl_ms = settings.lease_s * 1000
        self._redis = connect(settings, timeout_s=30)
        self._claim = scripts.Script(self._redis, scripts.CLAIM)
        self._touch = scripts.Script(self._redis, scripts.TOUCH)
        self._close = scripts.PipedScript(self._redis, scripts.CLOSE)
        self._publish = scripts.PipedScript(self._redis, scripts.PUBLISH)
        self._restore = self._redis.register_script(scripts.of_scheduler(scripts.RESTORE))
        self._offer = scripts.PipedScript(self._redis, scripts.OFFER)
        self._expect = scripts.PipedScript(self._redis, scripts.EXPECT)
        self._holders = scripts.PipedScript(self._redis, scripts.HOLDERS)
        self._loader = scripts.ScriptLoader(self._redis)
        super().__init__(self._redis)

    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise self._unanswered(error) from error

    def check_room(self) -> None:
        """Raises FarmNotRunning when the broker does not answer, BrokerFull when it takes nothing more."""
        try:
            self._redis.lpushx(keys.NONE, b"")  # refused at the limit as every push is, and pushes nothing
        except redis.RedisError as error:
            raise self._unanswered(error) from error

    def _unanswered(self, error: redis.RedisError) -> FarmNotRunning | BrokerFull:
        if isinstance(error, redis.OutOfMemoryError):
            return BrokerFull(f"the farm's broker is at its memory limit{self._limit()}")
        return unanswered(error)

    def _limit(self) -> str:
        """The limit as text; empty if this account may not ask for it."""
        try:
            memory: Any = self._redis.info("memory")
        except redis.RedisError:
            return ""
        return f" (maxmemory {memory['maxmemory_human']}, {memory['maxmemory_policy']})"

    def close(self) -> None:
        self._redis.close()

    def is_nearly_full(self) -> bool:
        """Whether the broker has a memory limit, and less than a tenth of it is free. For the scheduler's account."""
        memory: Any = self._redis.info("memory")
        return bool(memory["maxmemory"]) and memory["used_memory"] > _NEARLY_FULL * memory["maxmemory"]

    def uptime_s(self) -> int:
        """The seconds for which the broker has been running."""
        server: Any = self._redis.info("server")
        return int(server["uptime_in_seconds"])

    @property
    def renew_every_s(self) -> float:
        """A sixth of what a lease lasts: five renewals in a row may fail."""
        return self._ttl_ms / 6000

    # --- the scheduler's side -----------------------------------------------------------------------------------

    def load_scripts(self) -> None:
        """Load into the broker the scripts that other accounts run and may not load."""
        self._loader.load()

    def offer(self, work: AnyWork) -> None:
        """Put the work where the workers of its queue can claim it; wakes a worker that already waits for it."""
        self.hand_on(works=(work,))

    def close_attempts(self, labels: Iterable[str]) -> None:
        """End leases and withdraw offers of attempts that are settled, cancelled or sent again. Safe to repeat."""
        self.hand_on(closes=labels)

    def hand_on(
        self,
        *,
        closes: Iterable[str] = (),
        works: Iterable[AnyWork | EncodedWork] = (),
        expects: Iterable[str] = (),
        events: Iterable[dict[str, Any]] = (),
    ) -> frozenset[str]:
        """`close_attempts`, `offer`, `expect` and `publish` for many, in this order and in one round trip.

        Returns the attempts of `works` whose messages workers dropped because they came before the offer.
        """
        offered: list[str] = []
        answers_at: list[int] = []
        with self._redis.pipeline(transaction=False) as pipe:
            for some in _loading(pipe, self._close, closes):
                names = [key(label) for label in some for key in (keys.offer, keys.lease, keys.closed, keys.wake)]
                self._close.run(pipe, keys=names, args=[_CLOSED_KEPT_S, _WAKE_KEPT_S])
            for lot in _loading(pipe, self._offer, map(_encoded, works), _lots):
                names = [key(work.attempt) for work in lot for key in (keys.offer, keys.wake)]
                answers_at.append(len(pipe))
                self._offer.run(pipe, keys=names, args=[_WAKE_KEPT_S, *(work.document for work in lot)])
                offered += [work.attempt for work in lot]
            for some in _loading(pipe, self._expect, expects):
                self._expect.run(pipe, keys=[keys.offer(label) for label in some])
            for told in _loading(pipe, self._publish, (msgspec.json.encode(event) for event in events)):
                self._publish.run(pipe, args=[keys.EVENTS, *told])
            answers = pipe.execute()
        missed = _joined(answers[place] for place in answers_at)
        return frozenset(label for label, is_missed in zip(offered, missed, strict=True) if is_missed)

    def expect(self, label: str) -> None:
        """Let the attempt's message wait for the offer, which the scheduler makes later."""
        self.hand_on(expects=(label,))

    def restore(self, label: str, holder: Holder) -> None:
        """Give the lease back to this worker, unless a worker has it or it was closed meanwhile."""
        names = [keys.lease(label), keys.closed(label), keys.offer(label)]
        self._restore(keys=names, args=[holder.digest, holder.worker, self._ttl_ms])

    def turn_away(self, asking: Iterable[tuple[str, str]]) -> None:
        """Tell workers that they do not hold these attempts, each by its token's digest. No other worker is told."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label, digest in asking:
                pipe.set(keys.turned_away(label, digest), b"1", ex=_TURNED_AWAY_KEPT_S)
            pipe.execute()

    def hold_hosts(self, why: Mapping[str, str]) -> None:
        """Give no work from now on to workers on these hosts, and only to them; `why` has each host's reason."""
        with self._redis.pipeline() as pipe:
            pipe.delete(keys.HELD)
            if why:
                pipe.hset(keys.HELD, mapping={host: reason.encode() for host, reason in why.items()})
            pipe.execute()

    def unclaimed(self, names: Sequence[str]) -> dict[str, int]:
        """How many messages are in each of these Celery queues."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.llen(name)
            return dict(zip(names, pipe.execute(), strict=True))

    def states(self, labels: Sequence[str]) -> dict[str, LeaseState]:
        """The states of these attempts in Redis, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            self._holders.load(pipe)
            for label in labels:
                pipe.hexists(keys.offer(label), "work")
            self._ask_holders(pipe, labels)
            answers = pipe.execute()[1:]
        offered, leases = answers[: len(labels)], _joined(answers[len(labels) :])
        return {
            label: LeaseState(is_offered=bool(is_offered), holder=_holder(*lease))
            for label, is_offered, lease in zip(labels, offered, leases, strict=True)
        }

    def holders(self, labels: Iterable[str]) -> dict[str, Holder]:
        """The holders of these attempts, in one round trip. An attempt without a holder is left out."""
        wanted = sorted(set(labels))
        if not wanted:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            self._holders.load(pipe)
            self._ask_holders(pipe, wanted)
            found = zip(wanted, _joined(pipe.execute()[1:]), strict=True)
        return {label: holder for label, lease in found if (holder := _holder(*lease)) is not None}

    def _ask_holders(self, pipe: Any, labels: Iterable[str]) -> None:
        for some in _portions(labels):
            self._holders.run(pipe, keys=[keys.lease(label) for label in some], args=[bounds.HOLDER_BYTES])

    # --- a worker's side ----------------------------------------------------------------------------------------

    def claim(self, label: str, token: str, worker: str, *, wait_s: float) -> AnyWork:
        """The work of this attempt. This worker holds the attempt for as long as it renews the lease with this token.

        Waits for an offer that the scheduler has yet to make: the message of the second step of a chain arrives while
        the report of the first one is being settled. Raises LeaseLost when another worker has the attempt, or it is
        closed, not expected, or not offered within `wait_s`: then the scheduler sends a message again together with the
        offer. Raises HostHeld when the worker's host must get no work; UnknownVersion for work of another version,
        whose lease this worker then holds all the same; FarmNotRunning or BrokerFull when the broker does not answer,
        which is asked again for up to `wait_s`.
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
        names = [keys.offer(label), keys.lease(label), keys.closed(label), keys.HELD]
        args: list[str | int] = [wire.digest_of(token), worker, self._ttl_ms, name, host_of(worker)]
        waited = False
        while True:
            answer: Any = self._claim(keys=names, args=[*args, int(not waited), _WAITS])
            if answer == b"gone":
                raise LeaseLost(f"attempt {label} is closed, or another worker holds it")
            if answer == b"unexpected":
                raise LeaseLost(f"attempt {label} is not expected")
            if answer == b"early":
                raise LeaseLost(f"attempt {label} is not offered yet; the scheduler sends it again when it is")
            if answer.startswith(b"held "):
                raise HostHeld(answer[5:].decode())
            if answer != b"wait":
                return wire.decode_work(answer)
            waited = self._redis.blpop([keys.wake(label)], timeout=wait_s) is None

    def touch(self, label: str, token: str) -> Touch:
        """Renew the lease, and keep the live log for longer."""
        digest = wire.digest_of(token)
        names = [keys.lease(label), keys.closed(label), keys.turned_away(label, digest), keys.live_log(label)]
        answer: Any = self._touch(keys=names, args=[digest, self._ttl_ms, _LIVE_LOG_KEPT_S])
        return Touch(answer.decode())

    def closed(self, labels: Sequence[str]) -> list[str]:
        """The attempts among these that were closed recently."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in labels:
                pipe.exists(keys.closed(label))
            return [label for label, is_closed in zip(labels, pipe.execute(), strict=True) if is_closed]

    def wait(self, label: str, *, timeout_s: float) -> bool:
        """Wait for a change of an attempt's offer or lease, such as its end; False after `timeout_s` without one."""
        return self._redis.blpop([keys.wake(label)], timeout=timeout_s) is not None

    def wake(self, label: str) -> None:
        """Wake a worker that waits for the attempt."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.wake(label), b"1")
            pipe.expire(keys.wake(label), _WAKE_KEPT_S)
            pipe.execute()

    def ask_back(self, label: str, token: str, worker: str) -> None:
        """Ask the scheduler to restore a missing lease; it turns this worker away if another one holds the attempt."""
        notice = wire.Notice(notice=wire.NoticeKind.RESUME, attempt=label, token=token, worker=worker)
        self._redis.lpush(queues.control_list(queue_of(label) or queues.SOURCE), wire.encode_notice(notice))

    def show_log(self, label: str, offset: int, data: bytes) -> None:
        """Show the part at `offset` of a running attempt's log to clients that follow it. Safe to repeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.setrange(keys.live_log(label), offset, data)
            pipe.expire(keys.live_log(label), _LIVE_LOG_KEPT_S)
            pipe.execute()

    # --- for all processes --------------------------------------------------------------------------------------

    def read_log(self, label: str, offset: int) -> bytes:
        """The live log from a byte offset on, at most up to LIVE_LOG_BYTES; empty when it has no new part or is no
        longer kept."""
        if offset >= LIVE_LOG_BYTES:
            return b""
        data: bytes = self._redis.getrange(keys.live_log(label), offset, LIVE_LOG_BYTES - 1)  # type: ignore[assignment]  # no decode_responses
        return data

    def publish(self, event: dict[str, Any]) -> None:
        """Send an event to the processes that listen now. The farm does not depend on its arrival."""
        self._redis.publish(keys.EVENTS, msgspec.json.encode(event))

    def events(self, *, timeout_s: float) -> Iterator[dict[str, Any] | None]:
        """Events as they come; None whenever `timeout_s` passed without one, so that the caller can query SQL."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.EVENTS)
            while True:
                message = pubsub.get_message(timeout=timeout_s)
                if message is None:
                    yield None
                elif (event := bounds.decode_event(message["data"])) is not None:
                    yield event


def _encoded(work: AnyWork | EncodedWork) -> EncodedWork:
    return work if isinstance(work, EncodedWork) else EncodedWork(attempt=work.attempt, document=wire.encode_work(work))


def _joined(answers: Iterable[list[Any]]) -> list[Any]:
    return [one for answer in answers for one in answer]


def _portions(items: Iterable[ItemT]) -> Iterator[list[ItemT]]:
    """Lists of as many items as one script takes: Redis runs nothing else meanwhile."""
    rest = list(items)
    for start in range(0, len(rest), _AT_ONCE):
        yield rest[start : start + _AT_ONCE]


def _lots(works: Iterable[EncodedWork]) -> Iterator[list[EncodedWork]]:
    """Portions of works that have no more than _BYTES_AT_ONCE together, or are one: a script has a copy of each."""
    for some in _portions(works):
        lot: list[EncodedWork] = []
        left = _BYTES_AT_ONCE
        for work in some:
            left -= len(work.document)
            if lot and left < 0:
                yield lot
                lot, left = [], _BYTES_AT_ONCE - len(work.document)
            lot.append(work)
        yield lot


def _loading(
    pipe: Any,
    script: scripts.PipedScript,
    items: Iterable[ItemT],
    portions: Callable[[Iterable[ItemT]], Iterator[list[ItemT]]] = _portions,
) -> Iterator[list[ItemT]]:
    """Portions of the items for this script, which is loaded before the first of them."""
    for place, some in enumerate(portions(items)):
        if place == 0:
            script.load(pipe)
        yield some


def _holder(worker: bytes | None, digest: bytes | None) -> Holder | None:
    """The holder, from a lease's fields. The lease of a worker of an older version has no digest."""
    if worker is None:
        return None
    return Holder(digest=(digest or b"").decode(errors="replace"), worker=worker.decode(errors="replace"))
