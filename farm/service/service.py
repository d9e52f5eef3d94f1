"""Every verb and every question of a farm. A verb takes the actor, and checks the actor's permission first.

The service takes and returns values: numbers of builds, requests that were made. A user's words become values in
request.py, and documents.py makes JSON of values.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, BinaryIO, Unpack

from farm.errors import BadRequest
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.artifact import Artifact
from farm.model.build import Batch, Build, BuildRequest, Step
from farm.model.figures import EndedWork, QueueFigures
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
from farm.model.worker import HostHold, WorkerFacts
from farm.repositories import RepositoryCheck, RepositoryName, RepositoryVersion
from farm.service import hosts
from farm.service.accounts import AccountVerbs
from farm.service.acting import Requests, UploadVerbs
from farm.service.audit import Act
from farm.service.log import LogPart, find_log, read_log, read_part
from farm.service.permissions import Verb, check, is_admin
from farm.service.repository import Repository, Rollback, check_repositories, describe, named, roll_back
from farm.service.request import (
    RequestArguments,
    check_names,
    check_owner,
    check_request,
    find_publishable,
    make_request,
    request_of,
)
from farm.service.watch import watch
from farm.store.clients import BuildFilter, no_batch, no_build
from farm.store.heads import Head
from farm.targets.load import find_target, load_targets

if TYPE_CHECKING:
    from farm.gc.artifacts import Collected

_log = logging.getLogger(__name__)


class FarmService(UploadVerbs, AccountVerbs, Requests):
    """Safe to use from several threads, and for several actors at a time.

    A question raises FarmNotRunning if a system that it needs does not answer; a verb also NotPermitted, before it does
    anything.
    """

    # --- verbs: builds ------------------------------------------------------------------------------------------

    def request(self, actor: Actor, *, upload: str | None = None, **asked: Unpack[RequestArguments]) -> BuildRequest:
        """A checked request. A local source package is copied into the artifact store after every other check.

        `upload` is the sha256 of a finished upload of the actor, in place of the other sources.

        A local path is read with the rights of this process, so the actor must be a user of this machine to name one.
        Raises UnknownTarget, BadTarget, UnknownArch, BadSource, BadRequest; StoreTrouble when it cannot be copied.
        """
        check_names(asked)
        check(actor, Verb.ENQUEUE, place=self.projects.places.of(actor, asked.get("project") or DEFAULT_PROJECT))
        asked = self.projects.completed(asked)
        uploaded = partial(self._uploads.source, actor.name, upload) if upload is not None else None
        return make_request(self.settings, lambda: self._on.artifacts, uid=actor.uid, uploaded=uploaded, **asked)

    def enqueue(self, actor: Actor, requests: Iterable[BuildRequest], *, owner: str | None = None) -> Batch:
        """Enqueue all or none of these builds, as one batch of this owner; of the actor, if None.

        `requests` is read after the check that the broker takes more. Raises what `request` does, BadRequest for no
        request at all, and BrokerFull.
        """
        name = check_owner(owner or actor.name)
        place = partial(self.projects.places.for_builds, actor)
        with self._act(actor, Verb.ENQUEUE, f"builds of {name}", owner=name, place=place) as made:
            batch = self._enqueue(actor, requests, owner=name)
            made.subject, made.detail = f"batch {batch.id}", _count_of(batch, name)
        self._on.wake()
        return batch

    def _enqueue(self, actor: Actor, requests: Iterable[BuildRequest], *, owner: str) -> Batch:
        from farm.targets.record import record_target  # a command that only reads builds needs none of it

        self._on.check_room()
        asked = tuple(requests)
        if not asked:
            raise BadRequest("a batch has at least one build; give a request")
        for project in {request.project for request in asked}:
            check(actor, Verb.ENQUEUE, owner=owner, place=self.projects.places.of(actor, project))
        for project, target in {(request.project, request.target) for request in asked}:
            self.projects.check_target(project, target)
        # Each target's file is read once, or else the check of a thousand requests takes longer than the write.
        targets = {name: find_publishable(self.settings, name) for name in {request.target for request in asked}}
        checked = [check_request(targets[request.target], request, uid=actor.uid) for request in asked]
        if any(request.priority > 0 for request in checked):
            check(actor, Verb.HURRY)
        recorded = {target.name: record_target(target, self._on.artifacts).sha256 for target in targets.values()}
        return self._store.add_batch(checked, owner=owner, targets=recorded)

    def request_again(self, actor: Actor, build_id: int) -> BuildRequest:
        """The request of an earlier build, without the credentials that its URL may have had. Raises NotFound."""
        return request_of(self.build(build_id, actor), uid=actor.uid)

    def cancel(self, actor: Actor, build_id: int) -> Build:
        """End a build in any state; the scheduler kills its running steps within 2 s.

        The build is over at once. The scheduler finds in SQL which steps to stop; without a scheduler, they are stopped
        when one starts. Raises NotFound, and WrongState when it is over.
        """
        with self._act_on_build(actor, Verb.CANCEL, build_id):
            self._store.cancel(build_id, by=actor.name)
        self._on.wake()
        return self.build(build_id, actor)

    def retry(
        self, actor: Actor, build_id: int, *, step: str | None = None, arch: Arch | None = None
    ) -> tuple[Step, ...]:
        """Run the steps that did not succeed again, or the named one and all later ones, with the recorded inputs.

        Returns the steps that start. Raises NotFound, and WrongState while the build is going on there.
        """
        with self._act_on_build(actor, Verb.RETRY, build_id) as made:
            steps = self._store.retry(build_id, step=step, arch=arch, by=actor.name)
            made.detail = ", ".join(one.name for one in steps)
        self._on.wake()
        return steps

    def _act_on_build(self, actor: Actor, verb: Verb, build_id: int) -> AbstractContextManager[Act]:
        # An admin may act on every build, so its owner is not looked up.
        if is_admin(actor):
            return self._act(actor, verb, f"build {build_id}")
        build = cache(partial(self.build, build_id, actor))
        return self._act(
            actor,
            verb,
            f"build {build_id}",
            owner=lambda: build().owner,
            place=lambda: self.projects.places.of(actor, build().project, with_removed=True),
        )

    # --- verbs: the farm ----------------------------------------------------------------------------------------

    def drain_host(
        self, actor: Actor, host: str, *, hands_back: bool = False, reason: str = "", force: bool = False
    ) -> HostHold:
        """Give a host no new work until it is undrained; with `hands_back` its running steps run on another host.

        Raises NotFound for an unknown host, unless `force`.
        """
        with self._act(actor, Verb.DRAIN, f"host {host}", detail="hands back its steps" if hands_back else ""):
            known = {host} if force else {worker.host for worker in self.workers()}
            hold = hosts.drain(self._store, host, known, by=actor.name, reason=reason, hands_back=hands_back)
        self._on.wake()
        _log.info("%s", hold.shown, extra={"action": "drain", "host": host})
        return hold

    def undrain_host(self, actor: Actor, host: str) -> HostHold:
        """Give a drained or quarantined host work again. Returns its hold. Raises WrongState without one."""
        with self._act(actor, Verb.UNDRAIN, f"host {host}"):
            was = hosts.undrain(self._store, host)
        self._on.wake()
        _log.info("%s gives host %s work again, which was %s", actor.name, host, was.kind, extra={"action": "undrain"})
        return was

    def rollback(
        self,
        actor: Actor,
        target: str,
        *,
        to: int,
        arch: str | Arch | None = None,
        kind: str = "os",
        project: str = DEFAULT_PROJECT,
    ) -> Rollback:
        """Make a new version with the content of version `to`, which clients and later builds get.

        Raises NotFound for a version that is not kept, and for an unknown project; UnknownTarget, UnknownArch,
        BadRequest, RepositoryTrouble.
        """
        place = partial(self.projects.places.of, actor, project)
        detail = f"to version {to}"
        with self._act(actor, Verb.ROLL_BACK, f"repository {target}", place=place, detail=detail) as made:
            name = self.repository_name(target, arch, kind=kind, project=project, viewer=actor)
            made.subject = f"repository {name.path}"
            done = roll_back(self._on.repositories, name, to)
            self._store.publish_head(name.path, Head(version=done.after.number, url=done.after.url))
        _log.info("%s rolled %s back to version %d", actor.name, name.path, to, extra={"action": "rollback"})
        return done

    def collect_artifacts(
        self, actor: Actor, *, since: datetime, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> "Collected":
        """Remove artifacts that neither an unfinished build, nor one that ended after `since`, nor a kept version of a
        repository names, and the records of the audit log that are older than FARM_KEEP_AUDIT_DAYS.

        Raises StoreTrouble, RepositoryTrouble.
        """
        from farm.gc.artifacts import ArtifactCollector

        with self._act(actor, Verb.COLLECT, "artifacts", detail="dry run" if dry_run else "") as made:
            found = ArtifactCollector(
                store=self._store,
                artifacts=self._on.artifacts,
                repositories=self._on.repositories,
                since=since,
                say=say,
            ).collect(dry_run=dry_run)
            found = replace(found, audit_records=self._prune_audit(dry_run=dry_run))
            made.subject = f"{found.files} artifacts"
            if found.audit_records:
                made.subject += f", {found.audit_records} records of the audit log"
        return found

    def _prune_audit(self, *, dry_run: bool) -> int:
        if not self.settings.keep_audit_days:
            return 0
        before = datetime.now(UTC) - timedelta(days=self.settings.keep_audit_days)
        return self._store.prune_audit(before=before, dry_run=dry_run)

    # --- questions: builds --------------------------------------------------------------------------------------
    # A viewer sees the builds of private projects whose member it is. Without a viewer no private build exists.

    def build(self, build_id: int, viewer: Actor | None = None) -> Build:
        """The present state, with steps, attempts and their artifacts. Raises NotFound."""
        found = self._store.build(build_id)
        if not self.projects.places.sees(viewer, found.project):
            raise no_build(build_id)
        return found

    def project_of(self, build_id: int) -> str:
        """The project of a build, also of one that an actor may not see. Raises NotFound."""
        return self._store.project_of(build_id)

    def batch(self, batch_id: int, viewer: Actor | None = None) -> Batch:
        """Raises NotFound."""
        found = self._store.batch(batch_id)
        seen = {name for name in {one.project for one in found.builds} if self.projects.places.sees(viewer, name)}
        if found.builds and not seen:
            raise no_batch(batch_id)
        return replace(found, builds=tuple(one for one in found.builds if one.project in seen))

    def builds(
        self, viewer: Actor | None = None, *, limit: int = 50, **chosen: Unpack[BuildFilter]
    ) -> tuple[Build, ...]:
        """Builds, newest first, with their steps but without attempts; only those older than the build `before`.

        Raises NotFound for a project that does not exist, or that the viewer may not see.
        """
        project = chosen.get("project")
        if project is not None:
            self.projects.places.of(viewer, project, with_removed=True)
        hidden = self.projects.places.hidden_from(viewer) if project is None else ()
        return self._store.builds(limit=limit, hidden=hidden, **chosen)

    def changed_since(self, since: datetime, *, limit: int) -> list[int]:
        """The builds that run, or were enqueued or ended after that time, by number; no more than `limit`."""
        return self._store.changed_since(since, limit=limit)

    def watch(
        self, build_id: int, *, timeout_s: float | None = None, viewer: Actor | None = None
    ) -> Generator[Build | None, None, None]:
        """Yield the build now and each time that it has changed, until it is finished; None at the timeout."""
        return watch(
            lambda: self.build(build_id, viewer), lambda: self._on.leases, build_id=build_id, timeout_s=timeout_s
        )

    def log(
        self,
        build_id: int,
        *,
        step: str | None,
        arch: Arch | None,
        attempt: int | None,
        follow: bool = False,
        viewer: Actor | None = None,
    ) -> Iterator[bytes]:
        """An attempt's log as bytes; the most useful one if step, arch or attempt are None.

        Raises NotFound, and WrongState when the step has not begun.
        """
        place = find_log(self.build(build_id, viewer), step=step, arch=arch, attempt=attempt)
        refresh = partial(self.build, build_id, viewer)
        return read_log(place, self._on.artifacts, lambda: self._on.leases, refresh=refresh, follow=follow)

    def log_part(
        self,
        build_id: int,
        *,
        step: str | None,
        arch: Arch | None,
        attempt: int | None,
        offset: int,
        limit: int,
        viewer: Actor | None = None,
    ) -> LogPart:
        """The bytes of such a log that are there now, from `offset` on. Raises as `log` does."""
        place = find_log(self.build(build_id, viewer), step=step, arch=arch, attempt=attempt)
        refresh = partial(self.build, build_id, viewer)
        leases = partial(getattr, self._on, "leases")
        return read_part(place, self._on.artifacts, leases, refresh=refresh, offset=offset, limit=limit)

    def open_artifact(self, artifact: Artifact) -> BinaryIO:
        """The content; the caller closes it. Raises NotFound."""
        return self.open_content(artifact.sha256)

    def open_content(self, sha256: str, offset: int = 0) -> BinaryIO:
        """The same by digest, from the byte at `offset` on."""
        return self._on.artifacts.open(sha256, offset)

    # --- questions: repositories and targets --------------------------------------------------------------------

    def repository(
        self,
        target: str,
        arch: str | Arch | None = None,
        *,
        project: str = DEFAULT_PROJECT,
        viewer: Actor | None = None,
    ) -> Repository:
        """`arch` None is this machine's, if the target has it. Raises UnknownTarget, UnknownArch, NotFound."""
        self.projects.places.of(viewer, project, with_removed=True)
        return describe(self.settings, target, arch, project)

    def repository_name(
        self,
        target: str,
        arch: str | Arch | None = None,
        *,
        kind: str = "os",
        project: str = DEFAULT_PROJECT,
        viewer: Actor | None = None,
    ) -> RepositoryName:
        """Raises UnknownTarget, UnknownArch, BadRequest, and NotFound for an unknown project."""
        self.projects.places.of(viewer, project, with_removed=True)
        return named(self.settings, target, arch, kind=kind, project=project)

    def repository_versions(self, name: RepositoryName) -> tuple[RepositoryVersion, ...]:
        """The versions that are kept, newest first. Raises RepositoryTrouble."""
        return self._on.repositories.versions(name)

    def check_repositories(self) -> tuple[RepositoryCheck, ...]:
        return check_repositories(self.settings)

    def target(self, name: str) -> Target:
        """Raises UnknownTarget, BadTarget."""
        return find_target(self.settings, name)

    def targets(self) -> dict[str, Target]:
        """By name. Raises BadTarget for the first file that is not valid."""
        return load_targets(self.settings)

    # --- questions: hosts and queues ----------------------------------------------------------------------------

    def ping(self) -> None:
        """Raises FarmNotRunning when the broker does not answer."""
        self._on.ping()

    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that reported within the last 30 s, by name."""
        return self._on.workers()

    def host_holds(self) -> dict[str, HostHold]:
        """The holds on the hosts that get no work now, by HostHold.key."""
        return hosts.held(self._store)

    def serving(self) -> dict[str, tuple[int, str]]:
        """By queue: how many slots get work now, and why the others get none."""
        return hosts.serving(self.workers(), self.host_holds())

    def running_on(self) -> dict[str, tuple[str, ...]]:
        """The labels of running attempts, keyed by worker, and again keyed by host."""
        return hosts.running_on(self._store)

    def queue_figures(self) -> tuple[QueueFigures, ...]:
        """The queues with their depth, slots and oldest wait, from the database alone."""
        return self._store.queue_figures()

    def ended_work(self, after: datetime, until: datetime) -> EndedWork:
        """The work of builds that ended after the one time, and at the other or before."""
        return self._store.ended_work(after, until)

    def queue_counts(self) -> dict[str, tuple[int, int]]:
        """The number of ready steps, and of steps held by workers, for each queue that has any."""
        return self._store.queue_counts()


def _count_of(batch: Batch, owner: str) -> str:
    count = len(batch.builds)
    words = f"{count} builds of {owner}" if count != 1 else f"1 build of {owner}"
    return words + (", before those of others" if any(one.priority > 0 for one in batch.builds) else "")
