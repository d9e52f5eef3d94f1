"""Planning, dispatching and delivering: which ready steps are sent, and how the commit of a transaction reaches Redis.

Not the choice itself (choose.py, plan.py), nor the Celery message (dispatch.py).
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime

import redis

from farm.errors import FarmNotRunning, Unforeseen, UnknownTarget
from farm.scheduler.choose import choose
from farm.scheduler.deliver import Delivery
from farm.scheduler.dispatch import Dispatcher
from farm.scheduler.guard import is_outage
from farm.scheduler.heads import Heads
from farm.scheduler.plan import Loads
from farm.scheduler.snapshot import Snapshot
from farm.scheduler.work import WorkMaker
from farm.steps.base import Order
from farm.steps.registry import find_step_type
from farm.store.read_view import Ready
from farm.store.scheduling import Committed, Pick
from farm.store.settling import Finding, Verdict
from farm.store.store import Store

_log = logging.getLogger(__name__)

_WORDS_CHARS = 500


class Sender:
    """For the scheduler's thread alone. Methods raise redis.RedisError, and FarmNotRunning while the database is
    away."""

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        *,
        maker: WorkMaker,
        delivery: Delivery,
        dispatcher: Dispatcher,
        heads: Heads,
        uploads_logs: bool,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._maker = maker
        self._delivery = delivery
        self._dispatcher = dispatcher
        self._heads = heads
        self._uploads_logs = uploads_logs
        self._loads = Loads()

    def plan(self, now: datetime) -> None:
        """Send the ready steps for which there is room."""
        with self._store.read_view() as view:
            live = view.live()
            self._snapshot.read_queues(live)
            weights = self._loads.weigh(live, now)
            chosen = choose(view, self._snapshot.queues, weights, now)
        if chosen:
            self._send(chosen, now)

    def deliver(self, committed: Committed, now: datetime) -> list[Order]:
        """Carry into Redis what SQL has committed. Returns the orders that are offered now."""
        self._heads.learn(committed.heads)
        for owner, used_s in committed.used_s.items():
            self._loads.add(owner, used_s, now)
        done = self._delivery.deliver(committed, self._snapshot.workers)
        if done.refused:
            self.deliver(self._store.judge(done.refused, now, self._snapshot.settle_policy()), now)
        if done.again:
            self._dispatcher.send(done.again)
        return done.offered

    def read_loads(self) -> None:
        """Read what owners used, as the leader before recorded it."""
        self._loads = Loads(self._store.loads())

    def record_loads(self, now: datetime) -> None:
        """Write what owners used to SQL, for the next leader."""
        self._store.note_loads(self._loads.all(now), now)

    def _send(self, chosen: Sequence[Ready], now: datetime) -> None:
        """Commit, offer, then send: a worker that claims a message before its offer is there is turned away."""
        picks = self._sendable(chosen, now)
        for committed in self._dispatched(picks, now):
            self._send_out(committed, now)

    def _dispatched(self, picks: Sequence[Pick], now: datetime) -> Iterator[Committed]:
        """Commit the picks in one transaction. If that fails because of one of them, commit each by itself, and end the
        build of the one that cannot be sent: no record in SQL may keep other builds from being sent."""
        if not picks:
            return
        try:
            yield self._store.dispatch(picks, now, with_logs=self._uploads_logs)
        except Exception as error:
            if is_outage(error):
                raise
            if len(picks) == 1:
                step = picks[0].ready
                _log.exception("A step of build %d cannot be sent", step.build_id, extra={"action": "unsendable"})
                words = f"{Unforeseen.code}: the step cannot be sent: {type(error).__name__}: {error}"
                self.deliver(self._store.refuse({step.step_id: words[:_WORDS_CHARS]}, now, {step.build_id}), now)
                return
            for pick in picks:
                yield from self._dispatched((pick,), now)

    def _send_out(self, committed: Committed, now: datetime) -> None:
        try:
            offered = self.deliver(committed, now)
            self._dispatcher.send(offered)
        except (redis.RedisError, FarmNotRunning):
            # Perhaps no worker ever gets these messages. The steps are ready again at once; if a message did get out,
            # its offer is withdrawn, or its attempt is stopped, as soon as Redis is back.
            verdicts = [Verdict(label=order.message.attempt, finding=Finding.UNSENT) for order in committed.orders]
            self._delivery.close_later(self._store.judge(verdicts, now, self._snapshot.settle_policy()).closes)
            raise

    def _sendable(self, chosen: Sequence[Ready], now: datetime) -> list[Pick]:
        """The chosen steps with their limits. A step whose target or step type no longer exists ends with a message."""
        picks, refused = [], {}
        for ready in chosen:
            if find_step_type(ready.kind) is None:
                refused[ready.step_id] = f"unknown-step: the module of step type {ready.kind} is not in FARM_EXTENSIONS"
                continue
            try:
                picks.append(self._maker.pick(ready))
            except UnknownTarget as error:
                refused[ready.step_id] = f"{error.code}: {error}"
        if refused:
            ids = {ready.build_id for ready in chosen if ready.step_id in refused}
            self.deliver(self._store.refuse(refused, now, ids), now)
        return picks
