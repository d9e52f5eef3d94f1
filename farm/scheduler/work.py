"""Turns the store's orders into work: adds the target, the limits and the farm's own repositories."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import BadTarget, NotFound, StoreTrouble, UnknownTarget
from farm.model.arch import Arch
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import RepositorySource, Target
from farm.model.work import AnyWork, PinnedRepository, Work, repository_id
from farm.model.worker import WorkerFacts
from farm.queues import SOURCE
from farm.repositories.base import RepositoryKind, RepositoryName
from farm.scheduler.heads import Heads
from farm.steps.base import Order
from farm.steps.registry import build_workflow, step_type
from farm.store.heads import Head
from farm.store.projects import Surroundings
from farm.store.read_view import Ready
from farm.store.scheduling import Pick
from farm.targets import record
from farm.targets.load import find_target

_log = logging.getLogger(__name__)

_KEPT_S = 1.0  # how soon a changed target file is seen
_RECORDED_AT_MOST = 64  # recorded targets in memory
_MISSED_S = 60.0  # a file that is missing for longer was removed on purpose
_UNKNOWN_WALL_S = 24 * 3600
_ROOTS_PRIORITY = 10  # before all repositories of the target


class WorkMaker:
    """Makes work. Keeps a target for a second, so that two hundred builds read its file once; and for longer if the
    file can no longer be read: a file half saved, or a typing mistake, ends no build that was asked for.

    `surroundings` reads those of a project from SQL, for each build: a change counts from then on. Builds of the
    default project, which has none, cost no query.
    """

    def __init__(self, settings: Settings, heads: Heads, surroundings: Callable[[str], Surroundings]) -> None:
        self._settings = settings
        self._heads = heads
        self._surroundings = surroundings
        self._artifacts = open_store(settings)
        self._targets: dict[str, _Kept] = {}
        self._recorded: dict[str, Target] = {}

    def target(self, name: str) -> Target:
        """Raises UnknownTarget, BadTarget."""
        now = time.monotonic()
        kept = self._targets.get(name)
        if kept is not None and now < kept.look_at:
            return kept.target
        try:
            found = _Kept(target=find_target(self._settings, name), look_at=now + _KEPT_S)
        except (UnknownTarget, BadTarget) as error:
            if kept is None:
                raise
            if not kept.is_old:
                extra = {"action": "bad-target", "target": name}
                _log.warning("Using target %s as it was read before: %s", name, error, extra=extra)
            missed_at = (kept.missed_at or now) if isinstance(error, UnknownTarget) else None
            if missed_at is not None and now - missed_at > _MISSED_S:
                raise
            found = replace(kept, look_at=now + _KEPT_S, is_old=True, missed_at=missed_at)
        self._targets[name] = found
        return found.target

    def target_of(self, name: str, sha256: str | None) -> Target:
        """The target as it was when the build was asked for, by the digest of its record; for a build without a record
        the target as it is now.

        Raises NotFound when the record is no longer kept, BadTarget, StoreTrouble; UnknownTarget for a build without a
        record.
        """
        if sha256 is None:
            return self.target(name)
        found = self._recorded.get(sha256)
        if found is None:
            found = self._recorded[sha256] = self._read(name, sha256)
            while len(self._recorded) > _RECORDED_AT_MOST:
                del self._recorded[next(iter(self._recorded))]
        return found

    def _read(self, name: str, sha256: str) -> Target:
        # Most often the target is still what it was, and then the artifact store is not asked.
        with suppress(UnknownTarget, BadTarget):
            today = self.target(name)
            if record.digest_of(today) == sha256:
                return today
        try:
            return record.read_record(sha256, self._artifacts)
        except NotFound as error:
            raise NotFound(
                f"target {name} has changed, and its record from when the build was asked for ({sha256}) is no longer "
                f"kept; enqueue the build again"
            ) from error

    def pick(self, ready: Ready) -> Pick:
        """The step with its limits. They are a day each if the target cannot be read: the attempt ends with that
        message, and is tried again where that may help. Raises UnknownTarget."""
        kind = step_type(ready.kind)
        following = build_workflow().following(ready.kind) or kind
        try:
            target = self.target_of(ready.target, ready.target_sha256)
        except (BadTarget, NotFound, StoreTrouble):
            return Pick(ready=ready, wall_s=_UNKNOWN_WALL_S, following_wall_s=_UNKNOWN_WALL_S)
        return Pick(
            ready=ready,
            wall_s=kind.limits(target, ready.package, ready.options).wall_s,
            following_wall_s=following.limits(target, ready.package, ready.options).wall_s,
        )

    def make(self, order: Order, workers: Sequence[WorkerFacts]) -> AnyWork:
        """Raises FarmError when the work cannot be made: its target is gone, or its input was never recorded. The error
        is retryable when the cause may pass."""
        target = self.target_of(order.target, order.target_sha256)
        message = order.message
        kind = step_type(message.kind)
        is_default = order.project == DEFAULT_PROJECT
        seen = Surroundings() if is_default else self._surroundings(order.project)
        given = kind.make(order, _World(heads=self._heads, target=target, workers=workers, seen=seen))
        limits = kind.limits(target, message.package, order.options)
        return Work(
            attempt=message.attempt,
            kind=message.kind,
            build_id=order.build_id,
            package=message.package,
            project=order.project,
            target=self._pinned(order, target, given.arch, seen) if kind.runs_in_root else target,
            options=order.options,
            limits=replace(limits, wall_s=order.wall_s),
            input=given,
            target_sha256=order.target_sha256,
        )

    def _pinned(self, order: Order, target: Target, arch: Arch, seen: Surroundings) -> Target:
        """The target, with the farm's own repositories for its roots pinned to their present versions. The packages
        that the project names for the roots themselves come from its own repository."""
        form = target.format
        pinned = target.pinned(lambda name: self._head(order, _binary(DEFAULT_PROJECT, name, arch, form)).url or None)
        if not seen.root_packages:
            return pinned
        head = self._head(order, _binary(order.project, order.target, arch, form))
        if not head.version:  # the empty repository
            return pinned
        own = RepositorySource(
            name=f"{repository_id(order.project, order.target, arch)}-roots",
            baseurl=head.url,
            gpgcheck=False,
            priority=_ROOTS_PRIORITY,
            includes=seen.root_packages,
        )
        return replace(pinned, repositories=(own, *pinned.repositories))

    def _head(self, order: Order, name: RepositoryName) -> Head:
        return _head(self._heads, order, name)


@dataclass(frozen=True, kw_only=True)
class _World:
    """A step type's view of the farm: the target, the workers, and the farm's repositories."""

    heads: Heads
    target: Target
    workers: Sequence[WorkerFacts]
    seen: Surroundings

    def source_arch(self, order: Order) -> Arch:
        """Any arch of the target does: one that a source worker runs without emulation is quickest."""
        native = (worker.arches[0] for worker in self.workers if SOURCE in worker.queues and worker.arches)
        return next((arch for arch in native if arch in self.target.arches), order.arches[0])

    def own_repositories(self, order: Order, arch: Arch) -> tuple[PinnedRepository, ...]:
        """The packages of the order's project and of those that it builds on, in this order, for this target, pinned to
        the present versions, so that the record of a root says them.

        A second attempt may have been made because the version that the first attempt had was deleted.
        """
        found = []
        for project in (order.project, *self.seen.builds_on):
            head = _head(self.heads, order, _binary(project, order.target, arch, self.target.format))
            if head.version:  # the empty repository is left out
                name = repository_id(project, order.target, arch)
                found.append(PinnedRepository(name=name, url=head.url, version=head.version))
        return tuple(found)


def _binary(project: str, target: str, arch: Arch, form: str) -> RepositoryName:
    return RepositoryName(project=project, target=target, kind=RepositoryKind.BINARY, arch=arch, format=form)


def _head(heads: Heads, order: Order, name: RepositoryName) -> Head:
    return heads.get(name, is_doubted=order.message.number > 1)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A target as it was read last, and when to read it again. `is_old` when it could not be read since; `missed_at` is
    when its file was first missing."""

    target: Target
    look_at: float
    is_old: bool = False
    missed_at: float | None = None
