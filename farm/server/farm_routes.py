"""Routes of repositories, targets, hosts, queues and tokens."""

from datetime import datetime, timedelta
from typing import Annotated

from litestar import Controller, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter

from farm.gc.artifacts import Collected
from farm.model.actor import Actor
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.token import NewToken, Token
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryName, RepositoryVersion
from farm.server.idempotency import UNKEPT_OPTION
from farm.server.parameters import ActorRequest, Id, MaybeId, MaybeText, Name, Service, Text, aware
from farm.server.repos import Addresses
from farm.service.bodies import (
    PAGE_MAX,
    PREFIX,
    AuditPage,
    CollectOrder,
    DrainOrder,
    QueueCount,
    QueueSlots,
    RollbackOrder,
    TokenOrder,
)
from farm.service.repository import Repository, Rollback

_EXPIRES_MAX_S = 10**9  # more than a token may have, and less than a timedelta can


class Repositories(Controller):
    """The routes below `/targets` and `/repositories`."""

    path = PREFIX
    tags = ("repositories",)

    @get("/targets", sync_to_thread=True)
    def targets(self, service: Service) -> dict[str, Target]:
        """The targets by name."""
        return service.targets()

    @get("/targets/{name:str}", sync_to_thread=True)
    def target(self, service: Service, name: Name) -> Target:
        """A target."""
        return service.target(name)

    @get("/repositories/{target:str}", sync_to_thread=True)
    def repository(
        self,
        service: Service,
        request: ActorRequest,
        target: Name,
        arch: MaybeText = None,
        project: Text = DEFAULT_PROJECT,
    ) -> Repository:
        """The repository of a project's packages for a target."""
        found = service.repository(target, arch, project=project, viewer=request.user)
        return Addresses(service, request).repository(found)

    @get("/repositories/{target:str}/name", sync_to_thread=True)
    def name(
        self,
        service: Service,
        request: ActorRequest,
        target: Name,
        arch: MaybeText = None,
        kind: Text = "os",
        project: Text = DEFAULT_PROJECT,
    ) -> RepositoryName:
        """The name of a repository; `kind` is os, debug or source."""
        return service.repository_name(target, arch, kind=kind, project=project, viewer=request.user)

    @get("/repositories/{target:str}/versions", sync_to_thread=True)
    def versions(
        self,
        service: Service,
        request: ActorRequest,
        target: Name,
        arch: MaybeText = None,
        kind: Text = "os",
        project: Text = DEFAULT_PROJECT,
    ) -> tuple[RepositoryVersion, ...]:
        """The versions that are kept, newest first."""
        name = service.repository_name(target, arch, kind=kind, project=project, viewer=request.user)
        return tuple(map(Addresses(service, request).version, service.repository_versions(name)))

    @post("/repositories/{target:str}/rollback", sync_to_thread=True, status_code=200)
    def rollback(
        self, service: Service, request: ActorRequest, target: Name, data: JSONBody[RollbackOrder]
    ) -> Rollback:
        """Make a new version with the content of an older one."""
        done = service.rollback(request.user, target, to=data.to, arch=data.arch, kind=data.kind, project=data.project)
        return Addresses(service, request).rollback(done)

    @get("/repository-checks", sync_to_thread=True)
    def checks(self, service: Service) -> tuple[RepositoryCheck, ...]:
        """Check the repository back end from the server."""
        return service.check_repositories()


class Hosts(Controller):
    """The routes of workers, hosts and queues."""

    path = PREFIX
    tags = ("hosts",)

    @get("/ping", sync_to_thread=True, status_code=204)
    def ping(self, service: Service) -> None:
        """Answers 204 if the farm's broker answers."""
        service.ping()

    @get("/workers", sync_to_thread=True)
    def workers(self, service: Service) -> tuple[WorkerFacts, ...]:
        """The workers that reported within the last 30 s."""
        return service.workers()

    @get("/holds", sync_to_thread=True)
    def holds(self, service: Service) -> dict[str, HostHold]:
        """The holds on hosts that get no work now, by host, or by role@host."""
        return service.host_holds()

    @get("/running", sync_to_thread=True)
    def running(self, service: Service) -> dict[str, tuple[str, ...]]:
        """The labels of running attempts, by worker and by host."""
        return service.running_on()

    @get("/slots", sync_to_thread=True)
    def slots(self, service: Service) -> dict[str, QueueSlots]:
        """The slots of each queue that get work now."""
        return {queue: QueueSlots(slots=slots, why=why) for queue, (slots, why) in service.serving().items()}

    @get("/queues", sync_to_thread=True)
    def queues(self, service: Service) -> dict[str, QueueCount]:
        """The steps in each queue that has any."""
        return {queue: QueueCount(ready=ready, busy=busy) for queue, (ready, busy) in service.queue_counts().items()}

    @post("/hosts/{host:str}/drain", sync_to_thread=True, status_code=200)
    def drain(self, service: Service, request: ActorRequest, host: Name, data: JSONBody[DrainOrder]) -> HostHold:
        """Give a host no new work."""
        return service.drain_host(request.user, host, hands_back=data.hands_back, reason=data.reason, force=data.force)

    @post("/hosts/{host:str}/undrain", sync_to_thread=True, status_code=200)
    def undrain(self, service: Service, request: ActorRequest, host: Name) -> HostHold:
        """Give a host work again. The answer is the hold that it had."""
        return service.undrain_host(request.user, host)

    @post("/gc", sync_to_thread=True, status_code=200)
    def collect(self, service: Service, request: ActorRequest, data: JSONBody[CollectOrder]) -> Collected:
        """Remove old artifacts that are not needed."""
        return service.collect_artifacts(request.user, since=data.since, dry_run=data.dry_run)


class Accounts(Controller):
    """The routes of tokens and of the audit log."""

    path = PREFIX
    tags = ("accounts",)

    @get("/whoami", sync_to_thread=False)
    def whoami(self, request: ActorRequest) -> Actor:
        """The actor of this token."""
        return request.user

    @get("/audit", sync_to_thread=True)
    def audit(
        self,
        service: Service,
        request: ActorRequest,
        actor: MaybeText = None,
        verb: MaybeText = None,
        since: FromQuery[datetime | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = 50,
        before: MaybeId = None,
    ) -> AuditPage:
        """Records of the audit log, newest first."""
        since = since and aware(since)
        found = service.audit(request.user, by=actor, verb=verb, since=since, limit=limit, before=before)
        return AuditPage(records=found, next=found[-1].id if len(found) == limit else None)

    @get("/tokens", sync_to_thread=True)
    def tokens(self, service: Service, request: ActorRequest) -> tuple[Token, ...]:
        """All tokens, with the expired and the revoked ones, without their secrets."""
        return service.tokens(request.user)

    @post("/tokens", sync_to_thread=True, opt={UNKEPT_OPTION: True})
    def new_token(self, service: Service, request: ActorRequest, data: JSONBody[TokenOrder]) -> NewToken:
        """Make a token. Its secret is in this answer alone."""
        return service.new_token(
            request.user,
            name=data.name,
            roles=data.roles,
            bearer=data.bearer,
            expires=timedelta(seconds=max(0, min(data.expires_s, _EXPIRES_MAX_S))),
            project=data.project,
        )

    @post("/tokens/{token_id:int}/revoke", sync_to_thread=True, status_code=200)
    def revoke_token(self, service: Service, request: ActorRequest, token_id: Id) -> Token:
        """Take all rights from a token."""
        return service.revoke_token(request.user, token_id)
