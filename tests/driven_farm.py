"""A farm without a scheduler or workers: a test decides the end of each attempt, through the store's own methods.

The database, the artifact store, the repositories and, where it is started, Redis are the real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import redis

from farm.artifacts import open_store
from farm.broker.leases import Leases
from farm.client import Farm
from farm.config import Settings
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import Build
from farm.model.outcome import Outcome, Status
from farm.model.work import StepResult
from farm.state.policy import RetryPolicy
from farm.store.settling import Finding, SettlePolicy, Verdict
from farm.store.store import Store
from tests.databases import sqlite_template
from tests.fake_workers import Answer, held_by, output_of, picked, report_for, settle_reports, token_of
from tests.redis_server import redis_server
from tests.scheduling import ready

AROUND = SettlePolicy(retry=RetryPolicy(max_troubles=3, delay_s=60))


class DrivenFarm:
    """Clients use `farm`; the other methods replace the scheduler and workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if not settings.database_url:
            (settings.data / "farm.db").write_bytes(sqlite_template())
        self.store = Store.open(settings.database, create=True)
        self.farm = Farm.connect(settings)
        self.env = {"FARM_DATA": str(settings.data), "FARM_OWNER": "ann"}
        self.around = AROUND

    def close(self) -> None:
        self.farm.close()
        self.store.close()

    def send(self) -> None:
        """Everything that is ready goes out."""
        picks = picked(ready(self.store), wall_s=3600)
        self.store.dispatch(picks, datetime.now(UTC), with_logs=self.around.uploads_logs)

    def start(self, label: str, worker: str = "build@one") -> None:
        verdict = Verdict(label=label, finding=Finding.RUNNING, lease=held_by(worker, label))
        self.store.judge([verdict], datetime.now(UTC), self.around)

    def report(self, label: str, answer: Answer) -> None:
        kind = label.split(".")[1]
        report = report_for(label, token_of(label), kind, answer)
        done = settle_reports(self.store, [report], datetime.now(UTC), self.around)
        assert not done.late, label

    def succeed(self, label: str, log: bytes = b"all is well\n", *, files: tuple[Artifact, ...] = ()) -> None:
        kind = label.split(".")[1]
        artifacts = (*files, self.stored(f"{kind}.log", log, ArtifactKind.LOG))
        self.report(label, StepResult(outcome=Outcome.SUCCEEDED, artifacts=artifacts, output=output_of(kind)))

    def fail(
        self,
        label: str,
        reason: str = "make: *** [all] Error 2",
        log: bytes = b"cc -c a.c\nmake: *** [all] Error 2\n",
        outcome: Outcome = Outcome.FAILED,
    ) -> None:
        artifacts = (self.stored(f"{label.split('.')[1]}.log", log, ArtifactKind.LOG),)
        excerpt = log.decode(errors="replace")
        self.report(label, StepResult(outcome=outcome, reason=reason, excerpt=excerpt, artifacts=artifacts))

    def stored(self, name: str, content: bytes, kind: ArtifactKind, identity: str | None = None) -> Artifact:
        path = self.settings.data / "to-store"
        path.write_bytes(content)
        return open_store(self.settings).put(path, name=name, kind=kind, identity=identity, move=True)

    def to_build(self, build_id: int) -> None:
        """Up to where its `build` steps are sent."""
        self.send()
        self.succeed(f"{build_id}.fetch.1")
        self.succeed(f"{build_id}.srpm.1")
        self.send()

    def finish(self, build_id: int, arch: str = "x86_64") -> Build:
        """All the way, with one package and a log of each step."""
        self.to_build(build_id)
        name = f"hello-1-1.{arch}"
        rpm = self.stored(f"{name}.rpm", b"a package", ArtifactKind.RPM, name)
        self.succeed(f"{build_id}.build.{arch}.1", b"compiling\ndone\n", files=(rpm,))
        self.succeed(f"{build_id}.upload.{arch}.1")
        return self.farm.build(build_id)

    def tell(self, build_id: int) -> None:
        """Clients that wait for the build learn that it is over, as from the scheduler."""
        leases = Leases(self.settings)
        leases.publish({"build": build_id, "step": None, "status": Status.FINISHED})
        leases.close()

    def subscribers(self) -> int:
        """How many clients listen to events."""
        with redis.Redis.from_url(self.settings.redis) as client:
            return int(client.pubsub_numsub("farm:events")[0][1])


@contextmanager
def driven_farm(data: Path, *, with_redis: bool = True, database_url: str = "") -> Iterator[DrivenFarm]:
    """A new farm in this folder. Its database is there too, unless the URL of another is given."""
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_OWNER": "ann", "FARM_DATABASE_URL": database_url})
    driven = DrivenFarm(settings)
    try:
        if with_redis:
            with redis_server(settings.socket):
                yield driven
        else:
            yield driven
    finally:
        driven.close()
