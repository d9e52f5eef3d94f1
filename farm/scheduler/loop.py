"""The scheduler's loop: hear, settle, hand on, plan, send; and once a second look whether everything is still so.

Every decision is elsewhere: what a report means in farm.store, what goes out in plan.py, what is lost in
reconcile.py. What is kept in memory here may be lost at any moment.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import redis

from farm import queues, wire
from farm.broker.control import Control, Inbox
from farm.broker.leader import HOLD_S, Lock, SchedulerLock
from farm.broker.leases import Leases
from farm.config import Settings
from farm.errors import FarmError, FarmNotRunning, UnknownTarget
from farm.model.arch import Arch
from farm.model.build import StepKind
from farm.model.outcome import Status
from farm.model.worker import WorkerFacts
from farm.repositories import open_repositories
from farm.scheduler.deliver import Delivery
from farm.scheduler.dispatch import Dispatcher
from farm.scheduler.guard import Guard, is_outage
from farm.scheduler.heads import Heads
from farm.scheduler.held import HeldHosts
from farm.scheduler.notices import Notices
from farm.scheduler.plan import Loads, QueueState, ask_order, native_arches, plan, queue_states
from farm.scheduler.reconcile import Reconciler
from farm.scheduler.salvage import Salvager
from farm.scheduler.sweep import Sweeper
from farm.scheduler.work import WorkMaker
from farm.state.changes import build_of
from farm.state.policy import RetryPolicy
from farm.store.heads import Head
from farm.store.orders import Order
from farm.store.scheduling import Committed, Live, Pick, ReadView, Ready
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from farm.store.waiting import QueueSeen

_log = logging.getLogger(__name__)

_LISTEN_S = 0.5
_GATHER_S = 0.03
_TICK_S = 1.0
_LOADS_EVERY_S = 30.0
_PROMOTE_AT_ONCE = 200
_ASK_S = 5.0
_SWEEP_EVERY_S = 60.0
_SILENT_AT_START = 1000  # attempts whose logs the scheduler before may not have got to keep
_GROUPS_AT_ONCE = 500
_BACKOFF_S = (0.2, 2.0)  # first and longest pause while the broker or the database is away
_FED = queues.WORKER_ROLES


class Scheduler:
    """Use `run`. Everything else is its own."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store.open(settings.database, create=True)
        self._control = Control(settings)
        self._leases = Leases(settings)
        self._lock = SchedulerLock(settings)
        self._dispatcher = Dispatcher(settings.broker)
        self._heads = Heads(open_repositories(_hasty(settings)), self._note_head)
        self._maker = WorkMaker(settings, self._heads)
        self._delivery = Delivery(self._leases, self._maker)
        self._reconciler = Reconciler(claim_s=settings.claim_s, lease_s=settings.lease_s)
        self._notices = Notices(self._store, self._leases)
        self._sweeper = Sweeper(settings, self._leases)
        self._salvager = Salvager(settings, self._leases, self._store)
        self._hosts = HeldHosts(self._store, self._leases)
        self._guard = Guard()
        self._loads = Loads()
        self._has_loads = False
        self._policy = RetryPolicy(
            max_troubles=settings.max_troubles, delay_s=settings.retry_delay_s, max_deaths=settings.max_deaths
        )
        self._uploads_logs = settings.uploads_logs
        self._workers: tuple[WorkerFacts, ...] = ()
        self._states: dict[str, QueueState] = {}
        self._seen: dict[str, QueueSeen] = {}
        self._next_tick = self._renew_at = 0.0
        self._next_sweep = time.monotonic() + _SWEEP_EVERY_S
        self._next_loads = time.monotonic() + _LOADS_EVERY_S
        self._heard_at = 0.0
        self._pass_s = 0.0
        self._is_recovered = False
        self._broker_failed_at = -math.inf

    def run(self, stop: threading.Event) -> None:
        """Schedule until `stop` is set; then settle what has been reported, and return."""
        pause_s, is_away = _BACKOFF_S[0], False
        try:
            while not stop.is_set():
                try:
                    self._pass(stop)
                except Exception as error:
                    if not is_outage(error):
                        # Nothing that goes wrong in one pass, whoever is behind it, ends the scheduler.
                        self._guard.note("pass", error)
                        stop.wait(_BACKOFF_S[0])
                        continue
                    if not is_away:
                        _log.warning("Waiting for broker and database: %s", error, extra={"action": "outage"})
                    is_away, self._is_recovered = True, False
                    if isinstance(error, redis.RedisError):
                        self._broker_failed_at = time.monotonic()
                    stop.wait(pause_s)
                    pause_s = min(pause_s * 2, _BACKOFF_S[1])
                else:
                    if is_away:
                        _log.info("Broker and database are back", extra={"action": "outage-over"})
                    pause_s, is_away = _BACKOFF_S[0], False
        finally:
            self._finish()

    # --- one pass -----------------------------------------------------------------------------------------------

    def _pass(self, stop: threading.Event) -> None:
        if not self._is_recovered:
            self._become_the_one(stop)
            return
        self._gather(stop)
        wait_s = max(0.01, min(_LISTEN_S, self._next_tick - time.monotonic()))
        inbox = self._control.receive(timeout_s=wait_s)
        began_at, now = time.monotonic(), datetime.now(UTC)
        if began_at > self._renew_at:
            # Before anything is changed: if this process was stopped for a while, another may have taken over.
            self._take()
        self._settle(inbox, now)
        is_tick = time.monotonic() >= self._next_tick
        if is_tick and (not inbox.has_more or self._is_tick_overdue()):
            self._tick(now)
        if inbox.is_woken:  # by a client that may have cancelled a build, rolled a repository back, or drained a host
            self._guard.run("close", self._close_cancelled)
            self._guard.run("heads", lambda: self._heads.read(self._store.heads()))
            self._guard.run("hosts", lambda: self._look_at_hosts(now))
        if is_tick or inbox.is_woken or inbox.notices or any(_frees_a_slot(report) for report in inbox.reports):
            self._guard.run("plan", lambda: self._plan(now))
        if inbox.documents:
            self._heard_at = time.monotonic()
            self._pass_s = self._heard_at - began_at

    def _gather(self, stop: threading.Event) -> None:
        """Let reports gather while they come thick and fast: a pass costs little more for many than for one, and the
        builds want the processor. Passes take no more than a third of the time; a report that comes alone never
        waits for this."""
        pause_s = min(_GATHER_S, 2 * self._pass_s)
        since_s = time.monotonic() - self._heard_at
        if since_s < pause_s:
            stop.wait(pause_s - since_s)

    def _become_the_one(self, stop: threading.Event) -> None:
        """Wait until no other scheduler is at work; then take over what it had heard and not settled."""
        taken = self._lock.take()
        if taken is Lock.OTHERS:
            _log.info("Another scheduler is at work; waiting for it to end", extra={"action": "stand-by"})
            while (taken := self._lock.take()) is Lock.OTHERS:
                if stop.wait(_TICK_S):
                    return
            self._has_loads = False
        if not self._has_loads:  # as whoever scheduled before left them; after an outage our own are newer
            self._loads, self._has_loads = Loads(self._store.loads()), True
        self._leases.load_scripts()
        self._control.recover()
        # Where the broker was there all the time, its leases are what they were: a dead worker need not be waited for
        # once more because a scheduler died, or the database was away.
        now = time.monotonic()
        there_s = min(self._leases.uptime_s(), now - self._broker_failed_at)
        self._reconciler.forget(now, heard_for_s=0.0 if taken is Lock.EMPTIED else there_s)
        self._salvager.note(self._store.silent(most=_SILENT_AT_START))
        self._hosts.forget()
        self._next_tick = 0.0
        self._is_recovered = True
        _log.info("Scheduling", extra={"action": "start"})

    def _settle(self, inbox: Inbox, now: datetime) -> None:
        if inbox.reports:
            heard = self._settle_all(inbox.reports, now)
            for report, worker in heard:
                trouble = report.trouble.message if report.trouble else None
                remote = report.trouble.remote if report.trouble else None
                self._hosts.note(worker, report.attempt, now, trouble=trouble, remote=remote)
            silent = (one.attempt for one, _ in heard if one.trouble and not one.trouble.artifacts)
            self._salvager.note(silent)
        if inbox.notices:
            verdicts: list[Verdict] = self._guard.split("notices", inbox.notices, self._notices.process_notices)
            self._judge(verdicts, now)
            if verdicts:  # nor is whoever refused it to be given the next one
                self._guard.run("workers", self._look_at_workers)
                self._guard.run("hosts", lambda: self._look_at_hosts(now))
        if inbox.documents:
            self._control.acknowledge()

    def _settle_all(self, reports: Sequence[wire.AnyReport], now: datetime) -> Sequence[tuple[wire.AnyReport, str]]:
        """Returns the reports that counted, each with the worker that it is from."""
        try:
            leases = self._leases.holders(report.attempt for report in reports)
            done = self._store.settle(reports, now, self._settle_policy(), leases)
            self._deliver(done, now)
        except (redis.RedisError, FarmError):
            raise
        except Exception:
            # One report must not keep the others from being settled, whatever is wrong with it: its attempt is lost
            # when its lease ends, and the scheduler lives on.
            if len(reports) == 1:
                extra = {"action": "bad-report", "attempt": reports[0].attempt}
                _log.exception("Dropped a report of %s that cannot be settled", reports[0].attempt, extra=extra)
                return ()
            return [heard for report in reports for heard in self._settle_all((report,), now)]
        return done.heard

    def _judge(self, verdicts: Sequence[Verdict], now: datetime) -> None:
        if verdicts:
            self._guard.split("judge", verdicts, lambda some: self._judge_some(some, now))
            self._salvager.note(one.label for one in verdicts if one.finding is not Finding.RUNNING)

    def _judge_some(self, verdicts: Sequence[Verdict], now: datetime) -> Sequence[Verdict]:
        self._deliver(self._store.judge(verdicts, now, self._settle_policy()), now)
        return verdicts

    def _look_at_workers(self) -> None:
        self._leases.prune_workers()
        self._workers = self._leases.workers()

    def _look_at_hosts(self, now: datetime) -> None:
        self._judge(self._hosts.look(self._workers, now), now)

    def _plan(self, now: datetime) -> None:
        with self._store.read_view() as view:
            live = view.live()
            self._look_at_queues(live)
            weights = self._loads.weigh(live, now)
            ready: list[Ready] = []
            for queue, groups in view.groups(most=_GROUPS_AT_ONCE).items():
                state = self._states.get(queue)
                if state is not None and state.room:
                    ready += _enough(view, state, ask_order(groups, weights, state.room))
        if ready:
            self._send(plan(ready, self._states, weights, now), now)

    def _send(self, picks: Sequence[Ready], now: datetime) -> None:
        """Commit, offer, then send: a message that is claimed before its offer is there would be turned away."""
        sendable = self._sendable(picks, now)
        if not sendable:
            return
        done = self._store.dispatch(sendable, now, with_logs=self._uploads_logs)
        try:
            offered = self._deliver(done, now)
            self._dispatcher.send(offered)
        except (redis.RedisError, FarmNotRunning):
            # Nobody may ever hear of these. They are ready again at once; should a message have got out, it finds its
            # offer withdrawn, or is stopped, as soon as Redis is back.
            verdicts = [Verdict(label=order.message.attempt, finding=Finding.UNSENT) for order in done.orders]
            self._delivery.close_later(self._store.judge(verdicts, now, self._settle_policy()).closes)
            raise

    def _sendable(self, chosen: Sequence[Ready], now: datetime) -> list[Pick]:
        """The chosen steps with their limits, without those whose target is gone: they end, with its message."""
        picks, refused = [], {}
        for ready in chosen:
            try:
                picks.append(self._maker.pick(ready))
            except UnknownTarget as error:
                refused[ready.step_id] = f"{error.code}: {error}"
        if refused:
            ids = {ready.build_id for ready in chosen if ready.step_id in refused}
            self._deliver(self._store.refuse(refused, now, ids), now)
        return picks

    def _deliver(self, done: Committed, now: datetime) -> list[Order]:
        """Carry into Redis what SQL has committed. Returns the orders that are offered now."""
        self._heads.learn(done.heads)
        for owner, used_s in done.used_s.items():
            self._loads.add(owner, used_s, now)
        offered, refused = self._delivery.deliver(done, self._workers)
        if refused:
            self._deliver(self._store.judge(refused, now, self._settle_policy()), now)
        return offered

    def _take(self) -> None:
        """Go on being the one. Raises FarmNotRunning, with what was heard left to the other, when it is another."""
        asked_at = time.monotonic()
        match self._lock.take():
            case Lock.OTHERS:
                self._is_recovered = False
                self._control.recover()
                raise FarmNotRunning("another scheduler has taken over")
            case Lock.EMPTIED:
                _log.warning("Redis was emptied; going on from SQL", extra={"action": "emptied"})
                self._reconciler.forget(time.monotonic())
                self._hosts.forget()
            case Lock.HELD:
                pass
        self._renew_at = asked_at + HOLD_S / 2

    # --- once a second ------------------------------------------------------------------------------------------

    def _tick(self, now: datetime) -> None:
        self._next_tick = time.monotonic() + _TICK_S
        self._take()
        jobs: dict[str, Callable[[], object]] = {
            "scripts": self._leases.load_scripts,
            "close-rest": self._delivery.close_rest,
            "workers": self._look_at_workers,
            "hosts": lambda: self._look_at_hosts(now),
            "heads": lambda: self._heads.read(self._store.heads()),
            "close": self._close_cancelled,
            "promote": lambda: self._deliver(self._store.promote_due(now, most=_PROMOTE_AT_ONCE), now),
            "reconcile": lambda: self._reconcile(now),
        }
        if self._next_tick > self._next_sweep:
            self._next_sweep = self._next_tick + _SWEEP_EVERY_S
            jobs["sweep"] = lambda: self._sweeper.sweep(self._live_labels)
        if self._next_tick > self._next_loads:
            self._next_loads = self._next_tick + _LOADS_EVERY_S
            jobs["loads"] = lambda: self._store.note_loads(self._loads.all(now), now)
        for name, job in jobs.items():
            self._guard.run(name, job)

    def _is_tick_overdue(self) -> bool:
        """A sender that keeps its list full must not keep the scheduler from its other jobs."""
        return time.monotonic() > self._next_tick + _TICK_S

    def _close_cancelled(self) -> None:
        """What people cancelled in SQL ends in Redis too: what runs is stopped, and whoever waits is told."""
        if labels := self._store.closing():
            builds = sorted({build for label in labels if (build := build_of(label)) is not None})
            events = [{"build": build, "step": None, "status": Status.FINISHED} for build in builds]
            self._leases.hand_on(closes=labels, events=events)
            self._store.closed(labels)
            self._salvager.note(labels)

    def _reconcile(self, now: datetime) -> None:
        with self._store.read_view() as view:
            live = view.live()
        self._look_at_queues(live)
        self._guard.run("queues", self._note_queues)
        if not live:
            return
        labels = [one.label for one in live if one.offered_at is not None]
        waiting = {one.queue for one in live if one.offered_at is not None and one.status is Status.DISPATCHED}
        # Messages before leases: one that is taken in between is found claimed.
        messages = self._leases.unclaimed(sorted(waiting))
        states = self._leases.states(labels)
        verdicts = self._reconciler.examine(live, states, self._states, time.monotonic(), messages=messages)
        if not verdicts:
            return
        for verdict in verdicts:
            if verdict.finding is not Finding.RUNNING:
                extra = {"action": verdict.finding.value, "attempt": verdict.label}
                _log.warning("Attempt %s is %s", verdict.label, verdict.finding.value, extra=extra)
        workers = {one.label: one.worker for one in live if one.status is Status.RUNNING}
        self._judge(verdicts, now)
        for verdict in verdicts:
            if verdict.finding is Finding.LOST:
                self._hosts.note(workers.get(verdict.label) or "", verdict.label, now, trouble="worker-lost")

    def _live_labels(self) -> frozenset[str]:
        with self._store.read_view() as view:
            return frozenset(one.label for one in view.live())

    def _look_at_queues(self, live: Sequence[Live]) -> None:
        self._states = queue_states(_FED, self._workers, live, held=self._hosts.held(datetime.now(UTC)))

    def _note_head(self, path: str, head: Head, instead_of: Head | None) -> Head:
        return self._store.note_head(path, head, instead_of=instead_of)

    def _note_queues(self) -> None:
        """For people who ask what they wait for; written when it changed."""
        seen = {
            name: QueueSeen(slots=state.slots, busy=state.slots - state.free_slots, note=state.note)
            for name, state in self._states.items()
        }
        if seen != self._seen:
            self._store.note_queues(seen)
            self._seen = seen

    def _settle_policy(self) -> SettlePolicy:
        build_queues = {arch: state for arch in Arch if (state := self._states.get(queues.build_queue(arch)))}
        return SettlePolicy(
            retry=self._policy,
            native=native_arches(self._workers, build_queues),
            uploads_logs=self._uploads_logs,
        )

    # --- the end ------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """What has been reported is settled; nothing new is sent."""
        try:
            if self._is_recovered:
                self._settle_the_rest()
            self._lock.release()
        except (redis.RedisError, FarmNotRunning) as error:
            _log.warning("Ended without settling everything: %s", error, extra={"action": "stop"})
        finally:
            self._salvager.close()
            self._dispatcher.close()
            self._sweeper.close()
            self._lock.close()
            self._leases.close()
            self._control.close()
            self._store.close()
        _log.info("Ended", extra={"action": "stop"})

    def _settle_the_rest(self) -> None:
        self._take()  # should this process have been stopped for a while, it is another's to settle
        inbox = None
        while inbox is None or inbox.documents:
            inbox = self._control.receive(timeout_s=0.05)
            self._settle(inbox, datetime.now(UTC))
        now = datetime.now(UTC)
        self._store.note_loads(self._loads.all(now), now)


def _hasty(settings: Settings) -> Settings:
    """The scheduler does not wait for a Pulp that is away: the step that needs it does."""
    return replace(settings, pulp_request_s=min(settings.pulp_request_s, _ASK_S), pulp_retry_s=0.0)


def _enough(view: ReadView, queue: QueueState, pairs: Iterable[tuple[int, str]]) -> list[Ready]:
    """As much ready work as there is room for, of those whose turn it is."""
    found: list[Ready] = []
    for priority, owner in pairs:
        if len(found) >= queue.room and found[-1].priority > priority:
            break
        found += view.ready(queue.name, priority, owner, most=queue.room)
    return found


def _frees_a_slot(report: wire.AnyReport) -> bool:
    """A fetch that went well hands its place in the queue to the srpm step after it: nothing is to be planned."""
    return report.kind is not StepKind.FETCH or report.result is None or not report.result.outcome.is_success
