"""Routes of uploads: a source package comes in parts, each at the offset that the server has."""

import asyncio

from litestar import Controller, delete, get, patch, post
from litestar.params import JSONBody

from farm.model.upload import Upload
from farm.server.parameters import ActorRequest, Id, Offset, Service
from farm.service.bodies import PREFIX, UploadOrder


class UploadRoutes(Controller):
    """The routes below `/uploads`. An actor sees its own uploads alone."""

    path = f"{PREFIX}/uploads"
    tags = ("uploads",)

    @post("", sync_to_thread=True)
    def begin(self, service: Service, request: ActorRequest, data: JSONBody[UploadOrder]) -> Upload:
        """Begin an upload, or go on with one of the same content: send the rest from `offset` on."""
        return service.begin_upload(
            request.user,
            filename=data.filename,
            size_bytes=data.size_bytes,
            sha256=data.sha256,
            target=data.target,
        )

    @get("/{upload_id:int}", sync_to_thread=True)
    def look(self, service: Service, request: ActorRequest, upload_id: Id) -> Upload:
        """The upload, with the offset at which its client goes on."""
        return service.look_upload(request.user, upload_id)

    @patch("/{upload_id:int}")
    async def append(self, service: Service, request: ActorRequest, upload_id: Id, offset: Offset) -> Upload:
        """Send the bytes at `offset`, at most 8 MiB, as the body of the request."""
        data = await request.body()
        return await asyncio.to_thread(service.append_upload, request.user, upload_id, offset=offset, data=data)

    @post("/{upload_id:int}/finish", sync_to_thread=True, status_code=200)
    def finish(self, service: Service, request: ActorRequest, upload_id: Id) -> Upload:
        """Have the whole file checked and kept. `upload` of a build takes its sha256 from then on, for a day."""
        return service.finish_upload(request.user, upload_id)

    @delete("/{upload_id:int}", sync_to_thread=True)
    def delete(self, service: Service, request: ActorRequest, upload_id: Id) -> None:
        """Forget an upload that is not finished."""
        service.delete_upload(request.user, upload_id)
