"""What the adversary can do to the farm. Each wound is one small function: it picks a victim, or declines with None.

A wound that lasts says for how long, and how it is undone. What may be lost because of it is noted as a cause: the
judge takes no other excuse for a lost attempt.
"""

import base64
import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.siege.members import Member
from tests.siege.messages import Wiretap
from tests.siege.shape import Role
from tests.siege.watcher import Watcher
from tests.siege.world import World

_HURTS = 2  # a step that loses three workers is rightly given up
_TROUBLES = 3
_SEEN_LATE_S = 3.0  # SQL says a second or two later that an attempt runs
_FULL_LEAVES_BYTES = 300 * 2**20


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why attempts of these workers, or of these labels, that ran at some time from `at_s` to `until_s` on the timeline
    may be lost, whenever that is found out."""

    at_s: float
    until_s: float
    workers: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Wound:
    """`lasts_s` until `heal` is called; None for what is over at once, or what a service manager mends."""

    kind: str
    victim: str
    lasts_s: float | None = None
    heal: Callable[[], object] = lambda: None


@dataclass(kw_only=True)
class Field:
    """What wounds work on. Belongs to the thread that tends the members."""

    world: World
    watcher: Watcher
    wiretap: Wiretap
    rng: random.Random
    causes: list[Cause] = field(default_factory=list)
    hurts: Counter[tuple[int, str]] = field(default_factory=Counter)
    is_one_cut_for_good: bool = False

    def hosts(self) -> list[str]:
        """Those that are well."""
        return [name for name in self.world.hosts if name not in self.world.ill_hosts]

    def may_hurt(self, workers: Iterable[Member], labels: Iterable[str] = ()) -> bool:
        """Whether no step on these has been hurt too often; they are hurt once more then."""
        known = {tuple(label.split(".", 1)) for label in labels}
        keys = {(int(build), rest.rpartition(".")[0]) for build, rest in known}
        seen = self.watcher.on(member.worker for member in workers)
        keys |= {one.key for one in seen}
        troubled = any(self.watcher.seen[key].troubles >= _TROUBLES for key in keys if key in self.watcher.seen)
        if troubled or any(self.hurts[key] >= _HURTS for key in keys):
            return False
        self.hurts.update(keys)
        return True

    def note(self, workers: Iterable[Member], lasts_s: float = 0.0, labels: Iterable[str] = ()) -> None:
        now_s = self.world.timeline.now_s
        names = frozenset(member.worker for member in workers)
        until_s = now_s + lasts_s + _SEEN_LATE_S
        self.causes.append(Cause(at_s=now_s - _SEEN_LATE_S, until_s=until_s, workers=names, labels=frozenset(labels)))

    def labels_on(self, workers: Iterable[Member]) -> list[str]:
        """What their pool processes are at."""
        found = []
        for member in workers:
            attempts = self.world.attempts_in(member.host)
            found += [attempts[child] for child in member.children() if child in attempts]
        return found

    def worker(self, *, is_busy: bool) -> Member | None:
        well = [member for member in self.world.members.workers() if self.world.is_well(member)]
        busy = [member for member in well if self.labels_on([member])]
        chosen = busy if is_busy and busy else well
        return self.rng.choice(chosen) if chosen else None


# --- workers ----------------------------------------------------------------------------------------------------


def kill_child(at: Field) -> Wound | None:
    """A pool process in the middle of a step, if there is one."""
    member = at.worker(is_busy=True)
    if member is None:
        return None
    attempts = at.world.attempts_in(member.host)
    busy = [pid for pid in member.children() if pid in attempts]
    children = busy or member.children()
    if not children:
        return None
    child = at.rng.choice(children)
    labels = [attempts[child]] if child in attempts else []
    if not at.may_hurt([], labels):
        return None
    at.note([member], labels=labels)
    at.world.members.send([child], signal.SIGKILL)
    for label in labels:
        at.watcher.expect_noticed(label)
    at.watcher.expect_elsewhere(labels, member.host)
    return Wound(kind="kill-child", victim=f"{member.name} process {child} ({', '.join(labels) or 'idle'})")


def kill_main(at: Field) -> Wound | None:
    member = at.worker(is_busy=True)
    if member is None or not at.may_hurt([member]):
        return None
    return _killed(at, member, [member.pid], "kill-main")


def kill_group(at: Field) -> Wound | None:
    member = at.worker(is_busy=True)
    if member is None or not at.may_hurt([member]):
        return None
    return _killed(at, member, [member.pid, *member.children()], "kill-group")


def _killed(at: Field, member: Member, pids: list[int], kind: str) -> Wound:
    labels = at.labels_on([member])
    at.note([member], labels=labels)
    at.world.members.send(pids, signal.SIGKILL)
    at.watcher.expect_elsewhere(labels, member.host)
    return Wound(kind=kind, victim=f"{member.name} ({', '.join(labels) or 'idle'})")


def stop_child(at: Field) -> Wound | None:
    """Past its lease; then it wakes, and has to find out."""
    member = at.worker(is_busy=True)
    if member is None:
        return None
    attempts = at.world.attempts_in(member.host)
    busy = [pid for pid in member.children() if pid in attempts]
    if not busy:
        return None
    child = at.rng.choice(busy)
    if not at.may_hurt([], [attempts[child]]):
        return None
    lasts_s = at.world.shape.lease_s + at.rng.uniform(5.0, 10.0)
    at.note([member], lasts_s, [attempts[child]])
    at.world.members.send([child], signal.SIGSTOP)
    at.watcher.expect_elsewhere([attempts[child]], member.host)
    return Wound(
        kind="stop-child",
        victim=f"{member.name} process {child} ({attempts[child]})",
        lasts_s=lasts_s,
        heal=lambda: at.world.members.send([child], signal.SIGCONT),
    )


def stop_main(at: Field) -> Wound | None:
    """Its pool goes on; what it has taken and not handed on waits."""
    member = at.worker(is_busy=False)
    if member is None or not at.may_hurt([member]):
        return None
    return _stopped(at, member, "stop-main")


def stop_leader(at: Field) -> Wound | None:
    member = at.world.leader()
    if member is None or member.is_stopped:
        return None
    wound = _stopped(at, member, "stop-scheduler")
    at.watcher.expect_takeover()
    return wound


def _stopped(at: Field, member: Member, kind: str) -> Wound:
    lasts_s = at.world.shape.lease_s + at.rng.uniform(5.0, 10.0)
    if member.role is not None:
        at.note([member], lasts_s)
    pid = member.pid
    member.is_stopped = True
    at.world.members.send([pid], signal.SIGSTOP)

    def wake() -> None:
        at.world.members.send([pid], signal.SIGCONT)
        member.is_stopped = False

    return Wound(kind=kind, victim=member.name, lasts_s=lasts_s, heal=wake)


# --- scheduler, broker, database --------------------------------------------------------------------------------


def kill_leader(at: Field) -> Wound | None:
    member = at.world.leader()
    others = [one for one in at.world.members.schedulers() if one is not member and one.is_ready]
    if member is None or not others:
        return None
    at.watcher.expect_takeover()
    at.world.members.send([member.pid], signal.SIGKILL)
    return Wound(kind="kill-leader", victim=member.name)


def kill_standby(at: Field) -> Wound | None:
    leader = at.world.leader()
    others = [member for member in at.world.members.schedulers() if member is not leader and member.is_running]
    if leader is None or not others:
        return None
    at.world.members.send([others[0].pid], signal.SIGKILL)
    return Wound(kind="kill-standby", victim=others[0].name)


def kill_redis(at: Field) -> Wound | None:
    return _kill(at, "redis", "kill-redis")


def lose_redis(at: Field) -> Wound | None:
    """Killed, and what it kept is gone."""
    at.world.members["redis"].before_start = at.world.empty_redis
    return _kill(at, "redis", "lose-redis")


def empty_redis(at: Field) -> Wound | None:
    """All of it forgotten while it runs."""
    with suppress(redis.RedisError), at.world.redis() as client:
        client.flushall()
        at.watcher.disturb()
        return Wound(kind="empty-redis", victim="redis")
    return None


def kill_database(at: Field) -> Wound | None:
    """SQLite has no process of its own: what it survives is its users' death."""
    if "postgresql" not in [member.name for member in at.world.members.all()]:
        return None
    return _kill(at, "postgresql", "kill-postgresql")


def _kill(at: Field, name: str, kind: str) -> Wound | None:
    member = at.world.members[name]
    if not member.is_running:
        return None
    at.world.members.send([member.pid], signal.SIGKILL)
    return Wound(kind=kind, victim=name)


def delete_lease(at: Field) -> Wound | None:
    with suppress(redis.RedisError), at.world.redis() as client:
        keys = sorted(client.scan_iter("farm:lease:*"))
        if keys:
            label = at.rng.choice(keys).decode().removeprefix("farm:lease:")
            if at.may_hurt([], [label]):
                at.note([], labels=[label])
                client.delete(f"farm:lease:{label}")
                return Wound(kind="delete-lease", victim=label)
    return None


def deliver_twice(at: Field) -> Wound | None:
    """A message or a report that came through lately comes through again."""
    found = at.wiretap.pick(at.rng)
    if found is None:
        return None
    queue, body = found
    with suppress(redis.RedisError), at.world.redis() as client:
        client.lpush(queue, body)
        return Wound(kind="deliver-twice", victim=f"{queue} {_name_of(body)}")
    return None


def _name_of(body: bytes) -> str:
    """Of a Celery message its task id, of a report its attempt; both are the attempt's label."""
    with suppress(ValueError, KeyError, TypeError):
        document = json.loads(body)
        if "headers" in document:
            base64.b64decode(document["body"])
            return str(document["headers"]["id"])
        return str(document["attempt"])
    return "document"


# --- hosts ------------------------------------------------------------------------------------------------------


def cut_host(at: Field) -> Wound | None:
    """For less than a lease, or for longer."""
    lease_s = at.world.shape.lease_s
    return _cut(at, at.rng.choice([at.rng.uniform(2.0, 8.0), lease_s + at.rng.uniform(3.0, 15.0)]), "cut-host")


def cut_for_good(at: Field) -> Wound | None:
    """Once: until the end of the siege, when it has late reports to bring. A new host takes its place meanwhile."""
    if at.is_one_cut_for_good:
        return None
    wound = _cut(at, 24 * 3600.0, "cut-for-good")
    if wound is not None:
        at.is_one_cut_for_good = True
        name = f"host{len(at.world.hosts) + 1}"
        at.world.add_host(name, tuple(Role))
        at.world.timeline.add("adversary", f"{name} takes the place of {wound.victim}")
    return wound


def _cut(at: Field, lasts_s: float, kind: str) -> Wound | None:
    host = _well_host(at)
    if host is None:
        return None
    workers = at.world.members.workers(host)
    if not at.may_hurt(workers):
        return None
    is_long = lasts_s > at.world.shape.lease_s
    if is_long:
        at.note(workers, lasts_s)
    at.world.ill_hosts.add(host)
    labels = at.labels_on(workers)
    at.world.network.cut(host)
    if is_long:
        at.watcher.expect_elsewhere(labels, host)

    def mend() -> None:
        at.world.network.mend(host)
        at.world.ill_hosts.discard(host)

    return Wound(kind=kind, victim=host, lasts_s=lasts_s, heal=mend)


def step_clock(at: Field) -> Wound | None:
    """By hours, in either direction, for as long as the siege lasts."""
    if not at.world.has_clocks:
        return None
    host = at.rng.choice(sorted(at.world.hosts))
    step_s = at.rng.choice([-1, 1]) * at.rng.randint(60, 6 * 3600)
    at.world.set_clock(host, step_s)
    return Wound(
        kind="step-clock",
        victim=f"{host} by {step_s:+} s",
        lasts_s=24 * 3600.0,
        heal=lambda: at.world.set_clock(host, 0),
    )


def fill_scratch(at: Field) -> Wound | None:
    """To the last byte, or until a room may not go on."""
    host = _well_host(at)
    if host is None or not at.may_hurt(at.world.members.workers(host)):
        return None
    filler = at.world.hosts[host] / "filler"
    leaves_bytes = at.rng.choice([0, _FULL_LEAVES_BYTES])
    at.world.ill_hosts.add(host)
    _fill(filler, leaves_bytes)

    def free() -> None:
        filler.unlink(missing_ok=True)
        at.world.ill_hosts.discard(host)

    victim = f"{host}, {leaves_bytes >> 20} MiB left"
    return Wound(kind="fill-scratch", victim=victim, lasts_s=at.rng.uniform(4.0, 12.0), heal=free)


def fill_store(at: Field) -> Wound | None:
    if not at.may_hurt(at.world.members.workers()):
        return None
    filler = at.world.store / "filler"
    _fill(filler, 0)
    return Wound(
        kind="fill-store",
        victim="artifacts",
        lasts_s=at.rng.uniform(2.0, 5.0),
        heal=lambda: filler.unlink(missing_ok=True),
    )


def freeze_store(at: Field) -> Wound | None:
    """Whoever writes to it waits. It thaws by itself, also should the siege be killed meanwhile."""
    lasts_s = at.rng.uniform(2.0, 6.0)
    script = 'fsfreeze --freeze "$0" && sleep "$1"; fsfreeze --unfreeze "$0"'
    subprocess.Popen(["sh", "-c", script, str(at.world.store), f"{lasts_s:.1f}"], stdin=subprocess.DEVNULL)
    return Wound(kind="freeze-store", victim=f"artifacts for {lasts_s:.1f} s", lasts_s=lasts_s + 1.0)


def _well_host(at: Field) -> str | None:
    """One whose loss leaves another of each role. One host is ill at a time, but for the one that is for good."""
    if len(at.world.ill_hosts) > int(at.is_one_cut_for_good):
        return None
    well = at.hosts()
    return at.rng.choice(well) if len(well) > 1 else None


def _fill(filler: Path, leaves_bytes: int) -> None:
    with filler.open("wb") as file:
        found = os.statvfs(filler)
        size_bytes = found.f_bavail * found.f_frsize - leaves_bytes
        while size_bytes > 4096:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size_bytes)
            except OSError:
                size_bytes //= 2
