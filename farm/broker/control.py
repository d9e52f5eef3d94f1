"""The control lists: workers send the scheduler reports and notices, and clients a nudge when a job is due.

They are plain Redis lists and not Celery tasks, since they have one reader, which takes all waiting documents and
settles them in one transaction. They need at-least-once delivery, which a second list gives: a document that was taken
stays there until it is settled, so a scheduler that dies in between loses no report
(docs/decisions/0003-control-queue.md).

Each role has a list of its own. An account of the broker can write only its role's list, so the list proves a
document's role, and a role that floods its list delays no other role's reports.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis

from farm import queues, wire
from farm.broker import bounds, keys, scripts
from farm.broker.connection import connect, unanswered
from farm.config import Settings
from farm.errors import FarmNotRunning, Unforeseen, UnknownVersion
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Outcome
from farm.model.tally import Tally
from farm.model.work import AnyResult, StepResult
from farm.steps.registry import queue_of

_log = logging.getLogger(__name__)

#: Says which of these reports are from the holders of their attempts.
Admit = Callable[[Sequence[wire.ReportHead]], Collection[wire.ReportHead]]
_WAKE = b"wake"
_BATCH = 200  # documents of one role at a time
_BATCH_BYTES = 2 * 2**20  # the limit of one role, which one document may exceed
_LOOKED_BYTES = 64 * 2**20  # of documents of one role that are dropped at a time because they are too long
#: Documents that wait in one list. Senders stop at the first number; at the second the newest ones are dropped.
_WAITING, _WAITING_AT_MOST = 10_000, 20_000
_REASON_CHARS, _LOGS = 4096, 4

# The first write is DEL, which needs no memory: after it the script may go on at the memory limit. A document that is
# too long is dropped here, so that it never leaves Redis.
_TAKE = """
redis.call('DEL', KEYS[1])
local answer = {}
for i = 2, #KEYS, 2 do
  local from, to = KEYS[i], KEYS[i + 1]
  local docs, bytes, looked, dropped = {}, 0, 0, 0
  local left = redis.pcall('LLEN', from)
  if type(left) == 'table' then
    redis.call('DEL', from)
    left, dropped = 0, 1
  end
  if left > tonumber(ARGV[5]) then
    redis.call('LTRIM', from, -tonumber(ARGV[5]), -1)
    dropped, left = left - tonumber(ARGV[5]), tonumber(ARGV[5])
  end
  while left > 0 and #docs < tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) and looked < tonumber(ARGV[4]) do
    local body = redis.call('LINDEX', from, -1)
    if #body > tonumber(ARGV[3]) then
      redis.call('LTRIM', from, 0, -2)
      looked, dropped = looked + #body, dropped + 1
    else
      redis.call('LMOVE', from, to, 'RIGHT', 'LEFT')
      docs[#docs + 1], bytes = body, bytes + #body
    end
    left = left - 1
  end
  answer[#answer + 1] = {left, dropped, docs}
end
return answer
"""

# As above, the first write is DEL.
_RECOVER = """
redis.call('DEL', KEYS[1])
while redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT') do end
"""
_TAKE_KEYS = (
    queues.CONTROL_BELL,
    *(name for role in queues.CONTROL_ROLES for name in (queues.control_list(role), queues.control_taken(role))),
)
_TAKE_LIMITS = (_BATCH, _BATCH_BYTES, bounds.DOCUMENT_BYTES, _LOOKED_BYTES, _WAITING_AT_MOST)


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """The documents of one read of the lists. `documents` counts all that were taken, `is_woken` says whether one of
    them was a nudge; with `has_more` some were left in the lists."""

    reports: tuple[wire.AnyReport, ...]
    notices: tuple[wire.Notice, ...] = ()
    documents: int = 0
    is_woken: bool = False
    has_more: bool = False


class Control:
    """Sends to the lists, and receives from them. There is one receiver. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings, timeout_s=60)
        self._put = scripts.Script(self._redis, scripts.SEND)
        self._take = scripts.PipedScript(self._redis, _TAKE)
        self._recover = self._redis.register_script(scripts.of_scheduler(_RECOVER))
        self._sent_to: set[str] = set()
        self._has_more = False
        self._complaints = Complaints()

    def close(self) -> None:
        self._redis.close()

    def report(self, report: wire.AnyReport) -> None:
        """Send a report. Raises FarmNotRunning when the broker does not take it; the caller may then send it again.

        A report that the scheduler would drop, because a package makes it too long, is sent as a failure with that
        reason: the package is at fault, and neither the worker nor its host.
        """
        role = _role(report.attempt)
        body = wire.encode_report(report)
        try:
            bounds.check_report(report, role)
            bounds.check_report_bytes(report.kind, len(body))
        except ValueError as error:
            body = wire.encode_report(_shortened(report, str(error)))
        self._send(role, body)

    def notify(self, notice: wire.Notice) -> None:
        """Send a notice. Raises FarmNotRunning when the broker does not take it; the scheduler finds out later then."""
        self._send(_role(notice.attempt), wire.encode_notice(notice))

    def wake(self) -> None:
        """Make the scheduler read SQL now. Raises FarmNotRunning."""
        self._send(queues.CLIENT, _WAKE)

    def is_empty(self) -> bool:
        """Whether every document that this object sent is settled. Raises redis.RedisError."""
        with self._redis.pipeline() as pipe:
            for role in sorted(self._sent_to):
                pipe.llen(queues.control_list(role))
                pipe.llen(queues.control_taken(role))
            return not any(pipe.execute())

    def recover(self) -> None:
        """Put back the documents that an earlier receiver did not settle. Call it once, before the first `receive`."""
        for role in queues.CONTROL_ROLES:
            self._recover(keys=[keys.NONE, queues.control_taken(role), queues.control_list(role)])

    def receive(self, *, timeout_s: float, admit: Admit = frozenset) -> Inbox:
        """The waiting documents, at most 200 of each role, and one after 2 MiB of them; blocks up to `timeout_s`.

        A document that is no report, breaks a bound, or names another role's attempt is logged and dropped. `admit` is
        given the heads of all reports, and says which of them are from the holders of their attempts: only these are
        read further. One of them that cannot be read is the holder's trouble, so that each holder sends one at most.
        Raises redis.RedisError while the broker is away, and what `admit` raises.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            self._take.load(pipe)
            if not self._has_more:
                pipe.blpop([queues.CONTROL_BELL], timeout=timeout_s)
            self._take.run(pipe, keys=_TAKE_KEYS, args=_TAKE_LIMITS)
            answers: Any = pipe.execute()[-1]
        taken = dict(zip(queues.CONTROL_ROLES, answers, strict=True))
        self._has_more = any(left for left, _, _ in taken.values())
        for role, (_, dropped, _) in taken.items():
            if dropped:
                self._complaints.say(role, "too long", f"{dropped} documents that were too long or too many")
        opened = [one for role, (_, _, bodies) in taken.items() for one in self._open_all(role, bodies)]
        heads = [one.head for one in opened if isinstance(one, _Sealed)]
        admitted = admit(heads) if heads else frozenset()
        found = [_read(one) if isinstance(one, _Sealed) else one for one in opened if _is_due(one, admitted)]
        return Inbox(
            reports=tuple(item for item in found if isinstance(item, wire.Report)),
            notices=tuple(item for item in found if isinstance(item, wire.Notice)),
            documents=sum(len(bodies) for _, _, bodies in taken.values()),
            is_woken=any(item is None for item in found),
            has_more=self._has_more,
        )

    def acknowledge(self) -> None:
        """Every document that was received is settled: delete them."""
        self._redis.delete(*(queues.control_taken(role) for role in queues.CONTROL_ROLES))

    def _open_all(self, role: str, bodies: list[bytes]) -> Iterator["_Sealed | wire.Notice | None"]:
        """The documents; None for a nudge. A document that was sent twice because an answer was lost is read once."""
        for body in dict.fromkeys(bodies):
            try:
                yield _open(role, body)
            except (ValueError, RecursionError, UnknownVersion) as error:
                self._complaints.say(role, type(error).__name__, f"a document: {str(error)[:300]!a}")

    def _send(self, role: str, body: bytes) -> None:
        try:
            is_taken = self._put(keys=[queues.control_list(role), queues.CONTROL_BELL], args=[body, _WAITING])
        except redis.RedisError as error:
            raise unanswered(error) from error
        self._sent_to.add(role)
        if not is_taken:
            name = queues.control_list(role)
            raise FarmNotRunning(f"{_WAITING} documents wait in {name} already; check that the scheduler runs")


class Complaints:
    """Logs dropped documents: the first of each role and kind, then the tenth, the hundredth, and so on."""

    def __init__(self) -> None:
        self._counts = Tally()

    def say(self, role: str, kind: str, what: str) -> None:
        if count := self._counts.due((role, kind)):
            extra = {"action": "bad-document", "role": role}
            _log.warning("Dropped %s (from the role %s, which has sent %d such)", what, role, count, extra=extra)


@dataclass(frozen=True, kw_only=True)
class _Sealed:
    """A report of which only the head was read."""

    role: str
    head: wire.ReportHead
    body: bytes


def _open(role: str, body: bytes) -> _Sealed | wire.Notice | None:
    if body == _WAKE:
        return None
    if role == queues.CLIENT:
        raise ValueError("a client may send only nudges")
    notice = wire.decode_notice(body) if len(body) <= bounds.NOTICE_BYTES else None
    if notice is not None:
        bounds.check_notice(notice, role)
        return notice
    head = wire.decode_report_head(body)
    bounds.check_head(head, role)
    return _Sealed(role=role, head=head, body=body)


def _is_due(one: _Sealed | wire.Notice | None, admitted: Collection[wire.ReportHead]) -> bool:
    return not isinstance(one, _Sealed) or one.head in admitted


def _read(one: _Sealed) -> wire.AnyReport:
    """The report. One that breaks a bound, or is none, becomes trouble of its sender."""
    try:
        bounds.check_report_bytes(one.head.kind, len(one.body))
        report = wire.decode_report(one.body)
        bounds.check_report(report, one.role)
    except (ValueError, RecursionError) as error:
        now = datetime.now(UTC)
        message = f"its report cannot be read: {str(error)[:300]!a}"
        return wire.Report(
            attempt=one.head.attempt,
            token=one.head.token,
            kind=one.head.kind,
            worker="-",
            started_at=now,
            finished_at=now,
            trouble=wire.TroubleReport(code=Unforeseen.code, retryable=True, message=message),
        )
    return report


def _role(label: str) -> str:
    role = queue_of(label)
    if role is None:
        raise ValueError(f"{label!r} is no attempt's label, such as 12.fetch.1")
    return role


def _shortened(report: wire.AnyReport, why: str) -> wire.AnyReport:
    """The same end of the attempt in a short report, with its first logs."""
    if report.result is None:
        trouble = report.trouble
        if trouble is None:
            return report
        return replace(report, trouble=replace(trouble, message=trouble.message[:_REASON_CHARS], artifacts=()))
    ended = report.result.outcome
    logs = [item for item in report.result.artifacts if item.kind is ArtifactKind.LOG]
    result: AnyResult = StepResult(
        outcome=Outcome.FAILED if ended.is_success else ended,
        reason=f"the package makes too much to report: {why}",
        artifacts=tuple(logs[:_LOGS]),
    )
    return replace(report, result=result)
