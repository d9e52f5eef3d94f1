"""Uploads in SQL: what their clients said of them. The parts are files (farm.service.uploads)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm.errors import NotFound, WrongState
from farm.model.upload import Upload
from farm.store import schema
from farm.store.database import Database

_COLUMN = schema.upload.c


@dataclass(frozen=True)
class Quota:
    """So many uploads of an actor, and so many bytes in them."""

    count: int
    size_bytes: int


class UploadStore(Database):
    """The part of the store for uploads. An actor sees its own."""

    def add_upload(self, upload: Upload, *, unfinished: Quota, finished: Quota) -> tuple[Upload, list[Upload]]:
        """Write it under the next free number, or find the actor's upload of the same content.

        Also returns the uploads that were deleted for it, whose parts the caller deletes. Their numbers may be used
        again. Raises WrongState when the actor would have more unfinished ones than the quota, or has finished more,
        and when the content is finished already and has another size.
        """
        with self.writing() as connection:
            is_same = sa.and_(_COLUMN.actor == upload.actor, _COLUMN.sha256 == upload.sha256)
            found = connection.execute(sa.select(schema.upload).where(is_same)).one_or_none()
            if found is not None and (found.size_bytes, found.target) == (upload.size_bytes, upload.target):
                return _upload(found), []
            if found is not None and found.is_finished:
                return _for_other_target(connection, _upload(found), upload), []
            deleted = connection.execute(schema.upload.delete().where(is_same).returning(schema.upload)).all()
            _check_quota(connection, upload, unfinished, ~_COLUMN.is_finished, "unfinished", "finish or delete some")
            _check_quota(connection, upload, finished, _COLUMN.is_finished, "finished", "use a URL for the source")
            row = connection.execute(schema.upload.insert().returning(schema.upload), _row(upload)).one()
            return _upload(row), [_upload(one) for one in deleted]

    def expire_uploads(self, now: datetime) -> list[Upload]:
        """Delete the expired ones, and return them."""
        with self.writing() as connection:
            delete = schema.upload.delete().where(_COLUMN.expires_at <= now).returning(schema.upload)
            return [_upload(row) for row in connection.execute(delete)]

    def upload(self, actor: str, upload_id: int, *, now: datetime) -> Upload:
        """Raises NotFound, also for that of another actor."""
        return self._one(_COLUMN.id == upload_id, actor, now, f"{actor} has no upload {upload_id}; make a new one")

    def finished_upload(self, actor: str, sha256: str, *, now: datetime) -> Upload:
        """The actor's finished upload of this content. Raises NotFound."""
        which = sa.and_(_COLUMN.sha256 == sha256, _COLUMN.is_finished)
        return self._one(which, actor, now, f"{actor} has no finished upload of the content {sha256}; upload it first")

    def finish_upload(self, upload_id: int) -> None:
        with self.writing() as connection:
            connection.execute(schema.upload.update().where(_COLUMN.id == upload_id).values(is_finished=True))

    def delete_upload(self, upload_id: int) -> None:
        with self.writing() as connection:
            connection.execute(schema.upload.delete().where(_COLUMN.id == upload_id))

    def _one(self, which: Any, actor: str, now: datetime, missing: str) -> Upload:
        with self.reading() as connection:
            query = sa.select(schema.upload).where(which, _COLUMN.actor == actor, _COLUMN.expires_at > now)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(missing)
        return _upload(row)


def _for_other_target(connection: sa.Connection, found: Upload, asked: Upload) -> Upload:
    """The finished upload, for another target. It keeps its row, and with it its place in the quota."""
    if found.size_bytes != asked.size_bytes:
        raise WrongState(f"the content {found.sha256} is uploaded already, and has {found.size_bytes} bytes")
    update = schema.upload.update().where(_COLUMN.id == found.id).values(target=asked.target)
    return _upload(connection.execute(update.returning(schema.upload)).one())


def _check_quota(
    connection: sa.Connection, upload: Upload, quota: Quota, which: sa.ColumnElement[bool], word: str, advice: str
) -> None:
    sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_COLUMN.size_bytes), 0))
    count, size = connection.execute(sums.where(_COLUMN.actor == upload.actor, which)).one()
    if count >= quota.count or size + upload.size_bytes > quota.size_bytes:
        raise WrongState(
            f"{upload.actor} has {count} {word} uploads of {size} bytes, and at most {quota.count} of "
            f"{quota.size_bytes} bytes are allowed; {advice}, or wait a day"
        )


def _upload(row: Any) -> Upload:
    return Upload(
        id=row.id,
        actor=row.actor,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        target=row.target,
        offset=row.size_bytes if row.is_finished else 0,
        is_finished=row.is_finished,
        expires_at=row.expires_at,
    )


def _row(upload: Upload) -> dict[str, Any]:
    return {
        "actor": upload.actor,
        "filename": upload.filename,
        "size_bytes": upload.size_bytes,
        "sha256": upload.sha256,
        "target": upload.target,
        "is_finished": False,
        "expires_at": upload.expires_at,
    }
