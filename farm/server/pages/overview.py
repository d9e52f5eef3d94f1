"""The first page: what runs on which host, what waits and why, and how builds ended."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from litestar import Controller, Response, get

from farm.errors import FarmNotRunning
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.build import Build, Step
from farm.model.history import StepRun
from farm.model.label import AttemptLabel
from farm.model.outcome import Status
from farm.model.worker import HostHold, WorkerFacts
from farm.server.pages.render import PageRequest, flower, page
from farm.server.parameters import Service
from farm.service.hosts import idle_reason
from farm.service.service import FarmService

_RUNNING_MAX = 200
_WAITING = 12
_GOING, _GOING_SHOWN = 50, 12
_ENDED = 12


@dataclass(frozen=True, kw_only=True)
class Running:
    """An attempt that runs on a host."""

    label: str
    build: Build | None
    kind: str
    arch: Arch | None
    run: StepRun | None


@dataclass(frozen=True, kw_only=True)
class HostView:
    """A host with its workers; `why` is the reason why it gets no work, empty if it gets some."""

    name: str
    workers: tuple[WorkerFacts, ...]
    running: tuple[Running, ...]
    why: str
    hold: HostHold | None

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """A queue: `why` says why it has no slots, if it has none."""

    name: str
    slots: int
    busy: int
    ready: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A step of a build that waits for something outside of its build."""

    build: Build
    step: Step
    why: str


class OverviewPages(Controller):
    """The path `/`."""

    @get("/", sync_to_thread=True)
    def overview(self, request: PageRequest, service: Service) -> Response[bytes]:
        going = service.builds(request.user, status=Status.RUNNING, limit=_GOING)
        ready = service.builds(request.user, status=Status.READY, limit=_GOING)
        return page(
            request,
            "overview",
            title="Overview",
            at="overview",
            trouble=_trouble(service),
            hosts=hosts_of(service, request.user),
            queues=queues_of(service),
            going=going[:_GOING_SHOWN],
            waits=waits_of((*going, *ready))[:_WAITING],
            ended=service.builds(request.user, status=Status.FINISHED, limit=_ENDED),
            outcomes=service.insight.outcomes(request.user),
            flower=flower(service),
        )


def waits_of(builds: Iterable[Build]) -> list[Wait]:
    """The waiting steps of these builds, but those that wait for a step of their own build, oldest build first."""
    return [
        Wait(build=build, step=step, why=step.waits_for)
        for build in sorted(builds, key=lambda one: one.id)
        for step in build.steps
        if step.waits_for and not step.waits_for.startswith("waits for ") and not _is_next(build, step)
    ]


def _is_next(build: Build, step: Step) -> bool:
    """Whether it was sent together with the step before it, which still runs."""
    is_sent = step.status is Status.DISPATCHED
    return is_sent and any(one.status is Status.RUNNING for one in build.steps if one.arch in (step.arch, None))


def _trouble(service: FarmService) -> str:
    try:
        service.ping()
    except FarmNotRunning as error:
        return str(error)
    return ""


def hosts_of(service: FarmService, viewer: Actor) -> tuple[HostView, ...]:
    """The hosts with workers that reported lately, and those with a hold; none if the broker does not answer."""
    workers: tuple[WorkerFacts, ...] = ()
    with suppress(FarmNotRunning):
        workers = service.workers()
    holds = service.host_holds()
    by_host = service.running_on()
    names = {worker.host for worker in workers}
    held = {hold.host: hold for hold in holds.values()}
    wanted = {name: by_host.get(name, ()) for name in sorted({*names, *held})}
    known = _known(service, viewer, [label for labels in wanted.values() for label in labels][:_RUNNING_MAX])
    found = []
    for name, labels in wanted.items():
        own = tuple(worker for worker in workers if worker.host == name)
        whys = [idle_reason(worker, holds) for worker in own]
        why = next((one for one in whys if one), "") if all(whys) else ""
        found.append(
            HostView(
                name=name,
                workers=own,
                running=tuple(known[label] for label in labels if label in known),
                why=why if own else "no worker reports",
                hold=held.get(name),
            )
        )
    return tuple(found)


def _known(service: FarmService, viewer: Actor, labels: list[str]) -> dict[str, Running]:
    parsed = {label: found for label in labels if (found := AttemptLabel.parse_or_none(label)) is not None}
    ids = tuple(dict.fromkeys(one.job_id for one in parsed.values()))
    builds = {build.id: build for build in service.insight.builds_numbered(viewer, ids)}
    runs = {(run.build, run.kind, run.arch): run for run in service.insight.runs(tuple(builds.values()))}
    return {
        label: Running(
            label=label,
            build=builds.get(one.job_id),
            kind=one.kind,
            arch=one.arch,
            run=runs.get((one.job_id, one.kind, one.arch)),
        )
        for label, one in parsed.items()
    }


def queues_of(service: FarmService) -> tuple[QueueView, ...]:
    """The queues that have slots or steps, by name."""
    serving: dict[str, tuple[int, str]] = {}
    with suppress(FarmNotRunning):
        serving = service.serving()
    counts = service.queue_counts()
    found = []
    for name in sorted({*serving, *counts}):
        (slots, why), (ready, busy) = serving.get(name, (0, "no worker")), counts.get(name, (0, 0))
        found.append(QueueView(name=name, slots=slots, busy=busy, ready=ready, why="" if slots else why))
    return tuple(found)
