"""Measures the cost of publications to a real Pulp: in requests, against pulp-cli, and as a repository grows.

Owns its own Pulp, Redis and packages, which are made in each run and removed after it. The speed of Pulp's machine is
not a figure: requests are counted, and times are ratios of two runs in turn.
"""

import hashlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import requests
from plumbum import local
from requests.adapters import HTTPAdapter

from deploy.pulp.local import LocalPulp
from deploy.pulp.processes import until
from farm.config import Settings
from farm.model.arch import Arch
from farm.repositories import RepositoryFile, RepositoryKind, RepositoryName, RepositoryPackage, open_repositories
from tests.pulp_server import local_pulp, pulp_settings
from tests.redis_server import redis_server
from tests.rpms import make_rpm, sha256

BUILDS, RPMS_EACH, LOGS_EACH = 20, 10, 2
RPMS = BUILDS * RPMS_EACH
CLI_RPMS = 6  # by pulp-cli in each pair: all 200 would take ten minutes
PAIRS = 3
PACKAGES = 20_000

_TASK_WITHIN_S = 300.0
_V3 = "/pulp/api/v3/"
_PUBLISH = "pulp_rpm.app.tasks.publishing.publish"
_SOURCE = RepositoryName(target="bench", kind=RepositoryKind.SOURCE)
_OS = RepositoryName(target="bench", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
_LOGS = RepositoryName(target="bench", kind=RepositoryKind.LOGS)

_FILLING = "filling"
_UNITS_AT_ONCE = 10_000
#: Packages with names and digests of their own, without files.
_COPIES = """
CREATE TEMPORARY TABLE copy AS
SELECT n, '{name}-' || n AS name, md5('{name}-' || n)::uuid AS id FROM generate_series(1, {count}) AS n;
INSERT INTO core_content SELECT made.* FROM copy, core_content AS one,
  LATERAL jsonb_populate_record(one, jsonb_build_object('pulp_id', copy.id)) AS made
  WHERE one.pulp_id = '{original}';
INSERT INTO rpm_package SELECT made.* FROM copy, rpm_package AS one,
  LATERAL jsonb_populate_record(one, jsonb_build_object(
    'content_ptr_id', copy.id, 'name', copy.name, 'pkgId', encode(sha256(copy.name::bytea), 'hex'),
    'location_href', replace(one.location_href, '{name}', copy.name))) AS made
  WHERE one.content_ptr_id = '{original}';
INSERT INTO core_contentartifact SELECT made.* FROM copy, core_contentartifact AS one,
  LATERAL jsonb_populate_record(one, jsonb_build_object(
    'pulp_id', copy.id, 'content_id', copy.id,
    'relative_path', replace(one.relative_path, '{name}', copy.name))) AS made
  WHERE one.content_id = '{original}';
ANALYZE;
"""

#: Says what is done for the time of the block.
Said = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build's results: the source package first."""

    number: int
    rpms: Sequence[Path]
    logs: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A Pulp that is ready, and where files and a Redis are."""

    pulp: LocalPulp
    api: httpx.Client
    data: Path
    broker_url: str

    def settings(self) -> Settings:
        """The settings of a farm with unused repositories."""
        return pulp_settings(self.pulp, self.data, broker_url=self.broker_url)

    def finished(self, task: str) -> Mapping[str, Any]:
        """A task of Pulp's after its end."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.ask(task))
            return found["state"] in ("completed", "failed", "canceled", "skipped")

        until(ended, _TASK_WITHIN_S, f"Pulp's task {task}")
        if found["state"] != "completed":
            raise RuntimeError(f"Pulp's task {found['name']} {found['state']}: {found['error']}")
        return found

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self.api.get(path, params=parameters)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer = self.api.post(path, json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def upload(self, path: str, file: IO[bytes]) -> dict[str, Any]:
        answer = self.api.post(path, files={"file": file})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def figures(data: Path, said: Said) -> dict[str, object]:
    """All figures of Pulp by name."""
    data.mkdir(parents=True)
    with ExitStack() as stack:
        with said("Pulp: starting it"):
            pulp = stack.enter_context(local_pulp())
            socket = stack.enter_context(redis_server(data / "redis.sock"))
            api = stack.enter_context(_signed_in(pulp))
        bench = Bench(pulp=pulp, api=api, data=data, broker_url=f"redis+socket://{socket}")
        return _together(bench, said) | _growth(bench, said)


@contextmanager
def _signed_in(pulp: LocalPulp) -> Iterator[httpx.Client]:
    """With a session: a password in each request would take a third of a second of a processor that is measured."""
    with httpx.Client(base_url=pulp.url, timeout=60) as api:
        api.post(f"{_V3}login/", auth=(pulp.username, pulp.password)).raise_for_status()
        api.headers["X-CSRFToken"] = api.cookies["csrftoken"]
        yield api


# --- many builds at once, and pulp-cli --------------------------------------------------------------------------------


def _together(bench: Bench, said: Said) -> dict[str, object]:
    asked: list[Counter[str]] = []
    made: list[dict[str, dict[str, int]]] = []
    ours_s, cli_s = [], []
    for number in range(PAIRS):
        builds = make_builds(bench.data / f"ours-{number}", f"ours-{number}", BUILDS)
        settings = bench.settings()
        with said(f"Pulp: {RPMS} RPMs of {BUILDS} builds, pair {number + 1} of {PAIRS}"), counted() as counts:
            ours_s.append(publish_builds(settings, builds))
        asked.append(counts)
        made.append(_made(bench, settings.pulp_prefix))
        with said(f"Pulp: {CLI_RPMS} RPMs by pulp-cli, pair {number + 1} of {PAIRS}"):
            cli_s.append(_by_cli(bench, f"cli-{number}"))
    ratios = [cli / ours for cli, ours in zip(cli_s, ours_s, strict=True)]
    return {
        "pulp_requests_per_rpm": round(statistics.median(counts.total() for counts in asked) / RPMS, 2),
        "pulp_requests": _medians(asked),
        "pulp_versions": _medians([one["versions"] for one in made]),
        "pulp_publications": _medians([one["publications"] for one in made]),
        "pulp_over_cli": round(statistics.median(ratios), 2),
        "pulp_seconds": {
            f"ours_{RPMS}_rpms": round(statistics.median(ours_s), 2),
            f"cli_{RPMS}_rpms_from_{CLI_RPMS}": round(statistics.median(cli_s), 1),
        },
    }


def make_builds(folder: Path, name: str, count: int) -> list[Build]:
    """With content that no other name has."""
    folder.mkdir()
    builds = []
    for number in range(count):
        rpms = [make_rpm(folder, f"{name}-{number}", arch="src")]
        rpms += [make_rpm(folder, f"{name}-{number}-{part}", arch="x86_64") for part in range(RPMS_EACH - 1)]
        logs = [folder / f"{number}-{part}.log" for part in range(LOGS_EACH)]
        for log in logs:
            log.write_text(f"{log}\n" * 100)
        builds.append(Build(number=number, rpms=rpms, logs=logs))
    return builds


def publish_builds(settings: Settings, builds: Sequence[Build]) -> float:
    """Seconds until all that end together are published; each opens the repositories as its upload step does."""
    together = threading.Barrier(len(builds) + 1)

    def publish(build: Build) -> None:
        together.wait()
        repositories = open_repositories(settings)
        for name, rpms in ((_SOURCE, build.rpms[:1]), (_OS, build.rpms[1:])):
            version = repositories.add(name, [_package(path, build.number) for path in rpms])
            repositories.url(name, version)
        repositories.add_files(_LOGS, [_file(path, build.number) for path in build.logs])

    with ThreadPoolExecutor(len(builds)) as pool:
        futures = [pool.submit(publish, build) for build in builds]
        together.wait()
        start = time.monotonic()
        for future in futures:
            future.result()
        return time.monotonic() - start


def _package(path: Path, build: int) -> RepositoryPackage:
    labels = {"build": str(build), "arch": path.name.split(".")[-2], "attempt": f"{build}.build.x86_64.1", "batch": "1"}
    return RepositoryPackage(path=path, sha256=sha256(path), filename=path.name, labels=labels)


def _file(path: Path, build: int) -> RepositoryFile:
    name = f"{build}/build.x86_64.1/{path.name}"
    return RepositoryFile(path=path, sha256=sha256(path), name=name, labels={"build": str(build)})


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """The requests of this process to Pulp in the block, by kind."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()
    send = HTTPAdapter.send

    def counting(self: HTTPAdapter, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        with lock:
            counts[_kind(request)] += 1
        return send(self, request, *given, **named)

    HTTPAdapter.send = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]


def _kind(request: requests.PreparedRequest) -> str:
    path = urlsplit(request.url or "").path
    if request.method == "GET":
        return "task polls" if "/tasks/" in path else "look-ups"
    return "uploads" if path.endswith("/upload/") or "/uploads/" in path else "others"


def _made(bench: Bench, prefix: str) -> dict[str, dict[str, int]]:
    """Versions with something in them and publications, by kind of repository, as Pulp counts them."""
    versions, publications = {}, {}
    for name, plugin in ((_SOURCE, "rpm/rpm"), (_OS, "rpm/rpm"), (_LOGS, "file/file")):
        found = bench.ask(f"{_V3}repositories/{plugin}/", name=f"{prefix}/{name.path}")["results"][0]
        versions[name.kind.value] = bench.ask(found["versions_href"], number__gt="0")["count"]
        asked = bench.ask(f"{_V3}publications/{plugin}/", repository=found["pulp_href"], limit="1000")["results"]
        publications[name.kind.value] = sum(not one["repository_version"].endswith("/versions/0/") for one in asked)
    return {"versions": versions, "publications": publications}


def _medians(made: Sequence[Mapping[str, int]]) -> dict[str, float]:
    return {kind: statistics.median(one[kind] for one in made) for kind in made[0]}


def _by_cli(bench: Bench, name: str) -> float:
    """Seconds that 200 RPMs take pulp-cli as its users have it: with a configuration file, and one command for each
    RPM. A few are timed and stand for all; one publication and one distribution are added to that."""
    home = bench.data / name
    home.mkdir()
    paths = [make_rpm(home, f"{name}-{number}", arch="x86_64") for number in range(CLI_RPMS)]
    run = _cli(bench, home)
    run("repository", "create", "--name", name)  # also has it keep the description of the API
    start = time.monotonic()
    for path in paths:
        # Its default is to publish after each.
        run("content", "upload", "--file", str(path), "--repository", name, "--no-publish")
    uploads_s = time.monotonic() - start
    run("publication", "create", "--repository", name)
    run("distribution", "create", "--name", name, "--base-path", name, "--repository", name)
    return uploads_s * RPMS / CLI_RPMS + (time.monotonic() - start - uploads_s)


def _cli(bench: Bench, home: Path) -> Callable[..., None]:
    """A function that runs a command of `pulp rpm`."""
    pulp = bench.pulp
    config = home / "cli.toml"
    config.touch(mode=0o600)
    config.write_text(f'[cli]\nbase_url = "{pulp.url}"\nusername = "{pulp.username}"\npassword = "{pulp.password}"\n')
    binaries = pulp.home.venv / "bin"
    command = local[str(binaries / "python")][str(binaries / "pulp"), "--config", str(config), "rpm"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "LC_ALL": "C.UTF-8"}

    def run(*words: str) -> None:
        command[words].run(stdin=None, env=env)

    return run


# --- a repository that grows ------------------------------------------------------------------------------------------


def _growth(bench: Bench, said: Said) -> dict[str, object]:
    with said(f"Pulp: a repository of {PACKAGES} packages"):
        large = bench.settings()
        open_repositories(large).add(_OS, [])
        _fill(bench, f"{large.pulp_prefix}/{_OS.path}")
    apart, whole, seconds = [], [], []
    for number in range(PAIRS):
        with said(f"Pulp: one build to an empty repository and to that one, pair {number + 1} of {PAIRS}"):
            empty = bench.settings()
            open_repositories(empty).add(_OS, [])
            empty_s, empty_publication_s = _add_one(bench, empty, f"empty-{number}")
            large_s, large_publication_s = _add_one(bench, large, f"large-{number}")
        whole.append(large_s / empty_s)
        apart.append((large_s - large_publication_s) / (empty_s - empty_publication_s))
        seconds.append((empty_s, empty_publication_s, large_s, large_publication_s))
    names = ("empty_s", "empty_publication_s", "large_s", "large_publication_s")
    return {
        "pulp_growth": round(statistics.median(apart), 2),
        "pulp_growth_with_publication": round(statistics.median(whole), 2),
        "pulp_growth_seconds": {
            name: round(statistics.median(column), 2)
            for name, column in zip(names, zip(*seconds, strict=True), strict=True)
        },
    }


def _fill(bench: Bench, repository: str) -> None:
    """One real package, and copies of what Pulp's database has of it: uploads would take ten minutes, and Pulp's own
    synchronisation from a folder takes two. The copies get into the repository by requests, as all else does."""
    found = bench.ask(f"{_V3}repositories/rpm/rpm/", name=repository)["results"][0]
    filling = bench.data / "filling"
    filling.mkdir()
    with make_rpm(filling, _FILLING, arch="x86_64").open("rb") as file:
        original = bench.upload(f"{_V3}content/rpm/packages/upload/", file)["prn"].rpartition(":")[2]
    bench.pulp.home.cluster.sql(_COPIES.format(original=original, name=_FILLING, count=PACKAGES))
    names = [f"{_FILLING}-{number}" for number in range(1, PACKAGES + 1)]
    for start in range(0, PACKAGES, _UNITS_AT_ONCE):
        some = [
            f"prn:rpm.package:{UUID(hashlib.md5(name.encode()).hexdigest())}" for name in names[start:][:_UNITS_AT_ONCE]
        ]
        bench.finished(bench.post(f"{found['pulp_href']}modify/", {"add_content_units": some})["task"])


def _add_one(bench: Bench, settings: Settings, name: str) -> tuple[float, float]:
    """Seconds to add one build's ten RPMs, and how many of those Pulp took for the publication."""
    folder = bench.data / name
    folder.mkdir()
    packages = [_package(make_rpm(folder, f"{name}-{part}", arch="x86_64"), 1) for part in range(RPMS_EACH)]
    repositories = open_repositories(settings)
    start = time.monotonic()
    repositories.add(_OS, packages)
    seconds = time.monotonic() - start
    task = bench.ask(f"{_V3}tasks/", name=_PUBLISH, ordering="-pulp_created", limit="1")["results"][0]
    lasted = datetime.fromisoformat(task["finished_at"]) - datetime.fromisoformat(task["started_at"])
    return seconds, lasted.total_seconds()
