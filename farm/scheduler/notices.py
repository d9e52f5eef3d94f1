"""What workers say of attempts beside their reports, and what follows from it. SQL knows whose each attempt is."""

import logging
from collections.abc import Sequence

from farm.leases import Leases
from farm.store.settling import Finding, Verdict
from farm.store.store import Store
from farm.wire import Notice, NoticeKind

_log = logging.getLogger(__name__)

_FINDINGS = {NoticeKind.REFUSED: Finding.UNSENT, NoticeKind.HANDED_BACK: Finding.HANDED_BACK}


def heed(notices: Sequence[Notice], store: Store, leases: Leases) -> list[Verdict]:
    """Answers those who ask for their leases; returns what is to be judged of the others."""
    _answer([notice for notice in notices if notice.notice is NoticeKind.RESUME], store, leases)
    verdicts = [
        Verdict(label=one.attempt, finding=_FINDINGS[one.notice], message=one.reason, token=one.token)
        for one in notices
        if one.notice in _FINDINGS
    ]
    for verdict in verdicts:
        extra = {"action": verdict.finding.value, "attempt": verdict.label}
        _log.info("Attempt %s is %s: %s", verdict.label, verdict.finding.value, verdict.message, extra=extra)
    return verdicts


def _answer(asking: Sequence[Notice], store: Store, leases: Leases) -> None:
    if not asking:
        return
    tokens = store.tokens([notice.attempt for notice in asking])
    lost = []
    for notice in asking:
        if tokens.get(notice.attempt) == notice.token:
            leases.restore(notice.attempt, notice.token, notice.worker)
        else:
            lost.append(notice.attempt)
    leases.close_attempts(lost)
    extra = {"action": "resume"}
    _log.info("Of %d attempts that Redis forgot, %d go on", len(asking), len(asking) - len(lost), extra=extra)
