"""The evil host: a build host of one role, with that role's real account of the broker, which attacks the farm.

A thread with a connection of its own. It serves EVIL_ROLE, which no honest worker has. Every document and key that it
forges contains MARK, so that the judge can tell where one of them had an effect.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from farm import queues, wire
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.outcome import Outcome
from farm.model.work import AnyResult, StepResult
from farm.steps.build import BuildResult
from farm.steps.registry import queue_of, step_type
from farm.steps.upload import UploadResult
from tests.siege.hostile import MARK
from tests.siege.watcher import Watcher
from tests.siege.world import EVIL_ROLE, QUEUES, World

_EVERY_S = (0.3, 1.5)
_KEPT_QUIET_S = 1.0  # while the broker is away
_TOO_LONG_BYTES = 3 * 2**20
_DEEP = b"[" * 100_000
_FLOOD = 3000
_LOG_BYTES = 9 * 2**20
_NAMES = 1000
_CONTROL = queues.control_list(EVIL_ROLE)


class EvilHost(threading.Thread):
    """`done` counts its deeds. `let_through` are commands of other roles that the broker did not refuse it."""

    def __init__(self, world: World, watcher: Watcher, rng: random.Random) -> None:
        super().__init__(name="evil host", daemon=True)
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self.done: Counter[str] = Counter()
        self.let_through: set[str] = set()
        self._world = world
        self._watcher = watcher
        self._rng = rng
        self._first = list(DEEDS)

    def run(self) -> None:
        rng = self._rng
        try:
            while not self.stop.wait(rng.uniform(*_EVERY_S)):
                deed = self._first.pop(0) if self._first else rng.choice(DEEDS)
                try:
                    with self._world.redis(timeout_s=5.0, account=EVIL_ROLE) as client:
                        deed(self, client)
                except NoPermissionError as error:
                    raise AssertionError(f"{deed.__name__} needs more than the account may do: {error}") from error
                except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                    self.stop.wait(_KEPT_QUIET_S)  # it is away, loads its data, or forgot a script
                    continue
                self.done[deed.__name__] += 1
                self._world.timeline.add("evil host", deed.__name__.replace("_", " "))
        except BaseException as error:
            self.failure = error

    # --- what it knows ------------------------------------------------------------------------------------------

    def _labels(self) -> list[str]:
        """Of honest attempts that are under way, which it could guess, and of its own role with the same numbers."""
        live = [one.label for one in self._watcher.seen.values() if one.attempt is not None]
        chosen = self._rng.sample(live, min(len(live), 6))
        builds = {label.partition(".")[0] for label in chosen} | {"1"}
        return [*chosen, *(f"{build}.{EVIL_ROLE}.{number}" for build in sorted(builds) for number in (1, 2))]

    # --- deeds --------------------------------------------------------------------------------------------------

    def forge_reports(self, client: "redis.Redis") -> None:
        for label in self._labels():
            kind = label.split(".")[1]
            for token in ("", MARK):
                client.lpush(_CONTROL, *map(wire.encode_report, _reports(label, token, kind)))
        client.lpush("control:bell", "1")

    def forge_notices(self, client: "redis.Redis") -> None:
        for label in (*self._labels(), "..", MARK * 2000):
            for kind in wire.NoticeKind:
                for worker in (f"build@{MARK}", *self._workers()):
                    notice = wire.Notice(notice=kind, attempt=label, token=MARK, worker=worker, reason=MARK)
                    client.lpush(_CONTROL, wire.encode_notice(notice))

    def _workers(self) -> list[str]:
        return [member.worker for member in self._world.members.workers()]

    def forge_facts(self, client: "redis.Redis") -> None:
        """Announces workers of its own, honest ones, and impossible ones."""
        for worker in (f"build@{MARK}", *self._workers()):
            for changed in self._rng.sample(_FACTS, 3):
                client.sadd(f"farm:workers:{EVIL_ROLE}", worker)
                client.set(f"farm:worker:{EVIL_ROLE}:{worker}", _facts(worker, **changed))
        client.set(f"farm:worker:{EVIL_ROLE}:build@{MARK}-deep", b'{"name":' + _DEEP)
        client.sadd(f"farm:workers:{EVIL_ROLE}", f"build@{MARK}-deep", b"\xff" * 1000)

    def flood_register(self, client: "redis.Redis") -> None:
        client.sadd(f"farm:workers:{EVIL_ROLE}", *(f"build@{MARK}{number}" for number in range(_NAMES)))

    def send_garbage(self, client: "redis.Redis") -> None:
        client.lpush(_CONTROL, MARK, b'{"v":3,"kind":' + _DEEP, b'{"notice":' + _DEEP, b"\xff" * 100, b"wake", b"")

    def send_too_long(self, client: "redis.Redis") -> None:
        for _ in range(2):
            client.lpush(_CONTROL, b"x" * _TOO_LONG_BYTES)

    def flood_control(self, client: "redis.Redis") -> None:
        client.lpush(_CONTROL, *(MARK for _ in range(_FLOOD)))
        for _ in range(_NAMES):
            client.lpush("control:bell", "1")

    def send_messages(self, client: "redis.Redis") -> None:
        """Into the queues that it may push to: its own, and that of the uploads after its builds, by priority too."""
        for queue in (EVIL_ROLE, queues.behind(queues.PUBLISH)):
            for label in self._labels():
                client.lpush(queue, _message(label))
            client.lpush(queue, MARK, b"\xff", b"{}", b"[]", _DEEP)

    def forge_leases(self, client: "redis.Redis") -> None:
        for label in (one for one in self._labels() if EVIL_ROLE in one):
            client.hset(f"farm:lease:{label}", mapping={"work": MARK, "holder": MARK, "worker": f"build@{MARK}"})
            client.delete(f"farm:offer:{label}")
            client.setrange(f"farm:log:{label}", _LOG_BYTES, MARK)
            client.expire(f"farm:log:{label}", 60)
            client.lpush(f"farm:wake:{label}", MARK)

    def send_events(self, client: "redis.Redis") -> None:
        for worker in self._workers():
            client.publish("/0.celeryev/worker.offline", json.dumps({"hostname": worker, "type": "worker-offline"}))
        client.publish("/0.celeryev/worker.heartbeat", _DEEP)

    def try_what_other_roles_may(self, client: Any) -> None:
        if not self._world.accounts.passwords:
            return  # nothing would refuse it
        live = next((label for label in self._labels() if EVIL_ROLE not in label), "1.upload.x86_64.1")
        for words in _of_others(live):
            try:
                client.execute_command(*words)
            except NoPermissionError:
                continue
            self.let_through.add(" ".join(words))


#: All of them, in the order in which they are done first.
DEEDS: tuple[Callable[[EvilHost, "redis.Redis"], None], ...] = (
    EvilHost.forge_facts,
    EvilHost.forge_reports,
    EvilHost.forge_notices,
    EvilHost.send_garbage,
    EvilHost.try_what_other_roles_may,
    EvilHost.forge_leases,
    EvilHost.send_messages,
    EvilHost.send_too_long,
    EvilHost.flood_control,
    EvilHost.flood_register,
    EvilHost.send_events,
)


def _reports(label: str, token: str, kind: str) -> Iterator[wire.AnyReport]:
    """A success with packages and repositories of its own, and trouble in an honest worker's name."""
    now = datetime.now(UTC)
    rpm = Artifact(
        name=f"{MARK}-1-1.noarch.rpm",
        kind=ArtifactKind.RPM,
        sha256="e" * 64,
        size_bytes=1,
        identity=f"{MARK}-1-1.noarch",
    )
    output: object = BuildResult(rpms=(rpm,))
    if kind == "upload":
        paths = ("demo/x86_64/os", "demo/source")
        output = UploadResult(versions=tuple((path, 7, f"file:///{MARK}/") for path in paths))
    result: AnyResult = StepResult(outcome=Outcome.SUCCEEDED, artifacts=(rpm,), output=output)
    trouble = wire.TroubleReport(code="root", retryable=True, message=MARK)
    for worker in (f"build@{MARK}", "build@host1", "publish@host2"):
        failed: wire.AnyReport = wire.Report(
            attempt=label, token=token, kind=kind, worker=worker, started_at=now, finished_at=now, trouble=trouble
        )
        yield failed
        yield replace(failed, result=result, trouble=None)


_FACTS: tuple[dict[str, Any], ...] = (
    {},
    {"slots": 2**63},
    {"slots": 10_000},
    {"slots": -5},
    {"queues": list(QUEUES.values())},
    {"queues": ["control"]},
    {"consumes": list(QUEUES.values())},
    {"consumes": []},
    {"name": "publish@host1", "host": "host1"},
    {"host": "host2"},
    {"started_at": "2026-01-01T00:00:00"},
    {"started_at": "9999-12-31T23:59:59-12:00"},
    {"speaks": 2**70},
    {"memory_bytes": 2**64},
    {"disk_free_bytes": -1},
    {"unfit": MARK * 4000},
    {"unfit": MARK},
    {"version": "1\0"},
    {"arches": ["x86_64"] * 500},
)


def _facts(worker: str, **changed: Any) -> bytes:
    """The facts that an honest worker of this name and EVIL_ROLE would announce, with some changes."""
    facts: dict[str, Any] = {"name": worker, "host": worker.partition("@")[2], "queues": [EVIL_ROLE], "slots": 2}
    facts |= {"arches": ["aarch64"], "started_at": "2026-01-01T00:00:00Z", "version": "1", "speaks": wire.VERSION}
    return json.dumps(facts | changed).encode()


def _message(label: str) -> str:
    """As Celery writes it."""
    task = step_type(label.split(".")[1]).task
    headers = {"lang": "py", "task": task, "id": label, "root_id": label, "shadow": MARK, "ignore_result": True}
    delivery = {"exchange": "", "routing_key": EVIL_ROLE}
    properties = {"delivery_info": delivery, "delivery_tag": MARK, "correlation_id": label, "delivery_mode": 2}
    document = {"body": json.dumps([[], {"attempt": label, "v": wire.VERSION}, {}]), "headers": headers}
    document |= {"content-encoding": "utf-8", "content-type": "application/json", "properties": properties}
    return json.dumps(document)


def _of_others(label: str) -> Iterator[tuple[str, ...]]:
    """Commands that the farm must refuse this account, about one live attempt of an honest role."""
    queue = queue_of(label) or queues.PUBLISH
    others = [name for name in QUEUES.values() if name != queues.PUBLISH]
    for name in (*others, *map(queues.control_list, (*QUEUES.values(), queues.CLIENT))):
        yield "LPUSH", name, MARK
    yield "RPOP", queue
    yield "DEL", f"farm:lease:{label}"
    yield "HSET", f"farm:lease:{label}", "holder", MARK
    yield "HGET", f"farm:offer:{label}", "work"
    yield "HSET", f"farm:offer:1.{EVIL_ROLE}.1", "work", MARK
    yield "SETRANGE", f"farm:log:{label}", "0", MARK
    yield "SET", f"farm:closed:{label}", "1"
    yield "HSET", "farm:held", "host1", MARK
    yield "HSET", f"farm:off:{queue}", "build@host1", "[]"
    yield "SET", f"farm:worker:{queue}:build@host1", MARK
    yield "SREM", f"farm:workers:{queue}", "build@host1"
    yield "SET", "farm:scheduler", MARK
    yield "PUBLISH", "farm:events", MARK
    yield "PUBLISH", "/0.celery.pidbox", MARK
    yield "SADD", f"_kombu.binding.{queues.PUBLISH}", MARK
    yield "ZADD", "_kombu.binding_deadlines", "1", MARK
    yield "SCRIPT", "LOAD", "while true do end"
    yield "EVAL", "while true do end", "0"
    yield ("MONITOR",)
    yield "ACL", "LIST"
    yield ("FLUSHALL",)
    yield ("SHUTDOWN",)
