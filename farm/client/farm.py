"""The farm from Python: enqueue builds, follow them, retry and cancel them, fetch what they made.

The command line is a thin layer on top of it; a script can do everything that the commands can. It does not schedule or
run builds.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from farm.artifacts import open_store
from farm.artifacts.base import ArtifactStore
from farm.client.download import download
from farm.client.handle import BatchHandle, BuildHandle, BuildRef, id_of
from farm.config import Settings
from farm.errors import BadRequest, BadSettings, BrokerFull, FarmNotRunning
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Batch, Build, BuildRequest, Step
from farm.model.outcome import Outcome, Status
from farm.model.target import Target
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryBackend, RepositoryCheck, RepositoryVersion, open_repositories
from farm.service import hosts
from farm.service.files import StoredFile, files_of
from farm.service.log import find_log, read_log
from farm.service.repository import Repository, Rollback, check_repositories, describe, named, roll_back
from farm.service.request import RequestArguments, arch_named, check_request, make_request, owner_name, step_kind
from farm.service.watch import Event, watch
from farm.store.heads import Head
from farm.store.store import Store
from farm.targets.load import find_target, load_targets

if TYPE_CHECKING:
    # Redis' client takes 0.2 s to import, and a program that only reads builds does not need it.
    from farm.broker.control import Control
    from farm.broker.leases import Leases
    from farm.gc.artifacts import Collected

__all__ = ["BatchHandle", "BuildHandle", "Event", "Farm", "Repository", "Rollback", "StoredFile"]

_log = logging.getLogger(__name__)


class Farm:
    """A connection to a farm. Use as a context manager. Safe to use from several threads.

    >>> from farm import Farm
    >>> with Farm.connect() as farm:  # doctest: +SKIP
    ...     build = farm.enqueue(git="https://example.org/hello.git", ref="v2.10", target="demo")
    ...     result = build.wait(timeout_s=600, on_event=print)
    12 hello fetch running on source@builder1
    ...
    >>> result.outcome.is_success  # doctest: +SKIP
    True
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        """Use `connect`."""
        self.settings = settings
        self._store = store

    @classmethod
    def connect(cls, settings: Settings | None = None) -> "Farm":
        """The farm of these settings, or of the environment (`FARM_*`) if None.

        Raises BadSettings, and FarmNotRunning when there is no farm yet or its database does not answer.
        """
        settings = settings or Settings.from_env()
        try:
            if not settings.database_url and not (settings.data / "farm.db").exists():
                raise FarmNotRunning(not_running(settings))
        except PermissionError as error:
            raise BadSettings(f"FARM_DATA {str(settings.data)!r} cannot be read by you; run as its owner") from error
        return cls(settings, Store.open(settings.database))

    def close(self) -> None:
        self._store.close()
        for name in ("_leases", "_control"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def __enter__(self) -> "Farm":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def collect_artifacts(
        self, *, since: datetime, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> "Collected":
        """Remove artifacts that neither an unfinished build, nor one that ended after `since`, nor a kept version of a
        repository names. `say` is called with the progress. Safe while builds run, and safe to repeat.

        Raises StoreTrouble, RepositoryTrouble and FarmNotRunning.
        """
        from farm.gc.artifacts import ArtifactCollector

        collector = ArtifactCollector(
            store=self._store, artifacts=self._artifacts, repositories=self._repositories, since=since, say=say
        )
        return collector.collect(dry_run=dry_run)

    # --- ask ----------------------------------------------------------------------------------------------------

    def request(self, **asked: Unpack[RequestArguments]) -> BuildRequest:
        """A checked request, for `enqueue_many`. `RequestArguments` describes the arguments.

        A local src.rpm is copied into the artifact store after every other check.
        Raises UnknownTarget, BadTarget, UnknownArch, BadSource, BadRequest; StoreTrouble when it cannot be copied.
        """
        return make_request(self.settings, lambda: self._artifacts, **asked)

    def enqueue(self, *, owner: str | None = None, **asked: Unpack[RequestArguments]) -> BuildHandle:
        """Enqueue one build; `RequestArguments` describes the arguments. Returns at once.

        Raises what `request` does, before it writes anything; FarmNotRunning and BrokerFull.
        """
        name = owner_name(self.settings, owner)
        self._check_room()
        request = self.request(**asked)
        batch = self._store.add_batch([request], owner=name)
        self._wake()
        return BuildHandle(self, batch.builds[0])

    def enqueue_many(self, requests: Iterable[BuildRequest], *, owner: str | None = None) -> BatchHandle:
        """Enqueue all or none of these builds, as one batch. Raises as `enqueue` does; BadRequest for no request at
        all.
        """
        asked = tuple(requests)
        if not asked:
            raise BadRequest("a batch has at least one build; give a request")
        # Each target's file is read once, or else the check of a thousand requests takes longer than the write.
        targets = {name: find_target(self.settings, name) for name in {request.target for request in asked}}
        checked = [check_request(targets[request.target], request) for request in asked]
        name = owner_name(self.settings, owner)
        self._check_room()
        batch = self._store.add_batch(checked, owner=name)
        self._wake()
        return BatchHandle(self, batch)

    # --- look ---------------------------------------------------------------------------------------------------

    def build(self, build: BuildRef) -> Build:
        """The present state, with steps, attempts and their artifacts. Raises NotFound."""
        return self._store.build(id_of(build))

    def handle(self, build: BuildRef) -> BuildHandle:
        """A handle to wait for a build that was enqueued earlier. Raises NotFound."""
        return BuildHandle(self, self.build(build))

    def batch(self, batch_id: int) -> Batch:
        """Raises NotFound."""
        return self._store.batch(batch_id)

    def builds(
        self,
        *,
        status: Status | None = None,
        outcome: Outcome | None = None,
        target: str | None = None,
        limit: int = 50,
    ) -> tuple[Build, ...]:
        """Builds, newest first, with their steps but without attempts."""
        return self._store.builds(status=status, outcome=outcome, target=target, limit=limit)

    def watch(self, build: BuildRef, *, timeout_s: float | None = None) -> Generator[Build | None, None, None]:
        """Yield the build now and each time that it has changed, until it is finished.

        Yields None, and ends, when `timeout_s` have passed.
        """
        build_id = id_of(build)
        return watch(lambda: self._store.build(build_id), lambda: self._leases, build_id=build_id, timeout_s=timeout_s)

    def wait(
        self, build: BuildRef, *, timeout_s: float | None = None, on_event: Callable[[Event], object] | None = None
    ) -> Build:
        """Block until the build is finished; call `on_event` with each event meanwhile.

        Raises WaitTimedOut after `timeout_s`; the build goes on.
        """
        return self.handle(build).wait(timeout_s=timeout_s, on_event=on_event)

    def log(
        self,
        build: BuildRef,
        step: str | None = None,
        arch: str | None = None,
        attempt: int | None = None,
        *,
        follow: bool = False,
    ) -> Iterator[bytes]:
        """An attempt's log as bytes, exactly as the tools wrote it; with `follow` until the attempt is over.

        The defaults are the step that failed, else the running one, else `build`, and the last attempt of it.
        Raises NotFound, and WrongState when the step has not begun.
        """
        build_id = id_of(build)
        place = find_log(self._store.build(build_id), step=step_kind(step), arch=arch_named(arch), attempt=attempt)
        return read_log(
            place, self._artifacts, lambda: self._leases, refresh=lambda: self._store.build(build_id), follow=follow
        )

    def artifacts(self, build: BuildRef) -> tuple[StoredFile, ...]:
        """The artifacts of the last attempt of each step, in the order of the steps. Raises NotFound."""
        return files_of(self.build(build))

    def read(self, artifact: Artifact) -> bytes:
        """An artifact's content, whole: for records, not for packages. Raises NotFound."""
        return self._artifacts.open_path(artifact.sha256).read_bytes()

    def download(self, build: BuildRef, into: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Copy all `artifacts` into a folder, which is made if missing; verify each file's digest.

        Raises WrongState, before it writes any file, when a file exists with other content.
        """
        return download(self.artifacts(build), self._artifacts, Path(into), overwrite=overwrite)

    def repository(self, target: str, arch: str | Arch | None = None) -> Repository:
        """The repository of the target's packages; `arch` None is this machine's, if the target has it.

        Raises UnknownTarget, UnknownArch.
        """
        return describe(self.settings, target, arch)

    def repository_versions(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os"
    ) -> tuple[RepositoryVersion, ...]:
        """The versions of a repository that are kept, newest first; `kind` is os, debug or source.

        Raises UnknownTarget, UnknownArch, BadRequest, and RepositoryTrouble when the back end does not answer.
        """
        return self._repositories.versions(named(self.settings, target, arch, kind))

    def check_repositories(self) -> tuple[RepositoryCheck, ...]:
        """Check the repository back end from this host; each check says in words what it found."""
        return check_repositories(self.settings)

    def target(self, name: str) -> Target:
        """Raises UnknownTarget, BadTarget."""
        return find_target(self.settings, name)

    def targets(self) -> dict[str, Target]:
        """By name. Raises BadTarget for the first file that is not valid."""
        return load_targets(self.settings)

    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that reported within the last 30 s, by name. Raises FarmNotRunning."""
        import redis

        try:
            return self._leases.workers()
        except redis.RedisError as error:
            raise FarmNotRunning(not_running(self.settings)) from error

    def host_holds(self) -> dict[str, HostHold]:
        """The hosts that get no work now, by name, and why."""
        return hosts.held(self._store)

    def serving(self) -> dict[str, tuple[int, str]]:
        """By queue: how many slots get work now, and why the others get none. Raises FarmNotRunning."""
        return hosts.serving(self.workers(), self.host_holds())

    def running_on(self) -> dict[str, tuple[str, ...]]:
        """The labels of running attempts, keyed by worker, and again keyed by host."""
        return hosts.running_on(self._store)

    def queue_counts(self) -> dict[str, tuple[int, int]]:
        """The number of ready steps, and of steps held by workers, for each queue that has any."""
        return self._store.queue_counts()

    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""
        try:
            self._leases.ping()
        except FarmNotRunning as error:
            raise FarmNotRunning(not_running(self.settings)) from error

    # --- change -------------------------------------------------------------------------------------------------

    def cancel(self, build: BuildRef) -> Build:
        """Cancel a build in any state; the scheduler kills its running steps within 2 s. Raises WrongState when it is
        over.

        The build is over at once. The scheduler finds in SQL which steps to stop; without a scheduler, they are stopped
        when one starts.
        """
        self._store.cancel(id_of(build), by=owner_name(self.settings, None))
        self._wake()
        return self.build(build)

    def retry(self, build: BuildRef, step: str | None = None, arch: str | Arch | None = None) -> tuple[Step, ...]:
        """Run the steps that did not succeed again, or the named one and all later ones, with the recorded inputs.

        Returns the steps that start. Raises NotFound, and WrongState while the build is going on there.
        """
        by = owner_name(self.settings, None)
        steps = self._store.retry(id_of(build), step=step_kind(step), arch=arch_named(arch), by=by)
        self._wake()
        return steps

    def drain_host(self, host: str, *, hands_back: bool = False, reason: str = "", force: bool = False) -> HostHold:
        """Give a host no new work from now on, until `undrain_host`; restarts do not change that.

        The host finishes its running steps; with `hands_back` they are stopped, and run on another host. Raises
        NotFound for an unknown host, unless `force`; FarmNotRunning.
        """
        known = {host} if force else {worker.host for worker in self.workers()}
        by = owner_name(self.settings, None)
        hold = hosts.drain(self._store, host, known, by=by, reason=reason, hands_back=hands_back)
        self._wake()
        _log.info("%s", hold.shown, extra={"action": "drain", "host": host})
        return hold

    def undrain_host(self, host: str) -> HostHold:
        """Give a drained or quarantined host work again. Returns its hold. Raises WrongState without one."""
        was = hosts.undrain(self._store, host)
        self._wake()
        _log.info("%s is %s no longer", host, was.kind, extra={"action": "undrain", "host": host})
        return was

    def rollback(self, target: str, *, to: int, arch: str | Arch | None = None, kind: str = "os") -> Rollback:
        """Make a new version with the content of version `to`, which clients and later builds get.

        To undo it, roll back to `before.number` of the answer. Raises NotFound for a version that is not kept,
        UnknownTarget, UnknownArch, BadRequest, RepositoryTrouble.
        """
        name = named(self.settings, target, arch, kind)
        done = roll_back(self._repositories, name, to)
        self._store.publish_head(name.path, Head(version=done.after.number, url=done.after.url))
        by = owner_name(self.settings, None)
        _log.info("%s rolled %s back to version %d", by, name.path, to, extra={"action": "rollback"})
        return done

    # --- inside -------------------------------------------------------------------------------------------------

    def _check_room(self) -> None:
        """This comes before any write, so the message that nothing was enqueued is true."""
        try:
            self._leases.check_room()
        except FarmNotRunning as error:
            raise FarmNotRunning(not_running(self.settings)) from error
        except BrokerFull as error:
            raise BrokerFull(
                f"{error}: nothing was enqueued; raise maxmemory on that Redis, or delete other data in it"
            ) from error

    def _wake(self) -> None:
        try:
            self._control.wake()
        except FarmNotRunning as error:
            # The written rows are enough: the scheduler reads SQL when it starts, and every second.
            _log.warning("%s", error)

    @cached_property
    def _leases(self) -> "Leases":
        from farm.broker.leases import Leases

        return Leases(self.settings)

    @cached_property
    def _control(self) -> "Control":
        from farm.broker.control import Control

        return Control(self.settings)

    @cached_property
    def _repositories(self) -> RepositoryBackend:
        return open_repositories(self.settings)

    @cached_property
    def _artifacts(self) -> ArtifactStore:
        return open_store(self.settings)


def not_running(settings: Settings) -> str:
    """The message for a farm that does not answer."""
    if settings.broker_url or settings.database_url:
        where = f"at {settings.shown()['broker_url']} with database {settings.shown()['database_url']}"
        return (
            f"the farm {where} does not answer; start its processes, or correct FARM_BROKER_URL and FARM_DATABASE_URL"
        )
    return f"the farm is not running for data directory {settings.data}; start it with `farm up`"
