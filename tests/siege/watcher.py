"""Looks at the farm's database and broker twice a second, and keeps the time of what waits.

The farm's own instants are no use here: hosts' clocks are stepped. Time in which the broker, the database or every
scheduler was away is the adversary's, and counts for nothing.
"""

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from tests.siege.members import Member
from tests.siege.sql import DatabaseAway
from tests.siege.world import EVIL_ROLE, QUEUES, SLOTS, World

EVERY_S = 0.5
TAKEOVER_S = 15.0
#: Two seconds are promised; the rest is for looking, and for a machine that others use too.
GONE_S = 2.0
GONE_ALLOWANCE_S = 2.5
CHILD_S = 5.0
CHILD_ALLOWANCE_S = 2.5
#: A worker that has lost the broker sleeps for as long between two tries to connect, and hears of nothing meanwhile.
DEAF_S = 8.0
#: For a minute a step is kept back from hosts that it had trouble on; the rest is for looking.
AVOIDED_S = 65.0
_LIVE = (
    "SELECT s.job_id, s.kind, s.arch, s.attempts, s.status, s.queue, s.troubles,"
    " a.number, a.status, a.worker, a.offered_at, s.trouble_hosts"
    " FROM step s LEFT JOIN attempt a ON a.step_id = s.id AND a.status <> 'finished'"
    " WHERE s.status <> 'finished'"
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A step that is not over, as SQL had it. `attempt` is the live one's number."""

    build: int
    step: str
    status: str
    queue: str
    troubles: int
    attempt: int | None
    attempt_status: str | None
    worker: str | None
    is_offered: bool
    avoids: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[int, str]:
        return self.build, self.step

    @property
    def label(self) -> str:
        return f"{self.build}.{self.step}.{self.attempt}"


@dataclass(kw_only=True)
class Expectation:
    """Something that has to come within a time that only counts while nothing else is broken. With `is_renewed` it
    counts from the last time that the broker was: then a silent worker gets a lease's time again, and `grace_s`."""

    rule: str
    about: str
    build: int | None
    limit_s: float
    is_met: Callable[["Watcher"], bool]
    counts: Callable[["Watcher"], bool]
    is_renewed: bool = False
    grace_s: float = 0.0
    waited_s: float = 0.0
    over: bool = False


@dataclass(kw_only=True)
class Waits:
    """The longest of each kind, and those that were too long."""

    longest_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    broken: list[tuple[str, int | None, str]] = field(default_factory=list)

    def note(self, rule: str, seconds: float) -> None:
        self.longest_s[rule] = max(self.longest_s[rule], seconds)


class Watcher(threading.Thread):
    """`seen`, `waits` and the rest may be read by other threads."""

    def __init__(self, world: World) -> None:
        super().__init__(name="watcher", daemon=True)
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self.seen: dict[tuple[int, str], Seen] = {}
        #: From when to when attempts were seen to be out, by label, on the timeline.
        self.lives: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, int] = {}
        self.waits = Waits()
        #: Labels of attempts whose process the adversary killed or stopped: they do nothing by themselves any more.
        self.hurt: set[str] = set()
        self.is_away = False
        self.has_broker = True
        self.holder: bytes | None = None
        #: Hosts that the farm has quarantined at some time, as it names them (`build.x86_64@host1`, or `host1` in every
        #: role), and why; and what of theirs takes nothing now, by what it says.
        self.held: dict[str, str] = {}
        #: The commands that the broker refused an honest member's account.
        self.denials: set[str] = set()
        self._idle_workers: set[str] = set()
        self._world = world
        self._timeline = world.timeline
        self._sql = world.sql()
        self._idle_s: dict[tuple[int, str], float] = defaultdict(float)
        self._avoided_s: dict[tuple[int, str], float] = defaultdict(float)
        self._is_disturbed = False
        self._expected: list[Expectation] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        last = time.monotonic()
        try:
            while not self.stop.wait(EVERY_S):
                now = time.monotonic()
                # Where this thread had no turn, the farm's processes had none either.
                self._look(min(now - last, 2 * EVERY_S))
                last = now
        except BaseException as error:
            self.failure = error
        finally:
            self._sql.close()

    # --- questions and expectations of others -------------------------------------------------------------------

    def running(self, build: int) -> list[str]:
        """Labels of the build's attempts that run in sessions of healthy hosts."""
        return [
            label
            for host in self._world.hosts
            if host not in self._world.ill_hosts
            for label in self._world.attempts_in(host).values()
            if label.startswith(f"{build}.")
        ]

    def on(self, workers: Iterable[str]) -> list[Seen]:
        """The attempts that these workers run."""
        names = set(workers)
        return [one for one in self.seen.values() if one.worker in names]

    def disturb(self) -> None:
        """Something was away so shortly that a look may have missed it."""
        self._is_disturbed = True

    def expect(self, one: Expectation) -> None:
        with self._lock:
            self._expected.append(one)

    def expect_elsewhere(self, labels: Iterable[str], host: str) -> None:
        """These attempts lost their process: their steps have to run elsewhere, or be over, in time."""
        for label in labels:
            build, step, number = _parts(label)
            self.expect(
                Expectation(
                    rule="lost",
                    about=f"{label} on {host} to be noticed, and its step to run elsewhere",
                    build=build,
                    limit_s=self._world.shape.lost_within_s,
                    is_renewed=True,
                    is_met=partial(Watcher.is_past, key=(build, step), number=number),
                    counts=partial(Watcher.could_run, key=(build, step), not_on=host),
                )
            )

    def expect_noticed(self, label: str, member: Member) -> None:
        """Its pool process is dead and its worker lives: that is said at once. Not by a worker that dies too."""
        build, step, number = _parts(label)
        pid = member.pid
        self.expect(
            Expectation(
                rule="child",
                about=f"{label} to be noticed, whose pool process was killed",
                build=build,
                limit_s=CHILD_S + CHILD_ALLOWANCE_S,
                is_renewed=True,
                grace_s=DEAF_S,
                is_met=lambda watcher: (
                    (one := watcher.seen.get((build, step))) is None
                    or one.attempt != number
                    or member.pid != pid
                    or not member.is_running
                ),
                counts=lambda watcher: not watcher.is_away and watcher.may_speak(member),
            )
        )

    def expect_gone(self, labels: Iterable[str]) -> None:
        """Cancelled: nothing of these is left on its host."""
        for label in labels:
            self.expect(
                Expectation(
                    rule="cancel",
                    about=f"{label} to be gone from its host after it was cancelled",
                    build=_parts(label)[0],
                    limit_s=GONE_S + GONE_ALLOWANCE_S,
                    is_met=partial(Watcher.is_gone, label=label),
                    counts=lambda watcher: not watcher.is_away,
                )
            )

    def may_speak(self, member: Member) -> bool:
        """Whether the adversary lets this worker say anything."""
        return not member.is_stopped and member.host not in self._world.ill_hosts

    def expect_takeover(self, leader: Member) -> None:
        """As long as there is a standby: the adversary may have killed that too, meanwhile. A leader that was only
        stopped, and that the adversary wakes before anybody missed it, leads on; and after an outage of the broker
        another may have taken over already from one that does not know it yet."""
        holder, pid = self.holder, leader.pid
        is_stopped = leader.is_stopped
        self.expect(
            Expectation(
                rule="takeover",
                about="the standby to take over from the scheduler that is gone",
                build=None,
                limit_s=TAKEOVER_S,
                is_met=lambda watcher: (
                    watcher.holder not in (None, holder)
                    or watcher.is_led_by_another(leader)
                    or (is_stopped and leader.pid == pid and not leader.is_stopped)
                ),
                counts=lambda watcher: watcher.has_broker and watcher.has_standby(),
            )
        )

    def is_led_by_another(self, leader: Member) -> bool:
        others = [one for one in self._world.members.schedulers() if one is not leader]
        return self.holder is not None and any(self._world.leads(one) for one in others)

    def has_standby(self) -> bool:
        """Whether there is a scheduler that could take over."""
        return any(member.is_ready for member in self._world.members.schedulers())

    def is_gone(self, label: str) -> bool:
        return label in self.hurt or label not in self.running(_parts(label)[0])

    def is_past(self, key: tuple[int, str], number: int) -> bool:
        """Whether another attempt than this runs, or the step is over."""
        one = self.seen.get(key)
        if one is None:
            return True
        return one.attempt is not None and one.attempt > number and one.attempt_status == "running"

    def could_run(self, key: tuple[int, str], not_on: str = "") -> bool:
        """Whether nothing but the farm keeps the step from running: a slot is free, on another host than that."""
        one = self.seen.get(key)
        if self.is_away or one is None:
            return False
        if one.status == "waiting" and one.troubles > 1:
            return False  # the pause grows with each trouble, as it should
        if self._is_kept_back(one) and self._avoided_s[key] < AVOIDED_S:
            return False
        return self._has_free_slot(one.queue, {not_on})

    def _is_kept_back(self, one: Seen) -> bool:
        """Whether slots are free on those hosts only on which it had trouble."""
        return one.status == "ready" and bool(one.avoids) and not self._has_free_slot(one.queue, one.avoids)

    def _has_free_slot(self, queue: str, not_on: Collection[str] = ()) -> bool:
        for member in self._world.members.workers():
            if member.role is None or QUEUES[member.role] != queue or member.host in not_on:
                continue
            if member.worker in self._idle_workers:
                continue
            if self._world.is_well(member) and len(self.on([member.worker])) < SLOTS:
                return True
        return False

    # --- looking ------------------------------------------------------------------------------------------------

    def _look(self, seconds: float) -> None:
        self.has_broker = self._look_at_redis()
        has_database = True
        try:
            rows = self._sql.rows(_LIVE)
            self.counts = {str(status): count for status, count in self._sql.rows(_COUNTS)}
            self.held |= dict(self._sql.rows(_HELD))
        except DatabaseAway:
            has_database = False
        else:
            self._note({one.key: one for one in map(_seen, rows)})
        self.is_away = not (self.has_broker and has_database and self.holder and self._is_led())
        self._count(seconds)

    def _look_at_redis(self) -> bool:
        try:
            with self._world.redis() as client:
                self.holder = client.get("farm:scheduler")
                # Its own role's entry: the evil host may write any name into another.
                said = {
                    one.worker: client.get(f"farm:worker:{QUEUES[one.role]}:{one.worker}")
                    for one in self._world.members.workers()
                    if one.role is not None and _is_held(one, self.held)
                }
                self._note_denials(client)
            self._idle_workers = {worker for worker, facts in said.items() if facts and not _takes_work(facts)}
            return True
        except redis.RedisError:
            return False

    def _note_denials(self, client: Any) -> None:
        if not self._world.accounts.passwords:
            return
        for entry in client.acl_log():
            if entry["username"] != EVIL_ROLE and entry["reason"] != "auth":
                words = f"{entry['client-info'].get('cmd', '')} ({entry['reason']} {entry['object']})"
                self.denials.add(f"{entry['username']} was denied {words}")

    def _is_led(self) -> bool:
        leader = self._world.leader()
        return leader is not None and not leader.is_stopped

    def _note(self, seen: dict[tuple[int, str], Seen]) -> None:
        now_s = self._timeline.now_s
        for one in seen.values():
            # Not from when they were seen to run: who is killed right after a claim is seen to run only after that.
            if one.attempt is not None and one.is_offered:
                first_s = now_s - 2 * EVERY_S  # when it may have been out already, unseen
                self.lives[one.label] = (self.lives.get(one.label, (first_s, now_s))[0], now_s)
        for key, one in seen.items():
            before = self.seen.get(key)
            if before is None or (before.attempt, before.attempt_status) != (one.attempt, one.attempt_status):
                where = f" on {one.worker}" if one.worker else ""
                text = f"{one.label} {one.attempt_status}{where}" if one.attempt else f"{one.step} {one.status}"
                self._timeline.add("farm", text, frozenset({one.build}))
        for key, before in self.seen.items():
            after = seen.get(key)
            if before.label in self.lives and (after is None or after.attempt != before.attempt):
                # Its end was not seen until now: the database may have been down since the look before.
                self.lives[before.label] = (self.lives[before.label][0], now_s)
            if after is None:
                self._timeline.add("farm", f"{before.build}.{before.step} is over", frozenset({before.build}))
        self.seen = seen

    def _count(self, seconds: float) -> None:
        for key in [key for key in self._idle_s if key not in self.seen]:
            del self._idle_s[key]
        for key in [key for key in self._avoided_s if key not in self.seen]:
            del self._avoided_s[key]
        for key, one in self.seen.items():
            if one.status != "ready":
                self._avoided_s.pop(key, None)
            elif one.avoids:  # the minute is counted from when it was ready
                self._avoided_s[key] += seconds
            if one.status == "ready" or (one.status == "dispatched" and one.is_offered):
                if self.could_run(key):
                    self._idle_s[key] += seconds
                    self._note_idle(one, self._idle_s[key])
            else:
                self._idle_s.pop(key, None)
        self._count_expected(seconds)

    def _count_expected(self, seconds: float) -> None:
        is_disturbed, self._is_disturbed = self._is_disturbed or not self.has_broker, False
        with self._lock:
            expected = list(self._expected)
        for one in expected:
            if one.is_met(self):
                one.over = True
                self.waits.note(one.rule, one.waited_s)
            elif one.is_renewed and is_disturbed:
                one.waited_s = 0.0
                one.limit_s, one.grace_s = one.limit_s + one.grace_s, 0.0
            elif one.counts(self):
                one.waited_s += seconds
                if one.waited_s > one.limit_s * self._world.shape.patience:
                    one.over = True
                    self.waits.note(one.rule, one.waited_s)
                    self._broke(one.rule, one.build, f"waited {one.waited_s:.1f} s for {one.about}")
        with self._lock:
            self._expected = [one for one in self._expected if not one.over]

    def _note_idle(self, one: Seen, waited_s: float) -> None:
        limit_s = self._world.shape.waits_at_most_s * self._world.shape.patience
        self.waits.note("idle", waited_s)
        if waited_s > limit_s:
            text = f"{one.build}.{one.step} is {one.status} for {waited_s:.0f} s although a slot of {one.queue} is free"
            self._broke("idle", one.build, text)
            self._idle_s[one.key] = 0.0

    def _broke(self, rule: str, build: int | None, text: str) -> None:
        self.waits.broken.append((rule, build, text))
        self._timeline.add("watcher", f"BROKEN: {text}", frozenset({build}) if build else frozenset())


_HELD = "SELECT name, reason FROM host WHERE hold = 'quarantined'"
_COUNTS = "SELECT COALESCE(outcome, status), count(*) FROM build GROUP BY 1"
_LABEL = re.compile(r"(\d+)\.(.+)\.(\d+)")


def _parts(label: str) -> tuple[int, str, int]:
    """`12.build.x86_64.1` is build 12, step `build.x86_64`, attempt 1."""
    found = _LABEL.fullmatch(label)
    if found is None:
        raise ValueError(f"{label!r} is no attempt's label")
    return int(found[1]), found[2], int(found[3])


def _seen(row: tuple[object, ...]) -> Seen:
    build, kind, arch, _, status, queue, troubles, number, attempt_status, worker, offered_at, avoids = row
    return Seen(
        build=int(str(build)),
        step=f"{kind}.{arch}" if arch else str(kind),
        status=str(status),
        queue=str(queue),
        troubles=int(str(troubles)),
        attempt=int(str(number)) if number is not None else None,
        attempt_status=str(attempt_status) if attempt_status is not None else None,
        worker=str(worker) if worker is not None else None,
        is_offered=offered_at is not None,
        avoids=frozenset(json.loads(str(avoids))) if avoids else frozenset(),
    )


def _is_held(member: Member, held: Collection[str]) -> bool:
    return member.role is not None and not {member.host, f"{QUEUES[member.role]}@{member.host}"}.isdisjoint(held)


def _takes_work(facts: bytes) -> bool:
    """By what a worker says of itself. One on a quarantined host is asked to take nothing."""
    return bool(json.loads(facts).get("consumes"))
