"""Carries into Redis what SQL has committed: leases closed, work offered, events told. Decides nothing."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from farm import wire
from farm.broker import bounds
from farm.broker.leases import EncodedWork, Leases
from farm.errors import BadRequest, BadTarget, FarmError, FarmNotRunning
from farm.model.tally import Tally
from farm.model.work import AnyWork
from farm.model.worker import WorkerFacts
from farm.scheduler.work import WorkMaker
from farm.steps.base import Order
from farm.store.scheduling import Committed
from farm.store.settling import Finding, Verdict

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """`offered` are the orders that are offered now. Workers dropped the messages of the orders in `again`, which came
    too early. `refused` are verdicts on orders for which no work can be made."""

    offered: list[Order]
    again: list[Order]
    refused: list[Verdict]


class Delivery:
    """For the scheduler's thread alone."""

    def __init__(self, leases: Leases, maker: WorkMaker) -> None:
        self._leases = leases
        self._maker = maker
        #: Attempts that are over in SQL, while Redis may still have their leases and offers.
        self._unclosed: list[str] = []
        self._late = Tally()

    def deliver(self, committed: Committed, workers: Sequence[WorkerFacts]) -> Delivered:
        """Offer the work of the orders.

        Raises redis.RedisError, and FarmNotRunning while the database is away; the attempts that this call should have
        closed are then closed by the next one.
        """
        for label in committed.late:
            if count := self._late.due(label):
                extra = {"action": "late-report", "attempt": label, "count": count}
                _log.info("Dropped a late report of %s", label, extra=extra)
        if _log.isEnabledFor(logging.DEBUG):
            for event in committed.events:
                _log.debug("%s", event, extra={"action": "event"})
        self._unclosed += committed.closes
        works, offered, refused = self._make(committed.orders, workers)
        missed: frozenset[str] = frozenset()
        if self._unclosed or works or committed.events:
            expects = [order.following.attempt for order in offered if order.following is not None]
            missed = self._leases.hand_on(closes=self._unclosed, works=works, expects=expects, events=committed.events)
            self._unclosed = []
        again = [order for order in offered if order.message.attempt in missed]
        return Delivered(offered=offered, again=again, refused=refused)

    def close_later(self, labels: Iterable[str]) -> None:
        """Close these attempts, which are over, once Redis answers again."""
        self._unclosed += labels

    def close_rest(self) -> None:
        """Close the attempts that could not be closed before. Raises redis.RedisError."""
        if self._unclosed:
            self._leases.close_attempts(self._unclosed)
            self._unclosed = []

    def _make(
        self, orders: Sequence[Order], workers: Sequence[WorkerFacts]
    ) -> tuple[list[EncodedWork], list[Order], list[Verdict]]:
        works, offered, refused = [], [], []
        for order in orders:
            try:
                works.append(_encoded(self._maker.make(order, workers)))
                offered.append(order)
            except FarmNotRunning:
                raise
            except FarmError as error:
                message = f"{error.code}: {error}"
                # A person soon corrects a target's file; the record of a build stays as it is.
                is_passing = error.retryable or isinstance(error, BadTarget)
                finding = Finding.DEFERRED if is_passing else Finding.REFUSED
                refused.append(Verdict(label=order.message.attempt, finding=finding, message=message))
        return works, offered, refused


def _encoded(work: AnyWork) -> EncodedWork:
    """Raises BadRequest for work that is too long for Redis: it would end the connection, and with it the pass."""
    document = wire.encode_work(work)
    if len(document) > bounds.WORK_BYTES:
        raise BadRequest(
            f"the work of {work.attempt} has {len(document)} bytes, and at most {bounds.WORK_BYTES} are offered; "
            "build with fewer options, or a package that makes fewer files"
        )
    return EncodedWork(attempt=work.attempt, document=document)
