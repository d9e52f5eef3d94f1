"""Announces this worker in the register every 10 s, with what it can do, until it stops."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from farm import wire
from farm.broker.bounds import NAME_CHARS
from farm.broker.leases import Leases
from farm.config import Settings
from farm.model.version import VERSION
from farm.model.worker import WorkerFacts, host_of
from farm.steps.registry import needs_root
from workers.formats.registry import fitness
from workers.isolation.admission import disk_reason
from workers.isolation.facts import host_facts
from workers.roots.stacked import shed_layers

_log = logging.getLogger(__name__)
_EVERY_S = 10.0
_LOOK_EVERY_S = 1.0


class Register:
    """Announces from a thread of its own, since the worker's main loop must not wait for anything."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._leases = Leases(settings)
        self._done = threading.Event()
        self._name = ""
        self._queues: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Celery's node name; empty until the worker has started."""
        return self._name

    def start(
        self,
        *,
        name: str,
        queues: Sequence[str],
        slots: int,
        is_consuming: Callable[[str], bool] = lambda _: True,
        consume: Callable[[str, bool], None] = lambda _, __: None,
        check: Callable[[], None] = lambda: None,
        stop_for: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        """`is_consuming` says whether the worker takes messages from a queue at the moment; `consume` makes the worker
        start or stop this. `check` raises an error that a process of the pool met; `stop_for` is called with each
        error and returns True when the worker stops for it."""
        self._name, self._queues = name, tuple(queues)
        started_at = datetime.now(UTC)

        def announce() -> None:
            due_at, said = 0.0, None
            while not self._done.is_set():
                try:
                    check()
                    self._obey(is_consuming, consume)
                    # A Redis that lost its data gets the entry back before the scheduler misses this worker.
                    consumes = tuple(queue for queue in queues if is_consuming(queue))
                    is_due = time.monotonic() >= due_at or consumes != said
                    if is_due or not self._leases.is_announced(name, self._queues):
                        self._leases.announce(self._facts(queues, slots, started_at, consumes))
                        due_at, said = time.monotonic() + _EVERY_S, consumes
                except Exception as error:  # any, not Redis's alone: the worker is known as long as this thread lives
                    if stop_for(error):
                        return
                    _log.warning("Could not register: %s", error, extra={"action": "register"})
                self._done.wait(_LOOK_EVERY_S)

        threading.Thread(target=announce, name="register", daemon=True).start()

    def _obey(self, is_consuming: Callable[[str], bool], consume: Callable[[str, bool], None]) -> None:
        """Take messages from a queue or stop it, as the scheduler recorded for this worker and as its free disk
        space allows."""
        off = set(self._leases.turned_off(self._name, self._queues))
        if self._disk_reason() is not None:
            off |= {queue for queue in self._queues if needs_root(queue)}
        for queue in self._queues:
            if is_consuming(queue) is (queue in off):
                extra = {"action": "consume", "queue": queue}
                _log.info("%s from %s", "Stop taking" if queue in off else "Take again", queue, extra=extra)
                consume(queue, queue not in off)

    def _disk_reason(self) -> str | None:
        """The reason why no step may start here now, after layers of build roots were removed as far as that helps."""
        if disk_reason(self._settings) is not None:
            shed_layers(self._settings, lambda: disk_reason(self._settings) is None)
        return disk_reason(self._settings)

    def stop(self) -> None:
        """Leave the register. Raises redis.RedisError when the broker is down; the entry then expires by itself."""
        self._done.set()
        self._leases.retire(self._name, self._queues)

    def _facts(self, queues: Sequence[str], slots: int, started_at: datetime, consumes: tuple[str, ...]) -> WorkerFacts:
        host = host_facts(self._settings)
        fit = fitness(self._settings, host.tools)
        unfit = fit.unfit or self._disk_reason()
        return WorkerFacts(
            name=self._name,
            host=host_of(self._name),
            queues=tuple(queues),
            slots=slots,
            arches=host.arches,
            started_at=started_at,
            version=VERSION,
            cpus=host.cpus,
            memory_bytes=host.memory_bytes,
            disk_free_bytes=host.disk_free_bytes,
            engines=fit.engines,
            unfit=unfit[:NAME_CHARS] if unfit else None,
            speaks=wire.VERSION,
            consumes=consumes,
        )
