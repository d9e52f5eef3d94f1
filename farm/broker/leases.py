"""Who may work on what, in Redis: offers, leases, live logs, the register of workers, events. Never the truth.

An attempt's life here: the scheduler *offers* its work; one worker *claims* it under a token of its own making, which
takes the offer away and starts the lease in one atomic command; the worker *touches* the lease while it works; the
scheduler *closes* it when the report is settled or the attempt is cancelled, which wakes the worker. Here is only the
token's digest, so that whoever reads a lease cannot speak for its holder. A lease that is missing and was not closed
went with a Redis that was emptied: the worker asks to go on, and the scheduler, which knows from SQL whether the
attempt is still the worker's, *restores* it or turns this one worker away
(docs/decisions/0010-claims-without-tokens.md).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
import redis

from farm import queues, wire
from farm.broker import bounds, keys, scripts
from farm.broker.register import WorkerRegister
from farm.config import Settings
from farm.errors import BrokerFull, FarmNotRunning, HostHeld, LeaseLost
from farm.model.work import AnyWork
from farm.model.worker import Holder, host_of
from farm.steps.registry import queue_of

LIVE_LOG_BYTES = 8 * 2**20  # of an attempt's log that can be followed; the whole log is an artifact afterwards
_LIVE_LOG_KEPT_S = 600
_CLOSED_KEPT_S = 300  # how long a duplicate message of a closed attempt is turned away at once
_WAKE_KEPT_S = 60
_TURNED_AWAY_KEPT_S = 60  # a worker asks every second
_WAITS = 2  # messages that may wait for an attempt whose turn is still to come: its own, and one that Celery repeats
_ASK_AGAIN_S = 0.2
_AT_ONCE = 250  # attempts to close, or events to tell, in one script
ItemT = TypeVar("ItemT")


class Touch(StrEnum):
    """What a worker finds when it renews its lease."""

    HELD = "held"
    GONE = "gone"  # closed, or another's
    MISSING = "missing"  # Redis knows nothing of the attempt


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """What Redis knows of an attempt. Neither offered nor held: lost, or not yet the chain's turn."""

    is_offered: bool
    holder: Holder | None = None

    @property
    def is_held(self) -> bool:
        return self.holder is not None


@dataclass(frozen=True, kw_only=True)
class EncodedWork:
    """Work in the form in which it is offered, so that its length can be looked at before."""

    attempt: str
    document: bytes


class Leases(WorkerRegister):
    """Beside leases, the register of workers. One connection pool to the farm's Redis, for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._ttl_ms = settings.lease_s * 1000
        self._redis = redis.Redis.from_url(
            settings.redis, socket_timeout=30, socket_connect_timeout=5, protocol=2, health_check_interval=25
        )
        self._claim = scripts.Script(self._redis, scripts.CLAIM)
        self._touch = scripts.Script(self._redis, scripts.TOUCH)
        self._close = self._redis.register_script(scripts.CLOSE)
        self._publish = self._redis.register_script(scripts.PUBLISH)
        self._restore = self._redis.register_script(scripts.RESTORE)
        self._wake = self._redis.register_script(scripts.WAKE)
        self._expect = self._redis.register_script(scripts.EXPECT)
        self._holders = self._redis.register_script(scripts.HOLDERS)
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

    def load_scripts(self) -> None:
        """Have the broker know the scripts that other accounts run and may not load."""
        self._loader.load()

    def offer(self, work: AnyWork) -> None:
        """Put the work where the workers of its queue can claim it; wakes one that already waits for it."""
        self.hand_on(works=(work,))

    def close_attempts(self, labels: Iterable[str]) -> None:
        """End leases and withdraw offers: settled, cancelled, or to be sent again. Safe to repeat."""
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
        answer_of: dict[str, int] = {}
        with self._redis.pipeline(transaction=False) as pipe:
            for some in _portions(closes):
                names = [key(label) for label in some for key in (keys.offer, keys.lease, keys.closed, keys.wake)]
                self._close(keys=names, args=[_CLOSED_KEPT_S, _WAKE_KEPT_S], client=pipe)
            for work in works:
                document = work.document if isinstance(work, EncodedWork) else wire.encode_work(work)
                pipe.hset(keys.offer(work.attempt), "work", document)
                answer_of[work.attempt] = len(pipe)
                pipe.hexists(keys.offer(work.attempt), "missed")
            for some in _portions(answer_of):
                self._wake(keys=[keys.wake(label) for label in some], args=[_WAKE_KEPT_S], client=pipe)
            for some in _portions(expects):
                self._expect(keys=[keys.offer(label) for label in some], client=pipe)
            for told in _portions(msgspec.json.encode(event) for event in events):
                self._publish(args=[keys.EVENTS, *told], client=pipe)
            answers = pipe.execute()
        return frozenset(label for label, place in answer_of.items() if answers[place])

    def expect(self, label: str) -> None:
        """The attempt is to be offered later, and its message may come before that: it may wait."""
        self.hand_on(expects=(label,))

    def restore(self, label: str, holder: Holder) -> None:
        """The lease is this worker's again, unless somebody has it or it was closed meanwhile."""
        names = [keys.lease(label), keys.closed(label), keys.offer(label)]
        self._restore(keys=names, args=[holder.digest, holder.worker, self._ttl_ms])

    def turn_away(self, asking: Iterable[tuple[str, str]]) -> None:
        """These attempts are not theirs who asked under a token with this digest. Nobody else is told anything."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label, digest in asking:
                pipe.set(keys.turned_away(label, digest), b"1", ex=_TURNED_AWAY_KEPT_S)
            pipe.execute()

    def hold_hosts(self, why: Mapping[str, str]) -> None:
        """Workers on these hosts, and no others, are given no work from now on, for the reason given in words."""
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
        """What Redis knows of these attempts, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in labels:
                pipe.hexists(keys.offer(label), "work")
            self._ask_holders(pipe, labels)
            answers = pipe.execute()
        offered, leases = answers[: len(labels)], _joined(answers[len(labels) :])
        return {
            label: LeaseState(is_offered=bool(is_offered), holder=_holder(*lease))
            for label, is_offered, lease in zip(labels, offered, leases, strict=True)
        }

    def holders(self, labels: Iterable[str]) -> dict[str, Holder]:
        """Who holds these attempts, in one round trip. Those that nobody does are left out."""
        wanted = sorted(set(labels))
        with self._redis.pipeline(transaction=False) as pipe:
            self._ask_holders(pipe, wanted)
            found = zip(wanted, _joined(pipe.execute()), strict=True)
        return {label: holder for label, lease in found if (holder := _holder(*lease)) is not None}

    def _ask_holders(self, pipe: Any, labels: Iterable[str]) -> None:
        for some in _portions(labels):
            self._holders(keys=[keys.lease(label) for label in some], args=[bounds.HOLDER_BYTES], client=pipe)

    # --- a worker's side ----------------------------------------------------------------------------------------

    def claim(self, label: str, token: str, worker: str, *, wait_s: float) -> AnyWork:
        """The work of this attempt, which is now this worker's, for as long as it renews the lease with this token.

        Waits for an offer that is still to come: the second step of a chain arrives while the first one's report
        is being settled. Raises LeaseLost when the attempt is another's, closed, not expected, or not offered within
        `wait_s`: then the scheduler sends a message again together with the offer;
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
        names = [keys.offer(label), keys.lease(label), keys.closed(label), keys.HELD]
        args: list[str | int] = [wire.digest_of(token), worker, self._ttl_ms, name, host_of(worker)]
        waited = False
        while True:
            answer: Any = self._claim(keys=names, args=[*args, int(not waited), _WAITS])
            if answer == b"gone":
                raise LeaseLost(f"attempt {label} is no longer to be done by whoever has this message")
            if answer == b"unexpected":
                raise LeaseLost(f"attempt {label} is not expected by now")
            if answer == b"early":
                raise LeaseLost(f"attempt {label} is not offered yet; the scheduler sends it again when it is")
            if answer.startswith(b"held "):
                raise HostHeld(answer[5:].decode())
            if answer != b"wait":
                return wire.decode_work(answer)
            waited = self._redis.blpop([keys.wake(label)], timeout=wait_s) is None

    def touch(self, label: str, token: str) -> Touch:
        """Renew the lease, and keep what is shown of the log."""
        digest = wire.digest_of(token)
        names = [keys.lease(label), keys.closed(label), keys.turned_away(label, digest), keys.live_log(label)]
        answer: Any = self._touch(keys=names, args=[digest, self._ttl_ms, _LIVE_LOG_KEPT_S])
        return Touch(answer.decode())

    def closed(self, labels: Sequence[str]) -> list[str]:
        """Those of these attempts that were closed of late."""
        with self._redis.pipeline(transaction=False) as pipe:
            for label in labels:
                pipe.exists(keys.closed(label))
            return [label for label, is_closed in zip(labels, pipe.execute(), strict=True) if is_closed]

    def wait(self, label: str, *, timeout_s: float) -> bool:
        """Wait until something happened to an attempt's offer or lease, such as its end; False after `timeout_s`."""
        return self._redis.blpop([keys.wake(label)], timeout=timeout_s) is not None

    def wake(self, label: str) -> None:
        """Let whoever waits for the attempt go on."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.wake(label), b"1")
            pipe.expire(keys.wake(label), _WAKE_KEPT_S)
            pipe.execute()

    def ask_back(self, label: str, token: str, worker: str) -> None:
        """Have the scheduler restore a lease that is missing, or turn this worker away if the attempt is not its."""
        notice = wire.Notice(notice=wire.NoticeKind.RESUME, attempt=label, token=token, worker=worker)
        self._redis.lpush(queues.control_list(queue_of(label) or queues.SOURCE), wire.encode_notice(notice))

    def show_log(self, label: str, offset: int, data: bytes) -> None:
        """Show what is at `offset` of a running attempt's log to whoever follows it. Safe to repeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.setrange(keys.live_log(label), offset, data)
            pipe.expire(keys.live_log(label), _LIVE_LOG_KEPT_S)
            pipe.execute()

    # --- anybody's ----------------------------------------------------------------------------------------------

    def read_log(self, label: str, offset: int) -> bytes:
        """The live log from a byte offset on, at most up to LIVE_LOG_BYTES; empty when there is nothing new or it is
        no longer kept."""
        if offset >= LIVE_LOG_BYTES:
            return b""
        data: bytes = self._redis.getrange(keys.live_log(label), offset, LIVE_LOG_BYTES - 1)  # type: ignore[assignment]  # no decode_responses
        return data

    def publish(self, event: dict[str, Any]) -> None:
        """Tell whoever listens right now. Nothing depends on it being heard."""
        self._redis.publish(keys.EVENTS, msgspec.json.encode(event))

    def events(self, *, timeout_s: float) -> Iterator[dict[str, Any] | None]:
        """Events as they come; None whenever `timeout_s` passed without one, so that the caller can look itself."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.EVENTS)
            while True:
                message = pubsub.get_message(timeout=timeout_s)
                if message is None:
                    yield None
                elif (event := bounds.decode_event(message["data"])) is not None:
                    yield event


def _joined(answers: Iterable[list[Any]]) -> list[Any]:
    return [one for answer in answers for one in answer]


def _portions(items: Iterable[ItemT]) -> Iterator[list[ItemT]]:
    """As many as one script takes at a time: nothing else happens in Redis meanwhile."""
    rest = list(items)
    for start in range(0, len(rest), _AT_ONCE):
        yield rest[start : start + _AT_ONCE]


def _holder(worker: bytes | None, digest: bytes | None) -> Holder | None:
    """From a lease's fields. That of a worker of an older version has no digest."""
    if worker is None:
        return None
    return Holder(digest=(digest or b"").decode(errors="replace"), worker=worker.decode(errors="replace"))
