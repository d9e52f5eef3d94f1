"""The farm from Python: enqueue builds, follow them, retry and cancel them, fetch what they made.

The command line is a thin layer on top of it; a script can do everything that the commands can. `Farm` binds
`farm.service` to one actor, and reads a user's words; `FarmApi` documents its methods.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack, overload

from farm.client.api import FarmApi
from farm.client.handle import BatchHandle, BuildRef, id_of
from farm.client.local_projects import LocalProjects
from farm.client.user import local_actor
from farm.config import Settings
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.audit import AuditRecord
from farm.model.build import Batch, Build, BuildRequest, Step
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.token import EXPIRES_DEFAULT, NewToken, Token
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryName, RepositoryVersion
from farm.service.connections import Connections
from farm.service.permissions import OWN_PROCESS
from farm.service.repository import Repository, Rollback
from farm.service.request import RequestArguments, arch_named, step_kind
from farm.service.service import FarmService

if TYPE_CHECKING:
    from farm.client.remote import RemoteFarm
    from farm.gc.artifacts import Collected


class Farm(LocalProjects, FarmApi):
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

    def __init__(self, service: FarmService, actor: Actor | None) -> None:
        """Use `connect`."""
        self.settings = service.settings
        self._service = service
        self._given_actor = actor

    @overload
    @classmethod
    def connect(cls, settings: Settings | None = None, *, actor: Actor | None = None) -> "Farm": ...

    @overload
    @classmethod
    def connect(cls, settings: str, *, token_file: str | Path | None = None) -> "RemoteFarm": ...

    @classmethod
    def connect(
        cls,
        settings: Settings | str | None = None,
        *,
        actor: Actor | None = None,
        token_file: str | Path | None = None,
    ) -> "Farm | RemoteFarm":
        """The farm of these settings, or of the environment (`FARM_*`) if None; or the farm whose server has this URL.

        Without an actor, the process's user acts, as an admin. A program that acts for other people names them. At a
        server, the actor of the token acts: that of `token_file`, or of `farm login`.
        Raises BadSettings, and FarmNotRunning when there is no farm yet or its database does not answer; with a URL
        BadRequest and NotLoggedIn.
        """
        if isinstance(settings, str):
            from farm.client.remote import RemoteFarm  # most processes reach one kind of farm

            return RemoteFarm.connect(settings, token_file=token_file)
        return cls(FarmService(Connections.open(settings or Settings.from_env())), actor)

    def close(self) -> None:
        self._service.close()

    @cached_property
    def actor(self) -> Actor:
        """The actor of every call. Raises BadRequest if FARM_OWNER is not a name that an owner can have."""
        return self._given_actor or local_actor(self.settings)

    def whoami(self) -> Actor:
        return self.actor

    @cached_property
    def _questions(self) -> FarmService:
        """The service, for an actor that may ask it. Raises NotPermitted. The process's own user may."""
        if self._given_actor is not None:
            self._service.admit(self._given_actor)
        return self._service

    @property
    def _viewer(self) -> Actor:
        """As whom questions are asked. The process's own user sees everything, whatever FARM_OWNER is."""
        return self._given_actor or OWN_PROCESS

    # --- enqueue ------------------------------------------------------------------------------------------------

    def request(self, **asked: Unpack[RequestArguments]) -> BuildRequest:
        return self._service.request(self.actor, **asked)

    def enqueue_many(self, requests: Iterable[BuildRequest], *, owner: str | None = None) -> BatchHandle:
        return BatchHandle(self, self._service.enqueue(self.actor, requests, owner=owner))

    # --- builds -------------------------------------------------------------------------------------------------

    def build(self, build: BuildRef) -> Build:
        return self._questions.build(id_of(build), self._viewer)

    def batch(self, batch_id: int) -> Batch:
        return self._questions.batch(batch_id, self._viewer)

    def builds(
        self,
        *,
        status: Status | None = None,
        outcome: Outcome | None = None,
        target: str | None = None,
        project: str | None = None,
        package: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[Build, ...]:
        return self._questions.builds(
            self._viewer,
            status=status,
            outcome=outcome,
            target=target,
            project=project,
            package=package,
            limit=limit,
            before=before,
        )

    def watch(self, build: BuildRef, *, timeout_s: float | None = None) -> Generator[Build | None, None, None]:
        return self._questions.watch(id_of(build), timeout_s=timeout_s, viewer=self._viewer)

    def log(
        self,
        build: BuildRef,
        step: str | None = None,
        arch: str | None = None,
        attempt: int | None = None,
        *,
        follow: bool = False,
    ) -> Iterator[bytes]:
        return self._questions.log(
            id_of(build),
            step=step_kind(step),
            arch=arch_named(arch),
            attempt=attempt,
            follow=follow,
            viewer=self._viewer,
        )

    def open_artifact(self, artifact: Artifact) -> BinaryIO:
        return self._questions.open_artifact(artifact)

    def cancel(self, build: BuildRef) -> Build:
        return self._service.cancel(self.actor, id_of(build))

    def retry(self, build: BuildRef, step: str | None = None, arch: str | Arch | None = None) -> tuple[Step, ...]:
        return self._service.retry(self.actor, id_of(build), step=step_kind(step), arch=arch_named(arch))

    # --- repositories and targets -------------------------------------------------------------------------------

    def repository(self, target: str, arch: str | Arch | None = None, *, project: str = DEFAULT_PROJECT) -> Repository:
        return self._questions.repository(target, arch, project=project, viewer=self._viewer)

    def repository_name(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> RepositoryName:
        return self._questions.repository_name(target, arch, kind=kind, project=project, viewer=self._viewer)

    def repository_versions(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> tuple[RepositoryVersion, ...]:
        return self._questions.repository_versions(self.repository_name(target, arch, kind=kind, project=project))

    def rollback(
        self,
        target: str,
        *,
        to: int,
        arch: str | Arch | None = None,
        kind: str = "os",
        project: str = DEFAULT_PROJECT,
    ) -> Rollback:
        return self._service.rollback(self.actor, target, to=to, arch=arch, kind=kind, project=project)

    def check_repositories(self) -> tuple[RepositoryCheck, ...]:
        return self._questions.check_repositories()

    def target(self, name: str) -> Target:
        return self._questions.target(name)

    def targets(self) -> dict[str, Target]:
        return self._questions.targets()

    # --- hosts and the farm -------------------------------------------------------------------------------------

    def ping(self) -> None:
        self._questions.ping()

    def workers(self) -> tuple[WorkerFacts, ...]:
        return self._questions.workers()

    def host_holds(self) -> dict[str, HostHold]:
        return self._questions.host_holds()

    def serving(self) -> dict[str, tuple[int, str]]:
        return self._questions.serving()

    def running_on(self) -> dict[str, tuple[str, ...]]:
        return self._questions.running_on()

    def queue_counts(self) -> dict[str, tuple[int, int]]:
        return self._questions.queue_counts()

    def drain_host(self, host: str, *, hands_back: bool = False, reason: str = "", force: bool = False) -> HostHold:
        return self._service.drain_host(self.actor, host, hands_back=hands_back, reason=reason, force=force)

    def undrain_host(self, host: str) -> HostHold:
        return self._service.undrain_host(self.actor, host)

    def collect_artifacts(
        self, *, since: datetime, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> "Collected":
        return self._service.collect_artifacts(self.actor, since=since, dry_run=dry_run, say=say)

    # --- tokens -------------------------------------------------------------------------------------------------

    def new_token(
        self,
        *,
        name: str,
        roles: Collection[Role],
        bearer: str | None = None,
        expires: timedelta = EXPIRES_DEFAULT,
        project: str | None = None,
    ) -> NewToken:
        return self._service.new_token(
            self.actor, name=name, roles=roles, bearer=bearer, expires=expires, project=project
        )

    def tokens(self) -> tuple[Token, ...]:
        return self._service.tokens(self.actor)

    def revoke_token(self, token_id: int) -> Token:
        return self._service.revoke_token(self.actor, token_id)

    def audit(
        self,
        *,
        actor: str | None = None,
        verb: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[AuditRecord, ...]:
        return self._service.audit(self.actor, by=actor, verb=verb, since=since, limit=limit, before=before)
