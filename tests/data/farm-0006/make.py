"""Makes the data in this folder: the whole state of a small farm, with work in flight.

It runs with the farm of commit d71f24d only (SQL schema 0006, messages of version 4); README.md has the commands.
Everything in the state is made by that farm's own scheduler, workers and command line. Two workers are played by this
script, `build@old` and `source@old`, so that the test knows their tokens and can report for them after the upgrade.
"""

import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
from typer.testing import CliRunner

from farm import queues, wire
from farm.broker.control import Control
from farm.broker.leases import Leases
from farm.cli.main import app
from farm.model.arch import Arch
from farm.model.build import StepKind
from farm.model.outcome import Status
from farm.store import schema
from farm.store.database import make_engine
from farm.store.store import Store
from tests.databases import cluster
from tests.distribution import demo_distribution
from tests.fake_workers import FakeWorkers
from tests.hosts_farm import BUILD, HostsFarm, hosts_farm
from tests.messages import worker_facts
from tests.packages import make_git, make_srpm
from tests.waiting import until
from workers.steps.runner import run_step

HERE = Path(__file__).parent
DATA = Path("/tmp/farm-0006")
#: Nothing listens there; the test has the address of its own server in its place.
GIT_SERVER = "127.0.0.1:47119"
LOGIN = "ann:open-sesame"
LEASE_S = 6
ENV = {"FARM_UPLOAD_LOGS": "yes", "FARM_ALLOW_NETWORKS": "127.0.0.0/8", "FARM_LEASE_S": str(LEASE_S)}


@dataclass
class Played:
    """Two workers of this script's own: one that builds, and one that only says that it is there."""

    farm: HostsFarm
    leases: Leases
    control: Control
    reports: dict[str, bytes] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def announce(self) -> None:
        facts = worker_facts("build@old", slots=2), worker_facts("source@old", slots=1)
        while not self._stop.is_set():
            for one in facts:
                self.leases.announce(replace(one, engines=("native",)))
            self._stop.wait(2)

    def stop(self) -> None:
        self._stop.set()

    def claim(self, build_id: int) -> None:
        """Take the build's message, claim it, run it, and keep the report."""
        broker = redis.Redis.from_url(self.farm.settings.redis, protocol=2)
        found = broker.brpop([BUILD], timeout=60)
        broker.close()
        assert found is not None
        _, order, _ = json.loads(base64.b64decode(json.loads(found[1])["body"]))
        label = order["attempt"]
        assert label.startswith(f"{build_id}.build."), label
        token = f"the token of {label}"
        work = self.leases.claim(label, token, "build@old", wait_s=10)
        until(lambda: step(self.farm, build_id, StepKind.BUILD).status is Status.RUNNING, f"{label} to run")
        began = datetime.now(UTC)
        result = self._renewed(label, token, lambda: run_step(work, self.farm.settings))
        report: wire.AnyReport = wire.Report(
            attempt=label,
            token=token,
            kind=StepKind.BUILD,
            worker="build@old",
            started_at=began,
            finished_at=datetime.now(UTC),
            result=result,
        )
        self.reports[label] = wire.encode_report(report)
        self._keep(label, token)

    def _renewed(self, label: str, token: str, do: Any) -> Any:
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(label, token, done))
        thread.start()
        try:
            return do()
        finally:
            done.set()
            thread.join()

    def _renew(self, label: str, token: str, done: threading.Event) -> None:
        while not done.wait(1):
            self.leases.touch(label, token)

    def _keep(self, label: str, token: str) -> None:
        """Renew it until the farm is frozen."""
        threading.Thread(target=self._renew, args=(label, token, self._stop), daemon=True).start()


def step(place: HostsFarm, build_id: int, kind: StepKind) -> Any:
    found = [one for one in place.farm.build(build_id).steps if one.kind is kind]
    return found[0] if found else next(iter(place.farm.build(build_id).steps))


def attempted(place: HostsFarm, build_id: int, kind: StepKind, status: Status) -> None:
    def is_so() -> bool:
        one = step(place, build_id, kind)
        return one.kind is kind and one.status is status

    until(is_so, lambda: f"{kind} of {build_id} to be {status}: {place.farm.build(build_id)}", within_s=120)


class Story:
    """The events on the farm, in order."""

    def __init__(self, place: HostsFarm, scratch: Path) -> None:
        self.place = place
        self.farm = place.farm
        self.scratch = scratch
        self.ids: dict[str, int] = {}

    def ask(self, name: str, package: str, *, owner: str = "ann", **more: Any) -> int:
        srpm = make_srpm(package, self.scratch / "srpms")
        handle = self.farm.enqueue(srpm=srpm, target="demo", owner=owner, **{"arches": ["x86_64"], **more})
        self.ids[name] = handle.id
        return handle.id

    def nap(self, name: str, serial: int, nap_s: int = 0) -> int:
        return self.ask(name, "naps", owner="bob", defines={"serial": str(serial), "nap_s": str(nap_s)})

    def over(self, *names: str) -> None:
        for name in names:
            build = self.farm.wait(self.ids[name], timeout_s=180)
            print(name, self.ids[name], build.outcome, build.reason)

    def finished(self) -> None:
        """Builds that are over: succeeded, failed, excluded, retried, refused."""
        place = self.place
        place.start_worker("build@base", BUILD)
        self.ask("succeeded", "hello-c")
        repository = make_git("libgreet", DATA / "git")
        asked = [
            self.farm.request(git=f"file://{repository}", ref="main", target="demo", arches=["x86_64"]),
            self.farm.request(
                srpm=make_srpm("hello-noarch", self.scratch / "srpms"),
                target="demo",
                arches=["x86_64", "aarch64"],
                priority=5,
            ),
        ]
        batch = self.farm.enqueue_many(asked, owner="ann")
        self.ids |= dict(zip(("from-git", "noarch"), (one.id for one in batch.builds), strict=True))
        self.over("succeeded", "from-git", "noarch")
        self.ask("failed", "fails-check", owner="bob", with_=["extras"], timeout_s=600, limits={"memory_bytes": 2**31})
        self.ask("excluded", "exclusivearch-other", owner="bob")
        self.ask("unresolvable", "unresolvable", owner="bob")
        self.ask("retried", "fails-build")
        self.ask("anothers-name", "hello-c", owner="bob", defines={"dist": ".other"})
        self.over("failed", "excluded", "unresolvable", "retried", "anothers-name")
        self.farm.retry(self.ids["retried"], step="build")
        self.over("retried")

    def quarantined(self) -> None:
        """A host has trouble with three builds, which another then builds; a cancelled build; a drained host."""
        self.ask("cancelled", "never-ends")
        attempted(self.place, self.ids["cancelled"], StepKind.BUILD, Status.RUNNING)
        trouble = wire.TroubleReport(code="store-trouble", retryable=True, message="no space left on the device")
        with FakeWorkers(self.place.settings, host="sick", slots=1, names=(BUILD,), answer=lambda _: trouble) as sick:
            self.nap("elsewhere-1", 1)
            self.nap("elsewhere-2", 2)
            self.ask("elsewhere-3", "debuginfo", owner="cem")
            until(self.farm.host_holds, "a quarantine")
            assert len(sick.done) >= 3
        self.farm.cancel(self.ids["cancelled"])
        self.over("elsewhere-1", "elsewhere-2", "elsewhere-3", "cancelled")
        self.farm.drain_host("spare", reason="a new disk", force=True)

    def waiting_for_publish(self) -> None:
        self.place.signal("publish@base", signal.SIGTERM)
        self.place.ended("publish@base")
        until(lambda: not [one for one in self.farm.workers() if one.name == "publish@base"], "publish@base to retire")
        self.ask("logs-wait", "fails-install")
        self.nap("upload-sent", 3)
        for name in ("logs-wait", "upload-sent"):
            attempted(self.place, self.ids[name], StepKind.BUILD, Status.FINISHED)
        self.farm.retry(self.ids["succeeded"], step="upload", arch="x86_64")

    def building(self, played: Played) -> None:
        self.nap("running-killed", 4, nap_s=12)
        attempted(self.place, self.ids["running-killed"], StepKind.BUILD, Status.RUNNING)
        threading.Thread(target=played.announce, daemon=True).start()
        until(lambda: [one for one in self.farm.workers() if one.name == "build@old"], "build@old to register")
        for name, serial in (("running-on", 5), ("reported", 6)):
            self.nap(name, serial)
            played.claim(self.ids[name])
        self.nap("sent", 7)
        attempted(self.place, self.ids["sent"], StepKind.BUILD, Status.DISPATCHED)
        self.nap("ready", 8)
        attempted(self.place, self.ids["ready"], StepKind.BUILD, Status.READY)

    def fetching(self) -> None:
        """`source@base` goes, and `source@old` says that it is there, but takes nothing."""
        self.place.signal("source@base", signal.SIGTERM)
        self.place.ended("source@base")
        until(lambda: not [one for one in self.farm.workers() if one.name == "source@base"], "source@base to retire")
        url = f"http://{LOGIN}@{GIT_SERVER}/git/uses-libgreet"
        self.ids["secret"] = self.farm.enqueue(git=url, target="demo", arches=["x86_64"], owner="ann").id
        attempted(self.place, self.ids["secret"], StepKind.FETCH, Status.DISPATCHED)
        self.ask("fetch-sent", "excludearch", arches=["x86_64", "ppc64le"])
        attempted(self.place, self.ids["fetch-sent"], StepKind.FETCH, Status.DISPATCHED)
        self.ask("fetch-ready", "fails-prep", priority=-3)
        attempted(self.place, self.ids["fetch-ready"], StepKind.FETCH, Status.READY)

    def freeze(self, played: Played) -> None:
        """The scheduler and the worker stand still, and one report is in the scheduler's list."""
        self.place.signal("scheduler", signal.SIGSTOP, is_group=True)
        label = next(label for label in played.reports if label.startswith(f"{self.ids['reported']}."))
        played.control.report(wire.decode_report(played.reports.pop(label)))
        self.place.signal("build@base", signal.SIGSTOP, is_group=True)
        assert step(self.place, self.ids["running-killed"], StepKind.BUILD).status is Status.RUNNING


# --- what is kept -------------------------------------------------------------------------------------------------


def documents(story: Story) -> dict[str, Any]:
    """The command line's words about every build, and of the farm."""
    env = {"FARM_DATA": str(DATA), "FARM_OWNER": "ann", **ENV}

    def said(*words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--json"], env=env)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    shown = {str(id_): said("status", str(id_)) for id_ in sorted(story.ids.values())}
    return {
        "list": said("list", "--limit", "100"),
        "status": shown,
        "artifacts": said("artifacts", str(story.ids["succeeded"])),
        "hosts": [
            {"host": one.host, "hold": one.kind, "role": one.role, "reason": one.reason, "by": one.by}
            for one in story.farm.host_holds().values()
        ],
        "versions": {
            arch: [one.number for one in story.farm.repository_versions("demo", arch)] for arch in ("x86_64", "aarch64")
        },
    }


def redis_keys(settings: Any) -> list[dict[str, Any]]:
    """Every key as plain values, which any version of the server takes, with what it has left to live."""
    client = redis.Redis.from_url(settings.redis, protocol=2)
    found = []
    for key in sorted(client.keys("*")):
        kind = client.type(key).decode()
        value: Any
        match kind:
            case "string":
                value = _text(client.get(key))
            case "hash":
                value = {_text(name): _text(one) for name, one in client.hgetall(key).items()}
            case "list":
                value = [_text(one) for one in client.lrange(key, 0, -1)]
            case "set":
                value = sorted(_text(one) for one in client.smembers(key))
            case _:
                raise AssertionError(f"{key!r} is a {kind}")
        found.append({"key": key.decode(), "kind": kind, "left_ms": client.pttl(key), "value": value})
    client.close()
    return found


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def sqlite_dump(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def postgresql_dump(sqlite_url: str) -> str:
    """The same rows in a PostgreSQL with this version's schema, as pg_dump writes it."""
    with cluster("0006") as server:
        Store.open(server.url, create=True).close()
        source, sink = make_engine(sqlite_url), make_engine(server.url)
        with source.connect() as reading, sink.begin() as writing:
            for table in schema.metadata.sorted_tables:
                rows = [dict(row) for row in reading.execute(table.select()).mappings()]
                if rows:
                    writing.execute(table.insert(), rows)
                _count_on(writing, table)
        source.dispose()
        sink.dispose()
        binary = max(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
        argv = [binary, "--inserts", "--no-owner", "--no-privileges", server.url]
        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    # These two are psql's, and the test has none. Lines of the data are left as they are, empty ones too.
    return "".join(line for line in text.splitlines(True) if not line.startswith(("\\restrict", "\\unrestrict")))


def _count_on(connection: sa.Connection, table: sa.Table) -> None:
    if table.name in ("batch", "build", "step", "attempt"):
        highest = connection.scalar(sa.select(sa.func.max(table.c.id)))
        connection.execute(
            sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :at)"), {"name": table.name, "at": highest}
        )


def write_json(name: str, value: Any) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def keep(story: Story, played: Played) -> None:
    settings = story.place.settings
    frozen_at = datetime.now(UTC)
    write_json("redis.json", redis_keys(settings))
    write_json("said.json", documents(story))
    ((label, report),) = played.reports.items()
    write_json(
        "about.json",
        {
            "frozen_at": frozen_at.isoformat(),
            "data": str(DATA),
            "git_server": GIT_SERVER,
            "login": LOGIN,
            "lease_s": LEASE_S,
            "builds": story.ids,
            "running_on": {"label": label, "token": f"the token of {label}", "report": report.decode()},
        },
    )
    (HERE / "sqlite.sql").write_text(sqlite_dump(DATA / "farm.db"))
    (HERE / "postgresql.sql").write_text(postgresql_dump(settings.database))
    with tarfile.open(HERE / "data.tar.xz", "w:xz") as tar:
        for name in ("artifacts", "repositories", "git"):
            tar.add(DATA / name, name)


@contextmanager
def playing(place: HostsFarm) -> Iterator[Played]:
    played = Played(place, Leases(place.settings), Control(place.settings))
    try:
        yield played
    finally:
        played.stop()


def main() -> int:
    assert wire.VERSION == 4, "this script belongs to a version before"
    assert schema.REVISION == "0006", "this script belongs to a version before"
    assert os.geteuid() == 0, "build roots need root"
    assert queues.build_queue(Arch.X86_64) == BUILD
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    with hosts_farm(DATA, demo_distribution(), ENV) as place, playing(place) as played:
        story = Story(place, DATA)
        story.finished()
        story.quarantined()
        story.waiting_for_publish()
        story.building(played)
        story.fetching()
        story.freeze(played)
        keep(story, played)
    shutil.rmtree(DATA)
    return 0


if __name__ == "__main__":
    sys.exit(main())
