"""Reads the final state: SQL, the repositories as files, processes, mounts, cgroups, scratch, the broker's keys.

Reads with its own SQL and its own parser; of the farm's code it uses nothing. Judges nothing.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.siege.sql import Sql
from tests.siege.world import EVIL_ROLE, QUEUES, World

_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"


@dataclass(frozen=True, kw_only=True)
class BuildRow:
    id: int
    filename: str
    status: str
    outcome: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepRow:
    id: int
    build: int
    kind: str
    arch: str
    status: str
    outcome: str | None


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    id: int
    step: int
    number: int
    status: str
    outcome: str | None
    reason: str | None = None
    worker: str | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    attempt: int
    name: str
    kind: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """A package in the newest version of a repository: the facts of its metadata and of its file."""

    repository: str
    filename: str
    said: str
    is_: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text, and where it is. `build` is None for one that is of the whole farm."""

    build: int | None
    where: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`pool` has the files of all versions, as (repository, file name, digest). `words` are all texts that the farm
    keeps of builds and of itself. `left` is what should be gone."""

    builds: tuple[BuildRow, ...] = ()
    steps: tuple[StepRow, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    artifacts: tuple[ArtifactRow, ...] = ()
    closing: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    pool: tuple[tuple[str, str, str], ...] = ()
    words: tuple[Words, ...] = ()
    left: tuple[str, ...] = ()


def collect(world: World) -> Facts:
    """Raises DatabaseAway, redis.RedisError."""
    sql = world.sql()
    try:
        return Facts(
            builds=tuple(_builds(sql)),
            steps=tuple(
                StepRow(id=row[0], build=row[1], kind=row[2], arch=row[3], status=row[4], outcome=row[5])
                for row in sql.rows("SELECT id, job_id, kind, arch, status, outcome FROM step ORDER BY id")
            ),
            attempts=tuple(_attempts(sql)),
            artifacts=tuple(
                ArtifactRow(attempt=row[0], name=row[1], kind=row[2], sha256=row[3])
                for row in sql.rows("SELECT attempt_id, name, kind, sha256 FROM attempt_artifact")
            ),
            closing=tuple(str(label) for (label,) in sql.rows("SELECT label FROM closing")),
            published=tuple(_published(world.repositories)),
            pool=tuple(_pool(world.repositories)),
            words=tuple(_words(sql, world.store)),
            left=tuple(left_over(world)),
        )
    finally:
        sql.close()


def _builds(sql: Sql) -> Iterator[BuildRow]:
    for id_, source, status, outcome, reason in sql.rows(
        "SELECT id, source, status, outcome, reason FROM build ORDER BY id"
    ):
        filename = str(json.loads(source).get("filename"))
        yield BuildRow(id=id_, filename=filename, status=status, outcome=outcome, reason=reason)


def _attempts(sql: Sql) -> Iterator[AttemptRow]:
    for row in sql.rows("SELECT id, step_id, number, status, outcome, reason, worker FROM attempt"):
        yield AttemptRow(
            id=row[0],
            step=row[1],
            number=row[2],
            status=row[3],
            outcome=row[4],
            reason=row[5],
            worker=row[6],
        )


_OF_ARTIFACTS = "FROM attempt_artifact x JOIN attempt a ON a.id = x.attempt_id JOIN step s ON s.id = a.step_id"
_TEXTS = (
    ("build", "SELECT id, nevra, reason FROM build"),
    ("step", "SELECT job_id, reason, trouble, trouble_hosts, output FROM step"),
    (
        "attempt",
        "SELECT s.job_id, a.reason, a.excerpt, a.worker, a.phases FROM attempt a JOIN step s ON s.id = a.step_id",
    ),
    (
        "artifact",
        f"SELECT s.job_id, x.name, x.nevra, x.sha256 {_OF_ARTIFACTS}",
    ),
    ("repository", "SELECT NULL, path, url FROM repository"),
    ("queue", "SELECT NULL, name, note FROM queue WHERE name NOT LIKE '%aarch64'"),
    ("quarantine", "SELECT NULL, name, reason FROM host"),
)
_RECORDS = f"SELECT DISTINCT s.job_id, x.name, x.sha256 {_OF_ARTIFACTS} WHERE x.kind = 'record'"


def _words(sql: Sql, store: Path) -> Iterator[Words]:
    """The texts of the database and of the records of build roots, which name the packages and their origins."""
    for where, query in _TEXTS:
        for build, *texts in sql.rows(query):
            yield Words(build=build, where=where, text=" ".join(str(text) for text in texts if text is not None))
    for build, name, sha256 in sql.rows(_RECORDS):
        with suppress(FileNotFoundError):
            text = (store / sha256[:2] / sha256[2:4] / sha256).read_text(errors="replace")
            yield Words(build=build, where=name, text=text)


# --- repositories -----------------------------------------------------------------------------------------------


def _published(root: Path) -> Iterator[Published]:
    for repomd in sorted(root.rglob("current/repodata/repomd.xml")):
        repository = repomd.parent.parent
        tree = ET.parse(repomd).getroot()
        primary = next(data for data in tree.iter(f"{_REPO}data") if data.get("type") == "primary")
        location = primary.find(f"{_REPO}location")
        assert location is not None, f"{repomd} does not say where its primary is"
        text = gzip.decompress((repository / str(location.get("href"))).read_bytes())
        for package in ET.fromstring(text).iter(f"{_COMMON}package"):
            checksum, where = package.find(f"{_COMMON}checksum"), package.find(f"{_COMMON}location")
            assert checksum is not None
            assert where is not None, f"{repomd} has a package without a place"
            path = repository / str(where.get("href"))
            yield Published(
                repository=str(repository.parent.relative_to(root)),
                filename=path.name,
                said=str(checksum.text),
                is_=_digest(path),
            )


def _pool(root: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(root.glob("**/packages/*/*/*.rpm")):
        if "current" not in path.parts and "versions" not in path.parts:
            yield str(path.relative_to(root).parent.parent.parent.parent), path.name, _digest(path)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "missing"


# --- leftovers --------------------------------------------------------------------------------------------------


def left_over(world: World) -> Iterator[str]:
    """Processes, mounts, cgroups, scratch and keys that no idle farm has. Raises redis.RedisError."""
    for room in world.ground.rooms():
        if room.name != "farm-worker":
            yield f"cgroup {room}"
    yield from _processes(world)
    yield from _mounts(world)
    for host, scratch in world.hosts.items():
        for path in scratch.iterdir():
            yield f"scratch {path.name} on {host}"
    yield from _keys(world)
    yield from _hanging(world)


def _processes(world: World) -> Iterator[str]:
    own = {member.pid for member in world.members.all()}
    for member in world.members.all():
        own |= set(member.children())
    for pid in sorted(world.ground.pids() - own):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if stat[0] == "Z" or int(stat[1]) in own:  # a command of a pool process is found by its scratch folder
                continue
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield f"process {pid}: {command[:120]}"


def _mounts(world: World) -> Iterator[str]:
    known = {str(path) for path in world.ground.mounts()}
    seen = set()
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            for line in table.read_text(errors="replace").splitlines():
                where = line.split()[4]
                if str(world.ground.folder) in line and where not in known and (where, line.split()[0]) not in seen:
                    seen.add((where, line.split()[0]))
                    yield f"mount {where} of process {table.parent.name}"


def _hanging(world: World) -> Iterator[str]:
    active = world.active()
    for member in world.members.workers():
        if member.worker not in active:
            yield f"worker {member.worker}, which does not answer"
    for name, labels in active.items():
        for label in labels:
            yield f"slot of {name}, still taken by {label}, which no one waits for"


def _keys(world: World) -> Iterator[str]:
    with world.redis() as client:
        for pattern in ("farm:lease:*", "farm:offer:*"):
            for key in client.scan_iter(pattern):
                if f".{EVIL_ROLE}." in key.decode(errors="replace"):
                    continue  # the evil host may write them, whenever it likes
                yield f"broker's key {key.decode()}"
        lists = [f"control:{more}{role}" for role in (*QUEUES.values(), EVIL_ROLE, "client") for more in ("", "taken:")]
        for queue in (*lists, *QUEUES.values()):
            if client.llen(queue):
                yield f"broker's queue {queue} with {client.llen(queue)} documents"
