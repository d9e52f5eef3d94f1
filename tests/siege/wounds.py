"""The adversary's wounds of processes, of the broker and of its data; host_wounds.py has the others.

Each wound is one small function: it picks a victim, or declines with None.
"""

import json
import signal
from contextlib import suppress

import redis

from tests.siege.field import Field, Wound
from tests.siege.members import Member

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
    # An attempt without a session may still wait for the broker to take its report.
    reporting = [one.label for one in at.watcher.on([member.worker]) if one.label not in attempts.values()]
    if not at.may_hurt([], labels or reporting):
        return None
    at.note([member], labels=labels or reporting)
    at.world.members.send([child], signal.SIGKILL)
    for label in labels:
        at.watcher.expect_noticed(label, member)
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
    at.note([member], labels=[attempts[child]])
    at.note([], lasts_s, [attempts[child]])  # and nothing else of its worker's
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
    if member is None or member.is_stopped or not _has_standby(at, member):
        return None
    wound = _stopped(at, member, "stop-scheduler")
    at.watcher.expect_takeover(member)
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
        if member.pid == pid:  # else it died, and another is there, which may be stopped, too
            member.is_stopped = False

    return Wound(kind=kind, victim=member.name, lasts_s=lasts_s, heal=wake)


# --- scheduler, broker, database --------------------------------------------------------------------------------


def kill_leader(at: Field) -> Wound | None:
    member = at.world.leader()
    # One that is stopped leads no more, though it was the last to say that it does.
    if member is None or member.is_stopped or not _has_standby(at, member):
        return None
    at.watcher.expect_takeover(member)
    at.world.members.send([member.pid], signal.SIGKILL)
    return Wound(kind="kill-leader", victim=member.name)


def _has_standby(at: Field, leader: Member) -> bool:
    return any(one.is_ready for one in at.world.members.schedulers() if one is not leader)


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
    wound = _kill(at, "redis", "lose-redis")
    if wound is not None:
        at.world.members["redis"].before_start = at.world.empty_redis
    return wound


def empty_redis(at: Field) -> Wound | None:
    """All of it forgotten while it runs."""
    with suppress(redis.RedisError), at.world.redis() as client:
        client.flushall()
        at.watcher.disturb()
        return Wound(kind="empty-redis", victim="redis")
    return None


def stop_redis(at: Field) -> Wound | None:
    """It is there, and does not answer."""
    member = at.world.members["redis"]
    if not member.is_running:
        return None
    pid = member.pid
    at.world.members.send([pid], signal.SIGSTOP)
    return Wound(
        kind="stop-redis",
        victim="redis",
        lasts_s=at.rng.uniform(3.0, 12.0),
        heal=lambda: at.world.members.send([pid], signal.SIGCONT),
    )


def kill_everything(at: Field) -> Wound | None:
    """Every process of the farm at once, as when the power goes; Redis and database keep what they had."""
    workers = at.world.members.workers()
    if not at.may_hurt(workers):
        return None
    labels = at.labels_on(workers)
    at.note(workers, labels=labels)
    at.watcher.disturb()
    at.world.members.send(sorted(at.world.ground.pids()), signal.SIGKILL)
    for label in labels:
        at.watcher.expect_elsewhere([label], host="")
    return Wound(kind="kill-everything", victim=f"all processes ({', '.join(labels) or 'idle'})")


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
    """The task id of a Celery message, or the attempt of a report; both are the attempt's label."""
    with suppress(ValueError, KeyError, TypeError):
        document = json.loads(body)
        if "headers" in document:
            return str(document["headers"]["id"])
        return str(document["attempt"])
    return "document"
