"""Hosts as clients see them: their running steps, why some get no work, and draining and undraining."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from farm import wire
from farm.errors import NotFound, WrongState
from farm.fitness import Withholding, unfit_reason
from farm.model.outcome import Status
from farm.model.worker import HoldKind, HostHold, WorkerFacts, hold_of, host_of
from farm.store.store import Store


def held(store: Store) -> dict[str, HostHold]:
    """The hosts that get no work now, by HostHold.key."""
    now = datetime.now(UTC)
    return {host: hold for host, hold in store.holds().items() if hold.holds(now)}


def running_on(store: Store) -> dict[str, tuple[str, ...]]:
    """The labels of running attempts, keyed by worker, and again keyed by host."""
    found: dict[str, tuple[str, ...]] = {}
    with store.read_view() as view:
        for one in view.live():
            if one.worker and one.status is Status.RUNNING:
                for name in {one.worker, host_of(one.worker)}:
                    found[name] = (*found.get(name, ()), one.label)
    return found


def serving(workers: Sequence[WorkerFacts], holds: Mapping[str, HostHold]) -> dict[str, tuple[int, str]]:
    """By queue: how many slots get work, and why the others get none."""
    withholding = Withholding(holds, workers, speaks=wire.VERSION)
    found: dict[str, tuple[int, str]] = {}
    for worker in workers:
        for queue in worker.queues:
            slots, why = found.get(queue, (0, ""))
            kept = unfit_reason(worker, queue) or withholding.reason(worker, queue)
            found[queue] = (slots, why or kept) if kept else (slots + worker.slots, why)
    return found


def idle_reason(worker: WorkerFacts, holds: Mapping[str, HostHold]) -> str | None:
    """The reason why a worker gets no work, in few words: for a hold, its kind. None if it gets work."""
    if unfit := next((why for queue in worker.queues if (why := unfit_reason(worker, queue))), None):
        return unfit
    if worker.speaks != wire.VERSION:
        return f"speaks version {worker.speaks}, not {wire.VERSION}: restart it with this version"
    return next((hold.kind for queue in worker.queues if (hold := hold_of(worker.host, queue, holds))), None)


def drain(store: Store, host: str, known: Collection[str], *, by: str, reason: str, hands_back: bool) -> HostHold:
    """Raises NotFound for an unknown host without a hold."""
    names = {*known, *(hold.host for hold in store.holds().values())}
    if host not in names:
        there = ", ".join(sorted(names)) or "none"
        raise NotFound(f"no worker on host {host!r} was heard of; there are {there}; --force drains it all the same")
    hold = HostHold(
        host=host,
        kind=HoldKind.DRAINED,
        reason=reason or "no reason was given",
        by=by,
        at=datetime.now(UTC),
        hands_back=hands_back,
    )
    return store.hold(hold)


def undrain(store: Store, host: str) -> HostHold:
    """Undrain the host, and return the hold that it had. Raises WrongState without one."""
    holds = [hold for hold in held(store).values() if hold.host == host]
    if not holds or not store.release(host, datetime.now(UTC)):
        names = ", ".join(sorted({hold.host for hold in held(store).values()})) or "none"
        raise WrongState(f"host {host!r} is neither drained nor quarantined; those that are: {names}")
    return holds[0]
