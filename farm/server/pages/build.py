"""The page of a build, its forms, its artifacts and the contents of its roots."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litestar import Controller, Response, get, post
from litestar.params import FromQuery
from litestar.response import Redirect, Stream

from farm.errors import BadTarget, FarmError, UnknownTarget
from farm.model.actor import Actor
from farm.model.arch import Arch
from farm.model.build import Attempt, Build, Step
from farm.model.outcome import Outcome, Status
from farm.server.pages import session
from farm.server.pages.charts import time_lines
from farm.server.pages.forms import Fields, Form
from farm.server.pages.render import PageRequest, flower, page
from farm.server.parameters import Id, Limits, MaybeText, Name, Service, Sha256
from farm.service.files import files_of
from farm.service.limits import differing_limits, limit_text, limit_words
from farm.service.request import arch_named, step_kind
from farm.service.root_record import RootDifference, root_records
from farm.service.service import FarmService
from farm.service.summary import culprit

_FILES_SHOWN = 60
_CHANGES_SHOWN = 30
_ROOT_SHOWN = 1000
_ATTEMPTS_SHOWN = 10
_EXCERPT_LINES = 15
_CHUNK_BYTES = 2**18


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The steps as a picture: those that run once, then a lane for each arch. `planned` are arches without steps."""

    once: tuple[Step, ...]
    lanes: tuple[tuple[Arch, tuple[Step, ...]], ...]
    planned: tuple[Arch, ...]


class BuildPages(Controller):
    """The paths below `/builds/N` and `/artifacts`."""

    @get("/builds/{build_id:int}", sync_to_thread=True)
    def build(self, request: PageRequest, service: Service, build_id: Id) -> Response[bytes]:
        build = service.build(build_id, request.user)
        step, attempt = culprit(build)
        lines, whole_s = time_lines(build)
        files = files_of(build)
        is_good = build.outcome is not None and build.outcome.is_success
        return page(
            request,
            "build",
            title=f"{build.name} · build {build.id}",
            at="builds",
            build=build,
            name=build.name,
            chain=chain_of(build),
            lines=lines,
            whole_s=whole_s,
            culprit_step=step,
            culprit_attempt=attempt,
            excerpt=excerpt_of(attempt) if attempt else [],
            estimate=service.insight.estimate(build),
            limits=_limits(service, build),
            packages=[one for one in files if one.artifact.kind.is_package][:_FILES_SHOWN],
            files=[one for one in files if not one.artifact.kind.is_package][:_FILES_SHOWN],
            file_count=len(files),
            roots=_roots(service, build),
            changes_shown=_CHANGES_SHOWN,
            attempts_shown=_ATTEMPTS_SHOWN,
            install=_install(service, build, request.user) if is_good else "",
            is_over=build.status is Status.FINISHED,
            is_good=is_good,
            place=service.projects.places.of(request.user, build.project, with_removed=True),
            flower=flower(service),
        )

    @post("/builds/{build_id:int}/cancel", sync_to_thread=True, status_code=303)
    def cancel(self, request: PageRequest, service: Service, build_id: Id) -> Redirect:
        service.cancel(request.user, build_id)
        session.say(request.session, f"Build {build_id} is cancelled.")
        return Redirect(f"/builds/{build_id}", status_code=303)

    @post("/builds/{build_id:int}/retry", sync_to_thread=True, status_code=303)
    def retry(self, request: PageRequest, service: Service, build_id: Id, data: Fields) -> Redirect:
        form = Form(data)
        step, arch = step_kind(form.maybe("step")), arch_named(form.maybe("arch"))
        steps = service.retry(request.user, build_id, step=step, arch=arch)
        session.say(request.session, f"Runs again: {', '.join(one.name for one in steps)}.")
        return Redirect(f"/builds/{build_id}", status_code=303)

    @post("/builds/{build_id:int}/rebuild", sync_to_thread=True, status_code=303)
    def rebuild(self, request: PageRequest, service: Service, limits: Limits, build_id: Id) -> Redirect:
        limits.enqueue(request.user.name, 1)
        batch = service.enqueue(request.user, [service.request_again(request.user, build_id)])
        made = batch.builds[0].id
        session.say(request.session, f"Build {made} is enqueued, with the source and options of build {build_id}.")
        return Redirect(f"/builds/{made}", status_code=303)

    @get("/builds/{build_id:int}/root", sync_to_thread=True)
    def root(
        self, request: PageRequest, service: Service, build_id: Id, arch: FromQuery[Arch], q: MaybeText = None
    ) -> Response[bytes]:
        build = service.build(build_id, request.user)
        packages = sorted(service.insight.root(build, arch).items())
        wanted = [one for one in packages if (q or "").lower() in one[0].lower()]
        return page(
            request,
            "root",
            title=f"Root of build {build.id}, {arch}",
            at="builds",
            build=build,
            name=build.name,
            arch=arch,
            q=q,
            packages=wanted[:_ROOT_SHOWN],
            found=len(wanted),
            total=len(packages),
            difference=service.insight.root_difference(build, arch),
        )

    @get("/artifacts/{sha256:str}/{name:str}", sync_to_thread=True)
    def artifact(self, service: Service, sha256: Sha256, name: Name) -> Stream:
        """A download: a browser shows none of it."""
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(name[:200], safe='')}",
            "etag": f'"{sha256}"',
        }
        first = _part(service, sha256, 0)
        return Stream(_chunks(service, sha256, first), media_type="application/octet-stream", headers=headers)


def excerpt_of(attempt: Attempt) -> list[tuple[str, bool]]:
    """Lines around the one that is the reason, which is marked; the last lines if none is."""
    lines = [line.expandtabs() for line in (attempt.excerpt or "").splitlines()]
    places = [place for place, line in enumerate(lines) if " ".join(line.split()) == attempt.reason]
    if not places:
        return [(line, False) for line in lines[-_EXCERPT_LINES:]]
    first = max(0, places[-1] - _EXCERPT_LINES // 2)
    shown = list(enumerate(lines))[first : first + _EXCERPT_LINES]
    return [(line, place == places[-1]) for place, line in shown]


def chain_of(build: Build) -> Chain:
    once = tuple(step for step in build.steps if step.arch is None)
    arches = dict.fromkeys(step.arch for step in build.steps if step.arch is not None)
    lanes = tuple((arch, tuple(step for step in build.steps if step.arch is arch)) for arch in arches)
    planned = tuple(arch for arch in build.arches if arch not in arches)
    return Chain(once=once, lanes=lanes, planned=planned if build.status is not Status.FINISHED else ())


def _limits(service: FarmService, build: Build) -> list[str]:
    with suppress(UnknownTarget, BadTarget):  # it may have been deleted meanwhile
        target = service.target(build.target)
        return [
            f"{limit_words(name, own)} (the target's is {limit_text(name, usual)})"
            for name, own, usual in differing_limits(build, target)
        ]
    return []


def _roots(service: FarmService, build: Build) -> list[tuple[Arch, int, RootDifference | None]]:
    """By arch, the number of packages in the root, and the difference to the last good build's."""
    found: list[tuple[Arch, int, Any]] = []
    for arch in root_records(build):
        with suppress(FarmError):  # an artifact that was collected
            count = len(service.insight.root(build, arch))
            found.append((arch, count, service.insight.root_difference(build, arch)))
    return found


def _install(service: FarmService, build: Build, viewer: Actor) -> str:
    built = next((step.arch for step in build.steps if step.arch and step.outcome is Outcome.SUCCEEDED), None)
    with suppress(FarmError):
        return service.repository(build.target, built, project=build.project, viewer=viewer).install_command(
            build.package
        )
    return ""


def _part(service: FarmService, sha256: str, offset: int) -> bytes:
    with service.open_content(sha256, offset) as file:
        return file.read(_CHUNK_BYTES)


def _chunks(service: FarmService, sha256: str, data: bytes) -> Iterator[bytes]:
    offset = 0
    while data:
        yield data
        offset += len(data)
        data = _part(service, sha256, offset)
