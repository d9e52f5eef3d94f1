"""The base of the service: its connections, and the one way in which a verb is checked and recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial

from farm.formats.registry import format_of
from farm.model.actor import Actor
from farm.model.answer import KeptAnswer
from farm.model.upload import Upload
from farm.service.audit import Act, Owner, act
from farm.service.connections import Connections
from farm.service.insight import Insight
from farm.service.permissions import Place, Verb, check
from farm.service.projects import Projects
from farm.service.request import find_publishable
from farm.service.uploads import Uploads


class Acting:
    """Safe to use from several threads, and for several actors at a time."""

    def __init__(self, connections: Connections) -> None:
        self.settings = connections.settings
        self._on = connections
        self._store = connections.store
        self.projects = Projects(connections.settings, connections.store)
        self.insight = Insight(connections, self.projects.places)

    def close(self) -> None:
        self._on.close()

    def admit(self, actor: Actor) -> None:
        """Check that the actor may ask questions. Raises NotPermitted."""
        check(actor, Verb.READ)

    def _act(
        self,
        actor: Actor,
        verb: Verb,
        subject: str,
        *,
        owner: Owner = None,
        place: Callable[[], Place] = Place,
        detail: str = "",
    ) -> AbstractContextManager[Act]:
        """Check the permission, and record how the block ends. Raises NotPermitted."""
        return act(self._store, actor, verb, subject, owner=owner, place=place, detail=detail)


class Requests(Acting):
    """The requests of clients of a server: the keys that they gave, which are each actor's own, and their counts."""

    def begin_key(self, actor: str, key: str, *, fingerprint: str, kept: timedelta) -> KeptAnswer | None:
        """Note that a request with this key begins: None; or return what is known of an earlier one."""
        now = datetime.now(UTC)
        return self._store.begin_key(actor, key, fingerprint=fingerprint, now=now, older_than=now - kept)

    def keep_answer(self, actor: str, key: str, *, status: int, media_type: str, answer: bytes | None) -> None:
        self._store.keep_answer(actor, key, status=status, media_type=media_type, answer=answer)

    def drop_key(self, actor: str, key: str) -> None:
        """Let a request be made again with the key."""
        self._store.drop_key(actor, key)

    def count_rate(self, kind: str, who: str, amount: int, *, window_s: int) -> tuple[int, float]:
        """Add to a client's count of this window of time: the count before, and the seconds until the window ends."""
        return self._on.rates.count(kind, who, amount, window_s=window_s)


class UploadVerbs(Acting):
    """The verbs of uploads. Each but the first changes the actor's own upload alone, and leaves no record."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._uploads = Uploads(self.settings, self._store, lambda: connections.artifacts)

    def begin_upload(self, actor: Actor, *, filename: str, size_bytes: int, sha256: str, target: str) -> Upload:
        """Begin to upload a source package, or go on with one.

        Raises UnknownTarget, BadTarget, BadRequest, WrongState.
        """
        place = partial(self.projects.places.for_builds, actor)
        with self._act(actor, Verb.ENQUEUE, f"upload of {filename}", place=place, detail=sha256):
            find_publishable(self.settings, target)
            return self._uploads.create(
                actor.name, filename=filename, size_bytes=size_bytes, sha256=sha256, target=target
            )

    def look_upload(self, actor: Actor, upload_id: int) -> Upload:
        """The upload as it is now. Raises NotFound."""
        check(actor, Verb.ENQUEUE, place=self.projects.places.for_builds(actor))
        return self._uploads.look(actor.name, upload_id)

    def append_upload(self, actor: Actor, upload_id: int, *, offset: int, data: bytes) -> Upload:
        """Add bytes at the offset of the upload. Raises what `Uploads.append` raises."""
        check(actor, Verb.ENQUEUE, place=self.projects.places.for_builds(actor))
        return self._uploads.append(actor.name, upload_id, offset=offset, data=data)

    def delete_upload(self, actor: Actor, upload_id: int) -> None:
        """Forget the upload. Raises what `Uploads.delete` raises."""
        check(actor, Verb.ENQUEUE, place=self.projects.places.for_builds(actor))
        self._uploads.delete(actor.name, upload_id)

    def finish_upload(self, actor: Actor, upload_id: int) -> Upload:
        """Check the whole upload, and keep it as an artifact. Raises what `Uploads.finish` raises."""
        upload = self.look_upload(actor, upload_id)
        if not upload.is_finished and upload.offset == upload.size_bytes:
            self._uploads.check_head(upload, format_of(find_publishable(self.settings, upload.target).format))
        return self._uploads.finish(actor.name, upload_id)
