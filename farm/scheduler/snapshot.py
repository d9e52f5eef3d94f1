"""The workers and queues as the scheduler saw them last. Every decision of one pass is made from the same snapshot."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from farm import queues
from farm.broker.leases import Leases
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.worker import WorkerFacts
from farm.scheduler.held import HeldHosts
from farm.scheduler.plan import QueueState, native_arches, queue_states
from farm.state.policy import RetryPolicy
from farm.store.read_view import Live
from farm.store.settling import SettlePolicy
from farm.store.store import Store
from farm.store.waiting import QueueSeen


class Snapshot:
    """For the scheduler's thread alone. Reading raises redis.RedisError, and FarmNotRunning while the database is
    away."""

    def __init__(self, settings: Settings, store: Store, leases: Leases, hosts: HeldHosts) -> None:
        self._store = store
        self._leases = leases
        self._hosts = hosts
        self._retry = RetryPolicy(
            max_troubles=settings.max_troubles, delay_s=settings.retry_delay_s, max_deaths=settings.max_deaths
        )
        self._uploads_logs = settings.uploads_logs
        self._workers: tuple[WorkerFacts, ...] = ()
        self._queues: dict[str, QueueState] = {}
        self._recorded: dict[str, QueueSeen] = {}

    @property
    def workers(self) -> Sequence[WorkerFacts]:
        return self._workers

    @property
    def queues(self) -> Mapping[str, QueueState]:
        return self._queues

    def read_workers(self) -> None:
        self._leases.prune_workers()
        self._workers = self._leases.workers()

    def read_queues(self, live: Sequence[Live]) -> None:
        """Count slots and work of each queue again; `live` are all attempts that are not finished."""
        held = self._hosts.held(datetime.now(UTC))
        self._queues = queue_states(queues.WORKER_ROLES, self._workers, live, held=held)

    def record_queues(self) -> None:
        """Write the queues to SQL if they changed, for people who ask what a step waits for."""
        seen = {
            name: QueueSeen(slots=state.slots, busy=state.slots - state.free_slots, note=state.note)
            for name, state in self._queues.items()
        }
        if seen != self._recorded:
            self._store.note_queues(seen)
            self._recorded = seen

    def settle_policy(self) -> SettlePolicy:
        build_queues = {arch: state for arch in Arch if (state := self._queues.get(queues.build_queue(arch)))}
        return SettlePolicy(
            retry=self._retry,
            native=native_arches(self._workers, build_queues),
            uploads_logs=self._uploads_logs,
        )
