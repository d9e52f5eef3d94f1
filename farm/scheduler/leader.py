"""Leader election: the scheduler that holds the lock in Redis leads, and no other scheduler schedules.

Not the takeover itself (loop.py), nor the lock (farm/broker/leader.py).
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from farm.broker.control import Control
from farm.broker.leader import HOLD_S, Lock, SchedulerLock
from farm.broker.leases import Leases
from farm.errors import FarmNotRunning

_log = logging.getLogger(__name__)
_ASK_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """A scheduler starts to lead at `at` of time.monotonic(); workers have been able to renew their leases for
    `heard_for_s`. `others_led` says whether another scheduler may have led since this one did."""

    at: float
    heard_for_s: float
    others_led: bool


class Leadership:
    """`take_over` is called before this scheduler leads, and `broker_emptied` when Redis lost its data while it leads.

    Methods raise redis.RedisError and FarmNotRunning while the broker is away.
    """

    def __init__(
        self,
        lock: SchedulerLock,
        control: Control,
        leases: Leases,
        *,
        take_over: Callable[[Takeover], None],
        broker_emptied: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._control = control
        self._leases = leases
        self._take_over = take_over
        self._broker_emptied = broker_emptied
        self._is_leader = False
        self._others_led = True
        self._renew_at = 0.0
        self._broker_failed_at = -math.inf

    @property
    def is_leader(self) -> bool:
        return self._is_leader

    def acquire(self, stop: threading.Event) -> None:
        """Wait until no other scheduler leads; then lead, and receive again the documents that the leader before did
        not settle."""
        taken = self._lock.take()
        if taken is Lock.OTHERS:
            _log.info("Another scheduler leads; waiting for it to end", extra={"action": "stand-by"})
            while (taken := self._lock.take()) is Lock.OTHERS:
                if stop.wait(_ASK_EVERY_S):
                    return
            self._others_led = True
        self._leases.load_scripts()
        self._control.recover()
        # If the broker was up all the time, its leases are valid: this scheduler need not wait for dead workers once
        # more because a scheduler died, or the database was away.
        now = time.monotonic()
        there_s = min(self._leases.uptime_s(), now - self._broker_failed_at)
        heard_for_s = 0.0 if taken is Lock.EMPTIED else there_s
        self._take_over(Takeover(at=now, heard_for_s=heard_for_s, others_led=self._others_led))
        self._others_led, self._is_leader = False, True
        _log.info("Scheduling", extra={"action": "start"})

    def renew(self) -> None:
        """Renew the lock. Raises FarmNotRunning when another scheduler leads; that one receives the documents that this
        one did not settle."""
        asked_at = time.monotonic()
        match self._lock.take():
            case Lock.OTHERS:
                self._is_leader = False
                self._control.recover()
                raise FarmNotRunning("another scheduler has taken over")
            case Lock.EMPTIED:
                _log.warning("Redis was emptied; going on from SQL", extra={"action": "emptied"})
                self._broker_emptied()
            case Lock.HELD:
                pass
        self._renew_at = asked_at + HOLD_S / 2

    def renew_when_due(self) -> None:
        """Call it before anything is changed: if this process was stopped for a while, another one may lead."""
        if time.monotonic() > self._renew_at:
            self.renew()

    def suspend(self, outage: Exception) -> None:
        """The broker or the database is away: lead again only after another `acquire`."""
        self._is_leader = False
        if isinstance(outage, redis.RedisError):
            self._broker_failed_at = time.monotonic()

    def release(self) -> None:
        """Let another scheduler lead at once."""
        self._lock.release()
