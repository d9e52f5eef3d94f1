"""Makes the parts of the scheduler, and closes them in order."""

from dataclasses import dataclass

from farm.broker.control import Control
from farm.broker.leader import SchedulerLock
from farm.broker.leases import Leases
from farm.config import Settings
from farm.scheduler.admit import Admission
from farm.scheduler.deliver import Delivery
from farm.scheduler.dispatch import Dispatcher
from farm.scheduler.guard import Guard
from farm.scheduler.heads import Heads, open_heads
from farm.scheduler.hear import Settler
from farm.scheduler.held import HeldHosts
from farm.scheduler.keep_logs import LogKeeper
from farm.scheduler.reconcile import Reconciler
from farm.scheduler.send import Sender
from farm.scheduler.snapshot import Snapshot
from farm.scheduler.sweep import Sweeper
from farm.scheduler.work import WorkMaker
from farm.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Parts:
    """For the scheduler's thread alone."""

    store: Store
    leases: Leases
    control: Control
    lock: SchedulerLock
    guard: Guard
    admission: Admission
    heads: Heads
    delivery: Delivery
    dispatcher: Dispatcher
    hosts: HeldHosts
    snapshot: Snapshot
    sender: Sender
    settler: Settler
    reconciler: Reconciler
    log_keeper: LogKeeper
    sweeper: Sweeper

    def close(self) -> None:
        self.log_keeper.close()
        self.dispatcher.close()
        self.sweeper.close()
        self.lock.close()
        self.leases.close()
        self.control.close()
        self.store.close()


def open_parts(settings: Settings) -> Parts:
    """Creates the database, or migrates it, where that is necessary. Raises the errors of Store.open."""
    store = Store.open(settings.database, create=True)
    leases = Leases(settings)
    guard = Guard()
    admission = Admission(store, leases, guard)
    heads = open_heads(settings, store)
    maker = WorkMaker(settings, heads, store.surroundings)
    delivery = Delivery(leases, maker)
    dispatcher = Dispatcher(settings)
    hosts = HeldHosts(store, leases)
    log_keeper = LogKeeper(settings, leases, store)
    snapshot = Snapshot(settings, store, leases, hosts)
    sender = Sender(
        store,
        snapshot,
        maker=maker,
        delivery=delivery,
        dispatcher=dispatcher,
        heads=heads,
        uploads_logs=settings.uploads_logs,
    )
    return Parts(
        store=store,
        leases=leases,
        control=Control(settings),
        lock=SchedulerLock(settings),
        guard=guard,
        admission=admission,
        heads=heads,
        delivery=delivery,
        dispatcher=dispatcher,
        hosts=hosts,
        snapshot=snapshot,
        sender=sender,
        settler=Settler(
            store,
            leases,
            admission=admission,
            snapshot=snapshot,
            sender=sender,
            hosts=hosts,
            log_keeper=log_keeper,
            guard=guard,
        ),
        reconciler=Reconciler(claim_s=settings.claim_s, lease_s=settings.lease_s),
        log_keeper=log_keeper,
        sweeper=Sweeper(settings, leases),
    )
