"""Tells the reports of the holders of attempts from those of other senders, before they are read.

A report may have megabytes. Anyone with the account of a role can write reports of its attempts, so the scheduler
reads only the head of one whose token is not the holder's. Settling checks the token again, in its transaction.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from hmac import compare_digest

from farm import wire
from farm.broker.leases import Leases
from farm.model.tally import Tally
from farm.model.worker import Holder
from farm.scheduler.guard import Guard, is_outage
from farm.store.store import Store

_log = logging.getLogger(__name__)


class Admission:
    """For the scheduler's thread alone."""

    def __init__(self, store: Store, leases: Leases, guard: Guard) -> None:
        self._store = store
        self._leases = leases
        self._guard = guard
        self._late = Tally()
        self._asked: dict[str, Holder | None] = {}

    def admit(self, heads: Sequence[wire.ReportHead]) -> Collection[wire.ReportHead]:
        """The heads of reports that are from the holders of live attempts.

        Raises redis.RedisError, and FarmNotRunning while the database is away.
        """
        self._asked = {}
        try:
            known = self._holders({head.attempt for head in heads})
        except Exception as error:
            if is_outage(error):
                raise
            self._guard.note("admit", error)
            return frozenset(heads)
        admitted = frozenset(head for head in heads if _is_holders(head, known))
        for head in heads:
            if head not in admitted and (count := self._late.due(head.attempt)):
                extra = {"action": "late-report", "attempt": head.attempt, "count": count}
                _log.info("Dropped a report of %s: it is late, or not its holder's", head.attempt, extra=extra)
        return admitted

    def leases(self, labels: Iterable[str]) -> dict[str, Holder]:
        """The holders of these attempts in Redis, as they were when `admit` was called last. An attempt that it did not
        ask Redis about, or that has none, is left out: SQL knows its holder.

        Raises redis.RedisError.
        """
        wanted = list(labels)
        if missing := [label for label in wanted if label not in self._asked]:
            found = self._leases.holders(missing)
            self._asked |= {label: found.get(label) for label in missing}
        return {label: lease for label in wanted if (lease := self._asked[label]) is not None}

    def _holders(self, labels: Collection[str]) -> dict[str, str]:
        """By label, the digests of these attempts' holders. The holder in SQL counts, and else that of the lease."""
        with self._store.read_view() as view:
            known = view.holders(labels)
        leases = self._leases.holders(label for label, digest in known.items() if not digest)
        self._asked = dict.fromkeys(known) | leases
        return known | {label: lease.digest for label, lease in leases.items()}


def _is_holders(head: wire.ReportHead, known: Mapping[str, str]) -> bool:
    digest = known.get(head.attempt, "")
    return bool(digest) and compare_digest(digest.encode(), wire.digest_of(head.token).encode())
