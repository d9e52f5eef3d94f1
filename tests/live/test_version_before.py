"""A farm of the version before, with work in flight, is opened and carried on by this one: nothing lost, nothing twice.

The state is tests/data/farm-0006 (SQL schema 0006, messages of version 4). Three farms are made of it: on SQLite and on
PostgreSQL with the Redis that it had, and on SQLite with an empty Redis, as `farm up` starts one.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from farm import Farm, wire
from farm.cli.main import app
from farm.config import Settings
from farm.model.build import Attempt, Build
from farm.model.outcome import Outcome
from farm.store.store import Store
from farm.up.embedded import running_farm
from tests.databases import new_database
from tests.fetching import Server, http_server, shared_roots
from tests.packages import make_git, make_srpm
from tests.redis_server import redis_server
from tests.up import published
from tests.version_before import VersionBefore

pytestmark = pytest.mark.live
WITHIN_S = 120.0
#: Reports of one version back are read. Workers of an older one have to end with the upgrade: they would keep their
#: leases and send their reports again and again.
READS_OLD_REPORTS = wire.VERSION <= 5

#: The end of each build that was not over.
ENDS = {
    "succeeded": Outcome.SUCCEEDED,  # its upload was asked for once more, and waited for a worker
    "logs-wait": Outcome.FAILED,
    "upload-sent": Outcome.SUCCEEDED,
    "running-killed": Outcome.SUCCEEDED,
    "running-on": Outcome.SUCCEEDED,
    "reported": Outcome.SUCCEEDED,
    "sent": Outcome.SUCCEEDED,
    "ready": Outcome.SUCCEEDED,
    "secret": Outcome.SUCCEEDED,
    "fetch-sent": Outcome.SUCCEEDED,
    "fetch-ready": Outcome.FAILED,
}
PUBLISHED = sorted(
    [
        *(f"naps-{serial}-1.demo1.x86_64.rpm" for serial in range(1, 9)),
        "excludearch-1.0-1.demo1.x86_64.rpm",
        "hello-c-1.0-1.demo1.x86_64.rpm",
        "hello-noarch-1.0-1.demo1.noarch.rpm",
        "debuginfo-1.0-1.demo1.x86_64.rpm",
        "libgreet-1.0-1.demo1.x86_64.rpm",
        "libgreet-devel-1.0-1.demo1.x86_64.rpm",
        "uses-libgreet-1.0-1.demo1.x86_64.rpm",
    ]
)


@dataclass(kw_only=True)
class Upgraded:
    """`opened` are the documents that today's command line printed before anything ran again, in the form of `said`."""

    before: VersionBefore
    settings: Settings
    server: Server
    opened: dict[str, Any]
    farm: Farm
    has_redis: bool

    def build(self, name: str) -> Build:
        return self.farm.build(self.before.builds[name])

    def attempts(self, name: str, kind: str) -> tuple[Attempt, ...]:
        (step,) = [step for step in self.build(name).steps if step.kind == kind]
        return step.attempts


FARMS = ("sqlite", "postgresql", "sqlite, empty Redis")


@pytest.fixture(scope="module")
def all_upgraded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path
) -> Iterator[dict[str, Upgraded]]:
    """By name. All run at once, since they mostly wait, and everything that was in flight is over."""
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    with ExitStack() as stack:
        farms = {}
        for name in FARMS:
            url = ""
            if name == "postgresql":
                url = stack.enter_context(new_database(request.getfixturevalue("postgresql")))
            data = tmp_path_factory.mktemp("v")
            farms[name] = stack.enter_context(
                upgraded_farm(data, url, demo_distribution, has_redis="empty" not in name)
            )
        for one in farms.values():
            for build in ENDS:
                one.farm.wait(one.before.builds[build], timeout_s=WITHIN_S)
        yield farms


@pytest.fixture(scope="module", params=FARMS)
def upgraded(request: pytest.FixtureRequest, all_upgraded: dict[str, Upgraded]) -> Upgraded:
    return all_upgraded[request.param]


@contextmanager
def upgraded_farm(data: Path, url: str, distribution: Path, *, has_redis: bool) -> Iterator[Upgraded]:
    """A farm that runs on the state of the version before."""
    with ExitStack() as stack:
        server = stack.enter_context(http_server())
        before = VersionBefore(data=data, git_server=f"127.0.0.1:{server.port}", loaded_at=datetime.now(UTC))
        server.login, server.repositories = before.about["login"], data / "served"
        server.repositories.mkdir()
        make_git("uses-libgreet", server.repositories)
        broker = data / "broker/redis.sock" if has_redis else None
        settings = put(before, url, broker, distribution)
        if broker is not None:
            client = redis.Redis(unix_socket_path=str(stack.enter_context(redis_server(broker))), protocol=2)
            before.put_redis(client)
            stack.callback(client.close)
            if READS_OLD_REPORTS:
                stack.enter_context(renewed(client, before.about["running_on"]["label"], before.about["lease_s"]))
        Store.open(settings.database, create=True).close()
        opened = documents(before, settings)
        stack.enter_context(running_farm(settings, build_slots=2))
        farm = stack.enter_context(Farm.connect(settings))
        if broker is not None:
            client.lpush("control:build.x86_64", before.about["running_on"]["report"])
        yield Upgraded(before=before, settings=settings, server=server, opened=opened, farm=farm, has_redis=has_redis)


def put(before: VersionBefore, url: str, broker: Path | None, distribution: Path) -> Settings:
    before.put_files()
    (before.data / "demo").mkdir()
    (before.data / "demo/distribution").symlink_to(distribution)
    # Caches of a host, which a farm makes again when it does not find them.
    for cache in ("templates", "sandbox"):
        (before.data / cache).symlink_to(shared_roots() / cache)
    if url:
        before.put_postgresql(url)
    else:
        before.put_sqlite()
    env = {
        "FARM_DATA": str(before.data),
        "FARM_OWNER": "ann",
        "FARM_UPLOAD_LOGS": "yes",
        "FARM_ALLOW_NETWORKS": "127.0.0.0/8",
        "FARM_LEASE_S": str(before.about["lease_s"]),
        "FARM_RETRY_DELAY_S": "0.1",
        "FARM_DATABASE_URL": url,
        "FARM_BROKER_URL": f"redis+socket://{broker}" if broker else "",
    }
    return Settings.from_env({key: value for key, value in env.items() if value})


@contextmanager
def renewed(client: redis.Redis, label: str, lease_s: int) -> Iterator[None]:
    """A worker of the version before goes on with this attempt: it keeps the lease for as long as there is one."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(1):
            client.pexpire(f"farm:lease:{label}", lease_s * 1000)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def documents(before: VersionBefore, settings: Settings) -> dict[str, Any]:
    """The documents of today that belong to those of then."""
    env = {"FARM_DATA": str(settings.data), "FARM_OWNER": "ann", "FARM_UPLOAD_LOGS": "yes"}
    given = {"FARM_DATABASE_URL": settings.database_url, "FARM_BROKER_URL": settings.broker_url}
    env |= {key: value for key, value in given.items() if value}

    def printed(*words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--json"], env=env)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    with Farm.connect(settings) as farm:
        holds = [
            {"host": one.host, "hold": one.kind, "role": one.role, "reason": one.reason, "by": one.by}
            for one in farm.host_holds().values()
        ]
        versions = {
            arch: [one.number for one in farm.repository_versions("demo", arch)] for arch in ("x86_64", "aarch64")
        }
    return {
        "list": printed("list", "--limit", "100"),
        "status": {number: printed("status", number) for number in before.said["status"]},
        "artifacts": printed("artifacts", str(before.builds["succeeded"])),
        "hosts": holds,
        "versions": versions,
    }


_LOGS_ONLY = "logs and records only: "


def as_of_today(said: Any) -> Any:
    """The documents of then, with what has changed since: logs are published by a step of their own."""
    if isinstance(said, dict):
        return {key: _steps_of_today(value) if key == "steps" else as_of_today(value) for key, value in said.items()}
    return [as_of_today(one) for one in said] if isinstance(said, list) else said


def _steps_of_today(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in steps:
        of_then = {key: value for key, value in step.items() if key != "logs_only"}
        if not step["logs_only"]:
            found.append(of_then | {"counts": True})
            continue
        if step["arch"]:
            reason = step["reason"].removeprefix(_LOGS_ONLY)
            upload = {"step": "upload", "arch": step["arch"], "status": "finished", "outcome": "cancelled"}
            found.append(upload | {"reason": reason, "waits_for": None, "counts": True, "attempts": []})
        attempts = [one | {"label": one["label"].replace(".upload.", ".logs.")} for one in step["attempts"]]
        found.append(of_then | {"step": "logs", "counts": False, "attempts": attempts})
    return found


def differences(was: Any, is_now: Any, where: str = "") -> list[str]:
    """Where a document of today says something else than that of then. It may say more."""
    if where.endswith(".waits_for"):  # in words, which may be put better
        return [] if bool(was) == bool(is_now) else [f"{where}: {was!r} became {is_now!r}"]
    if isinstance(was, dict) and isinstance(is_now, dict):
        missing = [f"{where}.{key} is missing" for key in was if key not in is_now]
        return missing + [
            found for key in was if key in is_now for found in differences(was[key], is_now[key], f"{where}.{key}")
        ]
    if isinstance(was, list) and isinstance(is_now, list) and len(was) == len(is_now):
        return [
            found
            for number, (one, other) in enumerate(zip(was, is_now, strict=True))
            for found in differences(one, other, f"{where}[{number}]")
        ]
    return [] if was == is_now else [f"{where}: {was!r} became {is_now!r}"]


def test_the_farm_is_shown_as_the_version_before_showed_it(upgraded: Upgraded) -> None:
    said = as_of_today(upgraded.before.said)
    assert len(said["status"]) == len(upgraded.before.builds) == 22
    assert differences(said, upgraded.opened) == []


def test_all_that_was_in_flight_ends_as_it_would_have(upgraded: Upgraded) -> None:
    ended = {name: (build.outcome, build.reason) for name in ENDS if (build := upgraded.build(name))}
    assert {name: outcome for name, (outcome, _) in ended.items()} == ENDS, ended


def test_each_package_is_published_once(upgraded: Upgraded) -> None:
    assert published(upgraded.settings) == PUBLISHED
    assert published(upgraded.settings, arch="aarch64") == ["hello-noarch-1.0-1.demo1.noarch.rpm"]


def test_no_step_succeeds_twice(upgraded: Upgraded) -> None:
    again = {(upgraded.before.builds["succeeded"], "upload")}
    for name in ENDS:
        build = upgraded.build(name)
        for step in build.steps:
            succeeded = [one.label for one in step.attempts if one.outcome is Outcome.SUCCEEDED]
            assert len(succeeded) <= 1 + ((build.id, step.kind) in again), succeeded
            assert not [one for one in step.attempts if one.finished_at is None], step


def test_reports_of_workers_of_the_version_before_count(upgraded: Upgraded) -> None:
    """One was in the scheduler's list, one comes after the upgrade; a worker that was killed sends none."""
    if not upgraded.has_redis:
        pytest.skip("what was in Redis is gone")
    if not READS_OLD_REPORTS:
        pytest.skip("reports of version 4 are too old to be read, and the attempts are repeated")
    reported, running_on, killed = (
        upgraded.attempts(name, "build") for name in ("reported", "running-on", "running-killed")
    )
    assert [(one.worker, one.outcome) for one in reported] == [("build@old", Outcome.SUCCEEDED)]
    assert [(one.worker, one.outcome) for one in running_on] == [("build@old", Outcome.SUCCEEDED)]
    assert [one.outcome for one in killed] == [Outcome.ERRORED, Outcome.SUCCEEDED]


def test_a_secret_address_is_fetched_with_its_password_and_not_shown(upgraded: Upgraded) -> None:
    assert "/git/uses-libgreet/info/refs" in upgraded.server.seen
    (fetch,) = upgraded.attempts("secret", "fetch")
    assert fetch.outcome is Outcome.SUCCEEDED
    assert "open-sesame" not in json.dumps(upgraded.opened)


def test_logs_that_waited_are_published(upgraded: Upgraded) -> None:
    folder = upgraded.settings.repositories_dir / f"demo/logs/{upgraded.before.builds['logs-wait']}"
    assert {path.name for path in folder.iterdir()} == {"fetch.1", "srpm.1", "build.x86_64.1"}


def test_all_builds_belong_to_the_default_project(upgraded: Upgraded) -> None:
    builds = upgraded.farm.builds(limit=1000)
    assert {build.project for build in builds} == {"main"}
    assert upgraded.farm.builds(project="main", limit=1000) == builds
    assert [one.name for one in upgraded.farm.projects()] == ["main"]


def test_builds_that_were_over_are_as_they_were(upgraded: Upgraded) -> None:
    now = documents(upgraded.before, upgraded.settings)
    over = [str(number) for name, number in upgraded.before.builds.items() if name not in ENDS]
    assert len(over) == 11
    for number in over:
        assert differences(as_of_today(upgraded.before.said)["status"][number], now["status"][number]) == []
    assert differences(upgraded.before.said["hosts"], now["hosts"]) == []


def test_versions_of_repositories_go_on_from_the_last(upgraded: Upgraded) -> None:
    was = upgraded.before.said["versions"]["x86_64"]
    numbers = [one.number for one in upgraded.farm.repository_versions("demo", "x86_64")]
    assert numbers[-len(was) :] == was
    assert numbers == list(range(numbers[0], -1, -1))
    assert upgraded.farm.repository("demo", "x86_64").version == numbers[0] > was[0]


def test_logs_and_files_of_old_builds_are_read(upgraded: Upgraded, tmp_path: Path) -> None:
    number = upgraded.before.builds["from-git"]
    assert b"rpmbuild" in b"".join(upgraded.farm.log(number, "build"))
    files = {path.name for path in upgraded.farm.download(number, tmp_path)}
    assert "libgreet-1.0-1.demo1.x86_64.rpm" in files


def test_an_old_failed_build_is_retried_from_its_recorded_source(upgraded: Upgraded) -> None:
    first = upgraded.build("failed")
    upgraded.farm.retry(first.id, step="build", arch="x86_64")
    again = upgraded.farm.wait(first.id, timeout_s=WITHIN_S)
    assert (again.outcome, again.reason) == (Outcome.FAILED, first.reason)
    assert len(upgraded.attempts("failed", "build")) == 2
    assert len(upgraded.attempts("failed", "srpm")) == 1
    assert (again.options.with_, again.options.timeout_s) == (("extras",), 600)


def test_a_package_name_keeps_its_owner(upgraded: Upgraded, tmp_path: Path) -> None:
    srpm = make_srpm("libgreet", tmp_path, defines=[("dist", ".bobs")])
    build = upgraded.farm.enqueue(srpm=srpm, target="demo", arches=["x86_64"], owner="bob")
    ended = build.wait(timeout_s=WITHIN_S)
    assert ended.outcome is Outcome.FAILED
    assert "ann" in (ended.reason or "")
