"""A farm that is reached through its HTTP server: the same calls as `Farm`, for the actor of a token."""

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack

import msgspec

from farm.client.api import FarmApi
from farm.client.handle import BatchHandle, BuildRef, id_of
from farm.client.http import HttpClient
from farm.client.login import read_token
from farm.client.remote_projects import RemoteProjects
from farm.client.upload import Progress, upload
from farm.errors import FarmNotRunning, TooManyRequests
from farm.model.actor import Actor, Role
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.audit import AuditRecord
from farm.model.build import Batch, Build, BuildRequest, Step
from farm.model.label import AttemptLabel
from farm.model.outcome import Outcome, Status
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.token import EXPIRES_DEFAULT, NewToken, Token
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryName, RepositoryVersion
from farm.service.bodies import (
    ATTEMPT_HEADER,
    OVER_HEADER,
    PAGE_MAX,
    AuditPage,
    BatchOrder,
    BuildPage,
    CollectOrder,
    DrainOrder,
    QueueCount,
    QueueSlots,
    RetryOrder,
    RollbackOrder,
    Steps,
    TokenOrder,
)
from farm.service.log import LogPart
from farm.service.orders import check_file, order_again, order_and_file
from farm.service.repository import Repository, Rollback
from farm.service.request import RequestArguments, target_in
from farm.service.watch import POLL_S

if TYPE_CHECKING:
    from farm.gc.artifacts import Collected

#: The shortest time between two requests for a log that does not grow.
_LOG_POLL_S = 0.5
#: A follower waits so long for a server that was started again.
_AWAY_S = 20.0


class RemoteFarm(RemoteProjects, FarmApi):
    """A connection to a farm's server. Use as a context manager. Safe to use from several threads.

    A git repository is a URL: a path of this machine means nothing there. A source package of this machine is
    uploaded. `FarmApi` documents the methods.
    """

    def __init__(self, http: HttpClient, progress: Progress = lambda *_: None) -> None:
        """Use `connect`."""
        self._http = http
        self._progress = progress

    @classmethod
    def connect(
        cls, url: str, *, token_file: str | Path | None = None, progress: Progress = lambda *_: None
    ) -> "RemoteFarm":
        """The farm at this address, with the token of the file, or else of `farm login`. `progress` is called while a
        source package is uploaded, with its name, the bytes that the server has, and all.

        Raises BadRequest for an address that is none, NotLoggedIn without a token. It sends nothing yet.
        """
        return cls(HttpClient(url, read_token(url, token_file)), progress)

    def close(self) -> None:
        self._http.close()

    def whoami(self) -> Actor:
        return self._http.get(Actor, "whoami")

    # --- enqueue ------------------------------------------------------------------------------------------------

    def request(self, **asked: Unpack[RequestArguments]) -> BuildRequest:
        order, file = order_and_file(asked)
        if file is not None:
            target = order.target or target_in(self.project(order.project or DEFAULT_PROJECT), None)
            path = check_file(file, order, self.target(target or ""))
            uploaded = upload(self._http, path, target=target or "", progress=self._progress)
            order = msgspec.structs.replace(order, upload=uploaded.sha256)
        return self._http.post(BuildRequest, "requests", body=order)

    def enqueue_many(self, requests: Iterable[BuildRequest], *, owner: str | None = None) -> BatchHandle:
        orders = tuple(order_again(request) for request in requests)
        return BatchHandle(self, self._http.post(Batch, "batches", body=BatchOrder(builds=orders, owner=owner)))

    # --- builds -------------------------------------------------------------------------------------------------

    def build(self, build: BuildRef) -> Build:
        return self._http.get(Build, "builds", id_of(build))

    def batch(self, batch_id: int) -> Batch:
        return self._http.get(Batch, "batches", batch_id)

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
        chosen = {"status": status, "outcome": outcome, "target": target, "project": project, "package": package}
        found: list[Build] = []
        while len(found) < limit:
            size = min(limit - len(found), PAGE_MAX)
            page = self._http.get(BuildPage, "builds", **chosen, limit=size, before=before)
            found += page.builds
            if page.next is None or not page.builds:
                break
            before = page.next
        return tuple(found)

    def watch(self, build: BuildRef, *, timeout_s: float | None = None) -> Generator[Build | None, None, None]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self.build(build)
            yield found
            if found.status is Status.FINISHED:
                return
            left_s = POLL_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                yield None
                return
            time.sleep(min(left_s, POLL_S))

    def log(
        self,
        build: BuildRef,
        step: str | None = None,
        arch: str | None = None,
        attempt: int | None = None,
        *,
        follow: bool = False,
    ) -> Iterator[bytes]:
        first = self._log_part(id_of(build), step, arch, attempt, 0)
        return self._log_from(first, follow=follow)

    def _log_from(self, part: LogPart, *, follow: bool) -> Iterator[bytes]:
        label, offset = AttemptLabel.parse(part.attempt), 0
        while True:
            if part.data:
                offset += len(part.data)
                yield part.data
            if part.is_over or not (part.data or follow):
                return
            if follow:
                for data in self._followed(label, offset):
                    offset += len(data)
                    yield data
            part = self._log_again(label, offset) if follow else self._part_of(label, offset)

    def _followed(self, label: AttemptLabel, offset: int) -> Iterator[bytes]:
        """The bytes of a running attempt's log as they come, until the server ends its answer."""
        began_at = time.monotonic()
        with suppress(FarmNotRunning, TooManyRequests):  # `_log_again` finds out whether the server is there
            yield from self._http.stream(
                *("builds", label.job_id, "log"),
                step=label.kind, arch=label.arch, attempt=label.number, offset=offset, follow="true",
            )  # fmt: skip
        time.sleep(max(0.0, _LOG_POLL_S - (time.monotonic() - began_at)))

    def _log_again(self, label: AttemptLabel, offset: int) -> LogPart:
        """As `_part_of`, also from a server that is just being started again."""
        until = time.monotonic() + _AWAY_S
        while True:
            try:
                return self._part_of(label, offset)
            except (FarmNotRunning, TooManyRequests):
                if time.monotonic() > until:
                    raise
            time.sleep(_LOG_POLL_S)

    def _part_of(self, label: AttemptLabel, offset: int) -> LogPart:
        return self._log_part(label.job_id, label.kind, label.arch, label.number, offset)

    def _log_part(self, build: int, step: str | None, arch: str | None, attempt: int | None, offset: int) -> LogPart:
        data, headers = self._http.read("builds", build, "log", step=step, arch=arch, attempt=attempt, offset=offset)
        is_over = headers.get(OVER_HEADER) != "false"
        try:
            label = AttemptLabel.parse(headers[ATTEMPT_HEADER])
        except (LookupError, ValueError) as error:
            raise FarmNotRunning(f"{self._http.url} does not name the attempt of a log; check the address") from error
        return LogPart(attempt=str(label), data=data, is_over=is_over)

    def open_artifact(self, artifact: Artifact) -> BinaryIO:
        return self._http.open("artifacts", artifact.sha256)

    def cancel(self, build: BuildRef) -> Build:
        return self._http.post(Build, "builds", id_of(build), "cancel")

    def retry(self, build: BuildRef, step: str | None = None, arch: str | Arch | None = None) -> tuple[Step, ...]:
        return self._http.post(Steps, "builds", id_of(build), "retry", body=RetryOrder(step=step, arch=arch)).steps

    # --- repositories and targets -------------------------------------------------------------------------------

    def repository(self, target: str, arch: str | Arch | None = None, *, project: str = DEFAULT_PROJECT) -> Repository:
        found = self._http.get(Repository, "repositories", target, arch=arch, project=project)
        return replace(
            found,
            baseurl=self._http.here(found.baseurl),
            debug_url=self._http.here(found.debug_url),
            source_url=self._http.here(found.source_url),
        )

    def repository_name(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> RepositoryName:
        return self._http.get(RepositoryName, "repositories", target, "name", arch=arch, kind=kind, project=project)

    def repository_versions(
        self, target: str, arch: str | Arch | None = None, *, kind: str = "os", project: str = DEFAULT_PROJECT
    ) -> tuple[RepositoryVersion, ...]:
        asked = {"arch": arch, "kind": kind, "project": project}
        found = self._http.get(list[RepositoryVersion], "repositories", target, "versions", **asked)
        return tuple(map(self._version, found))

    def _version(self, found: RepositoryVersion) -> RepositoryVersion:
        return replace(found, url=self._http.here(found.url))

    def rollback(
        self,
        target: str,
        *,
        to: int,
        arch: str | Arch | None = None,
        kind: str = "os",
        project: str = DEFAULT_PROJECT,
    ) -> Rollback:
        body = RollbackOrder(to=to, arch=arch, kind=kind, project=project)
        done = self._http.post(Rollback, "repositories", target, "rollback", body=body)
        return replace(done, before=self._version(done.before), after=self._version(done.after))

    def check_repositories(self) -> tuple[RepositoryCheck, ...]:
        return tuple(self._http.get(list[RepositoryCheck], "repository-checks"))

    def target(self, name: str) -> Target:
        return self._http.get(Target, "targets", name)

    def targets(self) -> dict[str, Target]:
        return self._http.get(dict[str, Target], "targets")

    # --- hosts and the farm -------------------------------------------------------------------------------------

    def ping(self) -> None:
        self._http.read("ping")

    def workers(self) -> tuple[WorkerFacts, ...]:
        return tuple(self._http.get(list[WorkerFacts], "workers"))

    def host_holds(self) -> dict[str, HostHold]:
        return self._http.get(dict[str, HostHold], "holds")

    def serving(self) -> dict[str, tuple[int, str]]:
        found = self._http.get(dict[str, QueueSlots], "slots")
        return {queue: (one.slots, one.why) for queue, one in found.items()}

    def running_on(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(labels) for name, labels in self._http.get(dict[str, list[str]], "running").items()}

    def queue_counts(self) -> dict[str, tuple[int, int]]:
        found = self._http.get(dict[str, QueueCount], "queues")
        return {queue: (one.ready, one.busy) for queue, one in found.items()}

    def drain_host(self, host: str, *, hands_back: bool = False, reason: str = "", force: bool = False) -> HostHold:
        body = DrainOrder(hands_back=hands_back, reason=reason, force=force)
        return self._http.post(HostHold, "hosts", host, "drain", body=body)

    def undrain_host(self, host: str) -> HostHold:
        return self._http.post(HostHold, "hosts", host, "undrain")

    def collect_artifacts(
        self, *, since: datetime, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> "Collected":
        """The server tells nothing before its end, so `say` is called once."""
        from farm.gc.artifacts import Collected

        say(f"the server at {self._http.url} looks through its artifacts")
        return self._http.post(Collected, "gc", body=CollectOrder(since=since, dry_run=dry_run))

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
        seconds = int(expires.total_seconds())
        body = TokenOrder(name=name, roles=tuple(roles), bearer=bearer, expires_s=seconds, project=project)
        return self._http.post(NewToken, "tokens", body=body)

    def tokens(self) -> tuple[Token, ...]:
        return tuple(self._http.get(list[Token], "tokens"))

    def revoke_token(self, token_id: int) -> Token:
        return self._http.post(Token, "tokens", token_id, "revoke")

    def audit(
        self,
        *,
        actor: str | None = None,
        verb: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> tuple[AuditRecord, ...]:
        found: list[AuditRecord] = []
        after = since.isoformat() if since is not None else None
        while len(found) < limit:
            size = min(limit - len(found), PAGE_MAX)
            page = self._http.get(AuditPage, "audit", actor=actor, verb=verb, since=after, limit=size, before=before)
            found += page.records
            if page.next is None or not page.records:
                break
            before = page.next
        return tuple(found)
