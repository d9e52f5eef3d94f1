"""Routes of builds: enqueue, list, look, cancel, retry, logs and artifacts."""

import asyncio
import os
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter

from farm.model.arch import Arch
from farm.model.build import Batch, Build, BuildRequest
from farm.model.outcome import Outcome, Status
from farm.server.files import Content, answer
from farm.server.live import LiveStreams
from farm.server.parameters import (
    ActorRequest,
    Id,
    Limits,
    MaybeId,
    MaybePackage,
    MaybeText,
    Offset,
    Service,
    Sha256,
    TargetName,
)
from farm.service.bodies import (
    ATTEMPT_HEADER,
    LOG_PART_MAX,
    OVER_HEADER,
    PAGE_MAX,
    PREFIX,
    BatchOrder,
    BuildPage,
    RetryOrder,
    Steps,
)
from farm.service.orders import BuildOrder
from farm.service.request import arch_named, step_kind
from farm.service.service import FarmService


class Builds(Controller):
    """The routes below `/builds`, `/batches` and `/artifacts`."""

    path = PREFIX
    tags = ("builds",)

    @get("/builds", sync_to_thread=True)
    def list_builds(
        self,
        service: Service,
        request: ActorRequest,
        status: FromQuery[Status | None] = None,
        outcome: FromQuery[Outcome | None] = None,
        target: TargetName = None,
        project: MaybeText = None,
        package: MaybePackage = None,
        limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = 50,
        before: MaybeId = None,
    ) -> BuildPage:
        """Builds, newest first, with steps and without attempts."""
        found = service.builds(
            request.user,
            status=status,
            outcome=outcome,
            target=target,
            project=project,
            package=package,
            limit=limit,
            before=before,
        )
        return BuildPage(builds=found, next=found[-1].id if len(found) == limit else None)

    @post("/builds", sync_to_thread=True)
    def enqueue(self, service: Service, limits: Limits, request: ActorRequest, data: JSONBody[BuildOrder]) -> Build:
        """Enqueue one build."""
        actor = request.user
        limits.enqueue(actor.name, 1)
        batch = service.enqueue(actor, (service.request(actor, upload=one.upload, **one.arguments) for one in (data,)))
        return service.build(batch.builds[0].id, actor)

    @post("/requests", sync_to_thread=True, status_code=200)
    def check(self, service: Service, request: ActorRequest, data: JSONBody[BuildOrder]) -> BuildRequest:
        """Check an order of a build, and enqueue nothing."""
        return service.request(request.user, upload=data.upload, **data.arguments)

    @post("/batches", sync_to_thread=True)
    def enqueue_batch(
        self, service: Service, limits: Limits, request: ActorRequest, data: JSONBody[BatchOrder]
    ) -> Batch:
        """Enqueue all or none of these builds."""
        actor = request.user
        limits.enqueue(actor.name, len(data.builds))
        requests = (service.request(actor, upload=one.upload, **one.arguments) for one in data.builds)
        return service.enqueue(actor, requests, owner=data.owner)

    @get("/batches/{batch_id:int}", sync_to_thread=True)
    def batch(self, service: Service, request: ActorRequest, batch_id: Id) -> Batch:
        """A batch and its builds, without attempts."""
        return service.batch(batch_id, request.user)

    @get("/builds/{build_id:int}", sync_to_thread=True)
    def build(self, service: Service, request: ActorRequest, build_id: Id) -> Build:
        """A build with its steps, their attempts and artifacts."""
        return service.build(build_id, request.user)

    @get("/builds/{build_id:int}/steps", sync_to_thread=True)
    def steps(self, service: Service, request: ActorRequest, build_id: Id) -> Steps:
        """The steps of a build, with attempts and artifacts."""
        return Steps(steps=service.build(build_id, request.user).steps)

    @post("/builds/{build_id:int}/cancel", sync_to_thread=True, status_code=200)
    def cancel(self, service: Service, request: ActorRequest, build_id: Id) -> Build:
        """End a build in any state."""
        return service.cancel(request.user, build_id)

    @post("/builds/{build_id:int}/retry", sync_to_thread=True, status_code=200)
    def retry(self, service: Service, request: ActorRequest, build_id: Id, data: JSONBody[RetryOrder]) -> Steps:
        """Run steps again, with the recorded inputs. The answer has the steps that start."""
        step, arch = step_kind(data.step), arch_named(data.arch)
        return Steps(steps=service.retry(request.user, build_id, step=step, arch=arch))

    @get("/builds/{build_id:int}/log", media_type="application/octet-stream")
    async def log(
        self,
        service: Service,
        live: LiveStreams,
        request: ActorRequest,
        build_id: Id,
        step: MaybeText = None,
        arch: FromQuery[Arch | None] = None,
        attempt: MaybeId = None,
        offset: Offset = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=LOG_PART_MAX)] = LOG_PART_MAX,
        follow: FromQuery[bool] = False,
        tail: Annotated[int | None, QueryParameter(ge=0, le=LOG_PART_MAX)] = None,
    ) -> Response[Any]:
        """The bytes of a log from `offset` on, as they are now. The header Farm-Log-Over says whether more may come.

        With `follow` the answer goes on while the log grows, from its last `tail` bytes on if they are given; the
        header Farm-Log-Offset has the offset of its first byte. The answer may end early: ask again with the offset.
        """
        kind = step_kind(step)
        if follow:
            place = await live.place(build_id, step=kind, arch=arch, attempt=attempt, viewer=request.user)
            return await live.log(request, place, offset=offset, tail=tail)
        part = await asyncio.to_thread(
            service.log_part,
            build_id,
            step=kind,
            arch=arch,
            attempt=attempt,
            offset=offset,
            limit=limit,
            viewer=request.user,
        )
        headers = {ATTEMPT_HEADER: part.attempt, OVER_HEADER: str(part.is_over).lower()}
        return Response(part.data, media_type="application/octet-stream", headers=headers)

    @get("/artifacts/{sha256:str}", sync_to_thread=True, media_type="application/octet-stream")
    def artifact(self, service: Service, request: ActorRequest, sha256: Sha256, offset: Offset = 0) -> Response[Any]:
        """The content of an artifact from `offset` on, or a part of it with `Range`."""
        with service.open_content(sha256) as file:
            size = file.seek(0, os.SEEK_END)
        content = Content(
            size_bytes=size,
            tag=sha256,
            read=lambda at, most: _read(service, sha256, at, most),
            sha256=sha256,
            headers={"content-disposition": "attachment"},
        )
        return answer(request, content, offset=offset)


def _read(service: FarmService, sha256: str, offset: int, size: int) -> bytes:
    with service.open_content(sha256, offset) as file:
        return file.read(size)
