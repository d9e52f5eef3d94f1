"""What the store gives out for one attempt: everything that its work is made of. Not the work itself, which needs
the target and the farm's repositories (farm.scheduler.work)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from farm import wire
from farm.model.arch import Arch
from farm.model.build import BuildOptions, StepKind
from farm.model.label import AttemptLabel
from farm.model.source import Source
from farm.model.work import BuildResult, FetchResult, LogFile, SrpmResult
from farm.queues import queue_for
from farm.state.changes import BuildState, StepState


@dataclass(frozen=True, kw_only=True)
class Message:
    """One link of a Celery chain."""

    attempt: str
    kind: StepKind
    arch: Arch | None
    package: str

    @property
    def number(self) -> int:
        """Of the attempt, from 1."""
        return AttemptLabel.parse(self.attempt).number

    @property
    def queue(self) -> str:
        return queue_for(self.kind, self.arch)


@dataclass(frozen=True, kw_only=True)
class Order:
    """An attempt whose turn it is. `source` has its credentials again, for a `fetch`. `covers` are the arches that
    get the packages. `fetch`, `srpm` and `build` are what the steps before it made, those that it needs, and
    `srpm_by` and `built_by` the attempts that did; with `is_logs_only` an upload has `logs` alone. `following` is
    what comes next in the chain, where that goes out with it."""

    message: Message
    following: Message | None
    build_id: int
    batch_id: int
    target: str
    options: BuildOptions
    wall_s: int
    source: Source
    arches: tuple[Arch, ...]
    covers: tuple[Arch, ...]
    fetch: FetchResult | None = None
    srpm: SrpmResult | None = None
    build: BuildResult | None = None
    srpm_by: str = ""
    built_by: str = ""
    is_logs_only: bool = False
    logs: tuple[LogFile, ...] = ()


def make_order(
    build: BuildState,
    step: StepState,
    secrets: Mapping[int, str],
    logs: Mapping[str, tuple[LogFile, ...]],
    *,
    is_alone: bool = False,
) -> Order:
    """The order for a step with a live attempt, whose `logs` are found by its label. With `is_alone` what follows in
    the chain is on its way already."""
    following = None if is_alone else build.next_in_chain(step)
    source = build.source
    if step.kind is StepKind.FETCH and build.id in secrets:
        source = replace(source, url=secrets[build.id])
    is_per_arch = step.kind.per_arch
    return Order(
        message=_message(build, step),
        following=_message(build, following) if following is not None and following.live is not None else None,
        build_id=build.id,
        batch_id=build.batch_id,
        target=build.target,
        options=build.options,
        wall_s=step.live.wall_s if step.live else 0,
        source=source,
        arches=build.arches,
        covers=step.covers or ((step.arch,) if step.arch else ()),
        fetch=_output(build, StepKind.FETCH, None) if step.kind is StepKind.SRPM else None,
        srpm=_output(build, StepKind.SRPM, None) if is_per_arch else None,
        build=_output(build, StepKind.BUILD, step.arch) if step.kind is StepKind.UPLOAD else None,
        srpm_by=_maker(build, StepKind.SRPM, None) if is_per_arch else "",
        built_by=_maker(build, StepKind.BUILD, step.arch) if step.kind is StepKind.UPLOAD else "",
        is_logs_only=step.is_logs_only,
        logs=logs.get(step.label, ()),
    )


def _message(build: BuildState, step: StepState) -> Message:
    return Message(attempt=step.label, kind=step.kind, arch=step.arch, package=build.package)


def _maker(build: BuildState, kind: StepKind, arch: Arch | None) -> str:
    """The newest attempt, which is the one that succeeded, for else there would be no output."""
    step = build.find(kind, arch)
    return step.label if step is not None and step.output is not None else ""


def _output(build: BuildState, kind: StepKind, arch: Arch | None) -> Any:
    step = build.find(kind, arch)
    return wire.decode_output(kind, step.output) if step is not None and step.output is not None else None
