"""Reads the content of a real Pulp without the farm, and runs publishers in processes that can be killed.

Owns the invariants that hold after every fault. Asks the database and the content app, never the farm or the API.
"""

import gzip
import hashlib
import multiprocessing
import resource
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import psycopg
import redis

from deploy.pulp.local import LocalPulp
from farm.config import Settings
from farm.model.arch import Arch
from farm.repositories.base import KEEP_VERSIONS, RepositoryKind, RepositoryName, RepositoryPackage
from farm.repositories.pulp import PulpRepositories
from tests.faulty_proxy import FaultyProxy
from tests.pulp_server import pulp_settings
from tests.redis_server import redis_server
from tests.rpms import make_rpm, sha256
from tests.waiting import until

NAME = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
WITHIN_S = 60.0
_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"
#: Not forked from a test's process, whose threads may hold any lock at that moment.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["farm.repositories.pulp", "tests.pulp_watch"])


@dataclass(frozen=True, kw_only=True)
class Place:
    """A farm of a test's own: a prefix in a Pulp that it reaches through a proxy, and a Redis."""

    pulp: LocalPulp
    proxy: FaultyProxy
    settings: Settings
    backend: PulpRepositories

    def again(self, **more: Any) -> PulpRepositories:
        """The same farm from another process, as it were: with nothing remembered. `more` are settings."""
        return PulpRepositories(self.changed(**more), grace_s=-1.0)

    def changed(self, **more: Any) -> Settings:
        return Settings(**{**vars(self.settings), **more})

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis)

    def let_locks_run_out(self) -> None:
        """As they do 15 s after their owner died; tests/contract/test_pulp_together.py looks at that."""
        with self.redis() as client:
            client.flushdb()

    @property
    def repository(self) -> str:
        return f"{self.settings.pulp_prefix}/{NAME.path}"

    # --- what Pulp holds ------------------------------------------------------------------------------------------

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction in Pulp's database, committed at the end."""
        with psycopg.connect(host=str(self.pulp.home.cluster.socket), user="pulp", dbname="pulp") as client:
            yield client

    def sql(self, query: str, *given: object) -> list[Any]:
        """The first column of the result; empty for a statement without rows."""
        with self.database() as client:
            cursor = client.execute(query, given)  # type: ignore[call-overload]
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def held(self) -> Iterator[None]:
        """No task can change the repository for the time of the block: it is locked in the database."""
        with self.database() as client:
            client.execute("SELECT 1 FROM core_repository WHERE name = %s FOR UPDATE", (self.repository,))
            yield

    def versions(self) -> list[int]:
        """Numbers of the complete versions that exist, oldest first."""
        return self.sql(
            "SELECT number FROM core_repositoryversion v JOIN core_repository r ON r.pulp_id = v.repository_id "
            "WHERE r.name = %s AND v.complete ORDER BY number",
            self.repository,
        )

    def publications(self) -> list[int]:
        """The version of each publication, in order."""
        return self.sql(
            "SELECT v.number FROM core_publication p JOIN core_repositoryversion v ON v.pulp_id = "
            "p.repository_version_id JOIN core_repository r ON r.pulp_id = v.repository_id "
            "WHERE r.name = %s AND p.complete ORDER BY v.number",
            self.repository,
        )

    def unfinished(self) -> list[str]:
        """All tasks that Pulp has not done yet."""
        return self.sql("SELECT state || ' ' || name FROM core_task WHERE state IN ('waiting', 'running', 'canceling')")

    # --- what clients get -----------------------------------------------------------------------------------------

    def served(self, version: int | None = None) -> Counter[tuple[str, str]]:
        """File name and sha256 of each package in the repository, after all digests were checked."""
        return Counter((path.rpartition("/")[2], digest) for path, digest in read_served(self.backend_url(version)))

    def backend_url(self, version: int | None) -> str:
        last = "current" if version is None else str(version)
        return f"{self.pulp.content_url}{self.settings.pulp_prefix}/{NAME.path}/{last}/"

    # --- the invariants -------------------------------------------------------------------------------------------

    def assert_well(self, *published: Sequence[RepositoryPackage], download: bool = True) -> None:
        """Every package exactly once and nothing else, no task left, the newest version published."""
        wanted = Counter({(one.filename, one.sha256) for some in published for one in some})
        assert self.served() == wanted
        until(lambda: not self.unfinished(), lambda: f"unfinished tasks: {self.unfinished()}")
        versions = self.versions()
        assert versions[-1] in self.publications()
        assert self.served(versions[-1]) == wanted, "the newest version is not served under its number"
        if download and wanted:
            path, digest = read_served(self.backend_url(None))[0]
            content = httpx.get(f"{self.backend_url(None)}{path}", follow_redirects=True).raise_for_status().content
            assert hashlib.sha256(content).hexdigest() == digest


@contextmanager
def place(pulp: LocalPulp, tmp_path: Path, **more: Any) -> Iterator[Place]:
    """`more` are settings; small waits unless they say otherwise."""
    with ExitStack() as stack:
        # A short path for the socket.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="farm-r-")))
        socket = stack.enter_context(redis_server(folder / "redis.sock"))
        # Pulp takes seconds to make its API's description, and each of a test's farms would ask for it.
        proxy = stack.enter_context(FaultyProxy(pulp.url, kept=r"/docs/api\.json$"))
        waits = {"pulp_request_s": 10.0, "pulp_retry_s": 20.0, "pulp_task_s": 40.0}
        given = {"broker_url": f"redis+socket://{socket}", "pulp_url": proxy.url, **waits, **more}
        settings = pulp_settings(pulp, tmp_path, **given)
        yield Place(pulp=pulp, proxy=proxy, settings=settings, backend=PulpRepositories(settings, grace_s=-1.0))


def packages(
    folder: Path, prefix: str, count: int = 1, *, payload_bytes: int = 0, **more: Any
) -> list[RepositoryPackage]:
    """RPMs `prefix0`, `prefix1` and so on that no Pulp has seen before."""
    more = {"summary": secrets.token_hex(8).encode(), **more}
    made = [make_rpm(folder, f"{prefix}{number}", **more) for number in range(count)]
    for path in made if payload_bytes else ():
        with path.open("ab") as file:
            file.write(bytes(payload_bytes))
    return [RepositoryPackage(path=path, sha256=sha256(path), filename=path.name) for path in made]


def read_served(url: str) -> list[tuple[str, str]]:
    """Path below the URL and sha256 of each package, as a package manager reads it.

    Fails for metadata that is not what repomd.xml says.
    """
    with httpx.Client(follow_redirects=True, timeout=30.0) as client:
        repomd = ET.fromstring(client.get(f"{url}repodata/repomd.xml").raise_for_status().content)
        texts = {}
        for record in repomd.iter(f"{_REPO}data"):
            location, checksum = record.find(f"{_REPO}location"), record.find(f"{_REPO}checksum")
            assert location is not None
            assert checksum is not None
            content = client.get(url + location.attrib["href"]).raise_for_status().content
            assert hashlib.new(checksum.attrib["type"], content).hexdigest() == checksum.text, record.attrib["type"]
            texts[record.attrib["type"]] = gzip.decompress(content)
    found = []
    for one in ET.fromstring(texts["primary"]).iter(f"{_COMMON}package"):
        location, checksum = one.find(f"{_COMMON}location"), one.find(f"{_COMMON}checksum")
        assert location is not None
        assert checksum is not None
        found.append((location.attrib["href"], checksum.text or ""))
    return found


# --- publishers in processes of their own ---------------------------------------------------------------------------


def publisher(settings: Settings, given: Sequence[RepositoryPackage]) -> BaseProcess:
    """A started process that adds the packages and ends with 0."""
    process = _PROCESSES.Process(target=_publish, args=(settings, given), daemon=True)
    process.start()
    return process


def caller(settings: Settings, method: str, given: Sequence[object]) -> BaseProcess:
    """A started process that calls this method of the back end, and ends with 0."""
    process = _PROCESSES.Process(target=_call, args=(settings, method, given), daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """Returns after its end. To be called by any thread: only its owner may join it."""
    process.kill()
    assert connection.wait([process.sentinel], WITHIN_S)


def _publish(settings: Settings, given: Sequence[RepositoryPackage]) -> None:
    PulpRepositories(settings, grace_s=-1.0).add(NAME, given)


def _call(settings: Settings, method: str, given: Sequence[object]) -> None:
    getattr(PulpRepositories(settings, grace_s=-1.0), method)(*given)


def publishers(
    jobs: Sequence[tuple[Settings, Sequence[Sequence[RepositoryPackage]]]], *, keep: int = KEEP_VERSIONS
) -> list[list[int]]:
    """The numbers that as many processes get for their additions, each of which is made in a thread of its own."""
    pipes, processes = [], []
    for settings, given in jobs:
        ours, theirs = _PROCESSES.Pipe()
        process = _PROCESSES.Process(target=_publish_all, args=(settings, given, keep, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for process in processes:
        process.join(WITHIN_S * 2)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [list(pipe.recv()) for pipe in pipes]


def _publish_all(settings: Settings, given: Sequence[Sequence[RepositoryPackage]], keep: int, say: Any) -> None:
    backend = PulpRepositories(settings, grace_s=-1.0)
    with ThreadPoolExecutor(len(given)) as pool:
        say.send(list(pool.map(lambda one: backend.add(NAME, one, keep=keep), given)))


def publisher_memory(
    settings: Settings, before: Sequence[RepositoryPackage], given: Sequence[RepositoryPackage]
) -> int:
    """By how many bytes the peak memory of a process grows when it adds `given` after it has added `before`."""
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_measure, args=(settings, before, given, theirs), daemon=True)
    process.start()
    theirs.close()
    grown_bytes = int(ours.recv()) if ours.poll(WITHIN_S) else -1
    process.join(WITHIN_S)
    assert process.exitcode == 0
    return grown_bytes


def _measure(
    settings: Settings, before: Sequence[RepositoryPackage], given: Sequence[RepositoryPackage], say: Any
) -> None:
    backend = PulpRepositories(settings, grace_s=-1.0)
    backend.add(NAME, before)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backend.add(NAME, given)
    say.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) * 1024)
