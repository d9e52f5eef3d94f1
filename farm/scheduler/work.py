"""Turns the store's orders into work: adds the target, the limits and the farm's own repositories."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypedDict

from farm.config import Settings
from farm.errors import BadTarget, NotFound, UnknownTarget
from farm.model.arch import Arch
from farm.model.build import BuildOptions, StepKind
from farm.model.target import Limits, Target
from farm.model.work import AnyWork, BuildInput, FetchInput, PinnedRepository, SrpmInput, UploadInput, Work
from farm.model.worker import WorkerFacts
from farm.queues import SOURCE
from farm.repositories.base import RepositoryKind, RepositoryName
from farm.scheduler.heads import Heads
from farm.store.heads import Head
from farm.store.orders import Order
from farm.store.read_view import Ready
from farm.store.scheduling import Pick
from farm.targets.load import find_target

_log = logging.getLogger(__name__)

_KEPT_S = 1.0  # how soon a changed target file is seen
_MISSED_S = 60.0  # after which a file that is not there any more was removed on purpose
_UNKNOWN_WALL_S = 24 * 3600
_SMALL_STEP_S = 3600  # the longest that any step but `build` may run


class WorkMaker:
    """Makes work. Keeps targets for a second, so that two hundred builds read a file once; and for longer where a file
    cannot be read that could before: an editor at work, or a typing mistake, ends no build that was asked for."""

    def __init__(self, settings: Settings, heads: Heads) -> None:
        self._settings = settings
        self._heads = heads
        self._targets: dict[str, _Kept] = {}

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
                _log.warning("Target %s stays what it was before: %s", name, error, extra=extra)
            missed_at = (kept.missed_at or now) if isinstance(error, UnknownTarget) else None
            if missed_at is not None and now - missed_at > _MISSED_S:
                raise
            found = replace(kept, look_at=now + _KEPT_S, is_old=True, missed_at=missed_at)
        self._targets[name] = found
        return found.target

    def pick(self, ready: Ready) -> Pick:
        """The step with its limits. They are a day each for a target whose file cannot be read: the attempt says so,
        and is tried again. Raises UnknownTarget."""
        following = ready.kind.next_in_chain or ready.kind
        try:
            target = self.target(ready.target)
        except BadTarget:
            return Pick(ready=ready, wall_s=_UNKNOWN_WALL_S, following_wall_s=_UNKNOWN_WALL_S)
        return Pick(
            ready=ready,
            wall_s=limits_of(target, ready.package, ready.options, ready.kind).wall_s,
            following_wall_s=limits_of(target, ready.package, ready.options, following).wall_s,
        )

    def make(self, order: Order, workers: Sequence[WorkerFacts]) -> AnyWork:
        """Raises FarmError when there can be no such work: its target is gone, or its input was never recorded; one
        that is retryable when that may pass."""
        target = self.target(order.target)
        message = order.message
        head: _Head = {
            "attempt": message.attempt,
            "kind": message.kind,
            "build_id": order.build_id,
            "package": message.package,
            "target": target,
            "options": order.options,
            "limits": replace(limits_of(target, message.package, order.options, message.kind), wall_s=order.wall_s),
        }
        match message.kind:
            case StepKind.FETCH:
                return Work(input=FetchInput(source=order.source), **head)
            case StepKind.SRPM:
                given = self._srpm(order, target, workers)
                head["target"] = self._pinned(order, target, given.arch)
                return Work(input=given, **head)
            case StepKind.BUILD:
                build = self._build(order)
                head["target"] = self._pinned(order, target, build.arch)
                return Work(input=build, **head)
            case StepKind.UPLOAD:
                return Work(input=_upload(order), **head)

    def _srpm(self, order: Order, target: Target, workers: Sequence[WorkerFacts]) -> SrpmInput:
        fetched = order.fetch or _missing(order, "fetch")
        # Any arch of the target does: one that a source worker runs without emulation is quickest.
        native = (worker.arches[0] for worker in workers if SOURCE in worker.queues and worker.arches)
        arch = next((arch for arch in native if arch in target.arches), order.arches[0])
        return SrpmInput(archive=fetched.archive, spec=fetched.spec, commit_at=fetched.commit_at, arch=arch)

    def _build(self, order: Order) -> BuildInput:
        srpm = order.srpm or _missing(order, "srpm")
        arch = order.message.arch or _missing(order, "arch")
        return BuildInput(
            srpm=srpm.srpm,
            nevra=srpm.nevra,
            build_requires=srpm.build_requires,
            arch=arch,
            repositories=self._own_repositories(order, arch),
        )

    def _own_repositories(self, order: Order, arch: Arch) -> tuple[PinnedRepository, ...]:
        """The farm's own packages for this target, as they are now: pinned, so that a build's root can be told.

        A second attempt may be there because the version that the first one was given is gone.
        """
        head = self._head(order, order.target, arch)
        if not head.version:  # the empty repository
            return ()
        return (PinnedRepository(name=f"farm-{order.target}-{arch}", url=head.url, version=head.version),)

    def _pinned(self, order: Order, target: Target, arch: Arch) -> Target:
        """The target with what the farm itself provides for its roots as it is now."""
        return target.pinned(lambda name: self._head(order, name, arch).url or None)

    def _head(self, order: Order, target: str, arch: Arch) -> Head:
        name = RepositoryName(target=target, kind=RepositoryKind.BINARY, arch=arch)
        return self._heads.get(name, is_doubted=order.message.number > 1)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A target as it was read last, and when to look again. `is_old` when it could not be read since; `missed_at` is
    since when its file is not there."""

    target: Target
    look_at: float
    is_old: bool = False
    missed_at: float | None = None


class _Head(TypedDict):
    """What work of every kind has."""

    attempt: str
    kind: StepKind
    build_id: int
    package: str
    target: Target
    options: BuildOptions
    limits: Limits


def limits_of(target: Target, package: str, options: BuildOptions, kind: StepKind) -> Limits:
    """What a step may use: a build's own limits beat its package's, which beat the target's.

    `package` is a guess until the srpm step has run, and `build` steps are sent after that.
    """
    match kind:
        case StepKind.BUILD:
            return options.limits_over(target.limits_for(package))
        case StepKind.FETCH | StepKind.SRPM:
            return _small(options.limits.over(target.limits_for(package)))
        case StepKind.UPLOAD:  # it runs nothing of the package's
            return _small(target.limits)


def _small(limits: Limits) -> Limits:
    return replace(limits, wall_s=min(limits.wall_s, _SMALL_STEP_S))


def _upload(order: Order) -> UploadInput:
    if order.is_logs_only:
        return UploadInput(srpm=None, rpms=(), arches=order.covers, batch=order.batch_id, logs=order.logs)
    srpm = order.srpm or _missing(order, "srpm")
    built = order.build or _missing(order, "build")
    return UploadInput(
        srpm=srpm.srpm,
        rpms=built.rpms,
        arches=order.covers,
        batch=order.batch_id,
        srpm_by=order.srpm_by,
        built_by=order.built_by,
        logs=order.logs,
    )


def _missing(order: Order, what: str) -> NoReturn:
    raise NotFound(f"{order.message.attempt} has no recorded {what}; retry the build from there")
