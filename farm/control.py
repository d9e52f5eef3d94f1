"""The `control` queue: workers' reports to the scheduler, and a nudge when something is due.

A plain Redis list and not a Celery task: it has one reader, which takes all that waits and settles it in one
transaction, and it needs at-least-once delivery, which a second list gives: what was taken stays there until it
is settled, so a scheduler that dies in between loses no report (docs/decisions/0003-control-queue.md).
"""

import logging
from dataclasses import dataclass

import redis

from farm import queues, wire
from farm.config import Settings
from farm.errors import FarmNotRunning, UnknownVersion

_log = logging.getLogger(__name__)
_TAKEN = f"{queues.CONTROL}:taken"
_WAKE = b"wake"
_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """What one look at the queue brought. `documents` counts nudges too; with `has_more` some were left there."""

    reports: tuple[wire.AnyReport, ...]
    notices: tuple[wire.Notice, ...] = ()
    documents: int = 0
    has_more: bool = False


class Control:
    """Both ends of the queue. Any number may send; one receives. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._redis = redis.Redis.from_url(
            settings.redis, socket_timeout=60, socket_connect_timeout=5, protocol=2, health_check_interval=25
        )

    def close(self) -> None:
        self._redis.close()

    def report(self, report: wire.AnyReport) -> None:
        """Raises FarmNotRunning when the broker does not take it; then it may be sent again."""
        self._send(wire.encode_report(report))

    def notify(self, notice: wire.Notice) -> None:
        """Raises FarmNotRunning when the broker does not take it; what it says shows by itself in time."""
        self._send(wire.encode_notice(notice))

    def wake(self) -> None:
        """Have the scheduler look at SQL now. Raises FarmNotRunning."""
        self._send(_WAKE)

    def is_empty(self) -> bool:
        """Whether nothing waits to be settled. Raises redis.RedisError."""
        with self._redis.pipeline() as pipe:
            pipe.llen(queues.CONTROL)
            pipe.llen(_TAKEN)
            return not any(pipe.execute())

    def recover(self) -> None:
        """Put back what an earlier receiver took and did not settle. Call once, before the first `receive`."""
        while self._redis.lmove(_TAKEN, queues.CONTROL, "LEFT", "RIGHT") is not None:
            pass

    def receive(self, *, timeout_s: float) -> Inbox:
        """All that waits, at most 200 documents; blocks up to `timeout_s` for the first.

        What is no report is logged and dropped. Raises redis.RedisError while the broker is away.
        """
        first = self._redis.blmove(queues.CONTROL, _TAKEN, timeout_s, "RIGHT", "LEFT")  # type: ignore[arg-type]  # the server takes fractions
        if first is None:
            return Inbox(reports=())
        taken = [first]
        while len(taken) < _BATCH and (body := self._redis.lmove(queues.CONTROL, _TAKEN, "RIGHT", "LEFT")):
            taken.append(body)
        bodies = dict.fromkeys(taken)  # one that is sent again because its answer was lost says nothing new
        notices = {body: notice for body in bodies if (notice := wire.decode_notice(body)) is not None}
        reports = (_decode(body) for body in bodies if body not in notices)
        return Inbox(
            reports=tuple(report for report in reports if report is not None),
            notices=tuple(notices.values()),
            documents=len(taken),
            has_more=len(taken) >= _BATCH,
        )

    def acknowledge(self) -> None:
        """All that was received is settled."""
        self._redis.delete(_TAKEN)

    def _send(self, body: bytes) -> None:
        try:
            self._redis.lpush(queues.CONTROL, body)
        except redis.RedisError as error:
            raise FarmNotRunning(f"the farm's broker does not answer ({error}); start it with `farm up`") from error


def _decode(body: bytes | str) -> wire.AnyReport | None:
    if body == _WAKE:
        return None
    try:
        return wire.decode_report(body)
    except (ValueError, RecursionError, UnknownVersion) as error:
        _log.warning("Dropped a document on %s that is no report: %s", queues.CONTROL, error)
        return None
