"""Checks the notices of workers and answers them.

Every account that may report can write any notice, so a notice counts only with the token of the attempt's holder. SQL,
or else the lease, knows the holder.

A notice with the wrong token changes nothing about the attempt: a worker that asks for another worker's attempt is
turned away, and no other worker is. A worker that refuses an attempt has claimed nothing and has no token; its notice
only makes the scheduler find out some seconds earlier.
"""

import logging
import time
from collections.abc import Sequence

from farm.broker.leases import Leases
from farm.model.label import AttemptLabel
from farm.model.tally import Tally
from farm.steps.registry import queue_of
from farm.store.settling import Finding, Verdict
from farm.store.store import Store
from farm.wire import Notice, NoticeKind, digest_of

_log = logging.getLogger(__name__)

#: The shortest time in which an unclaimed step is sent again twice because of refusals. It is long enough for a willing
#: worker to claim the step, and keeps the number of the step's attempts low.
SEND_AGAIN_EVERY_S = 5.0
#: How many refusals of a step count. Later ones are passed over: the reconciler then finds the step some seconds later,
#: and counts how often no worker claimed it.
_REFUSALS = 10
_REMEMBERED = 10_000  # steps


class Notices:
    """For the scheduler's thread alone."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._sent_again: dict[str, float] = {}  # by step: when
        self._refusals: dict[str, int] = {}
        self._said = Tally()

    def process_notices(self, notices: Sequence[Notice]) -> list[Verdict]:
        """Restore or refuse the lease for each RESUME notice; return a verdict for each other notice that counts."""
        notices = [one for one in notices if queue_of(one.attempt) is not None]
        self._answer_resumes([one for one in notices if one.notice is NoticeKind.RESUME])
        verdicts = self._verdicts([one for one in notices if one.notice is not NoticeKind.RESUME])
        for verdict in verdicts:
            extra = {"action": verdict.finding.value, "attempt": verdict.label}
            if count := self._said.due(verdict.label.rpartition(".")[0]):
                words = "A worker says that attempt %s is %s (%d such notices): %.200a"
                _log.info(words, verdict.label, verdict.finding.value, count, verdict.message, extra=extra)
        return verdicts

    def _answer_resumes(self, asking: Sequence[Notice]) -> None:
        if not asking:
            return
        held = self._store.held([notice.attempt for notice in asking])
        refused, following = [], []
        for notice in asking:
            digest = digest_of(notice.token)
            found = held.get(notice.attempt)
            if found is not None and found.holder.digest == digest:
                self._leases.restore(notice.attempt, found.holder)
                following += [found.following] if found.following is not None else []
            else:
                refused.append((notice.attempt, digest))
        self._leases.hand_on(expects=following)  # Redis forgot these attempts too
        self._leases.turn_away(refused)
        extra = {"action": "resume"}
        restored = len(asking) - len(refused)
        _log.info("Restored %d of %d leases that Redis had lost", restored, len(asking), extra=extra)

    def _verdicts(self, notices: Sequence[Notice]) -> list[Verdict]:
        """A verdict on an attempt that a worker holds counts only with the holder's token."""
        states = self._leases.states([one.attempt for one in notices]) if notices else {}
        verdicts = []
        for one in notices:
            state = states[one.attempt]
            if not self._may_send_again(one.attempt):
                continue
            if state.holder is not None or not state.is_offered:
                finding, digest = Finding.HANDED_BACK, digest_of(one.token)
            elif self._is_refused_too_often(one.attempt):
                continue
            else:
                finding, digest = Finding.UNSENT, None
            verdict = Verdict(label=one.attempt, finding=finding, message=one.reason, digest=digest, lease=state.holder)
            verdicts.append(verdict)
        return verdicts

    def _may_send_again(self, label: str) -> bool:
        now, step = time.monotonic(), AttemptLabel.parse(label).step
        if now - self._sent_again.get(step, -SEND_AGAIN_EVERY_S) < SEND_AGAIN_EVERY_S:
            return False
        if len(self._sent_again) >= _REMEMBERED:
            self._sent_again = {key: at for key, at in self._sent_again.items() if now - at < SEND_AGAIN_EVERY_S}
        if len(self._sent_again) >= _REMEMBERED:
            return False  # as without a notice: the reconciler finds the attempt some seconds later
        self._sent_again[step] = now
        return True

    def _is_refused_too_often(self, label: str) -> bool:
        step = AttemptLabel.parse(label).step
        count = self._refusals.pop(step, 0) + 1
        while len(self._refusals) >= _REMEMBERED:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[step] = count
        return count > _REFUSALS
