"""Uploads in SQL: what their clients said of them. The parts are files (farm.service.uploads)."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm.errors import NotFound, WrongState
from farm.model.upload import Upload
from farm.store import schema
from farm.store.database import Database

_COLUMN = schema.upload.c


class UploadStore(Database):
    """The part of the store for uploads. An actor sees its own."""

    def add_upload(self, upload: Upload, *, now: datetime, count_max: int, bytes_max: int) -> Upload:
        """Write it under the next free number, or return the actor's upload of the same content. Expired ones are
        deleted.

        Raises WrongState when the actor would have more unfinished ones, or more bytes in them.
        """
        with self.writing() as connection:
            connection.execute(schema.upload.delete().where(_COLUMN.expires_at <= now))
            is_same = sa.and_(_COLUMN.actor == upload.actor, _COLUMN.sha256 == upload.sha256)
            found = connection.execute(sa.select(schema.upload).where(is_same)).one_or_none()
            if found is not None and (found.size_bytes, found.target) == (upload.size_bytes, upload.target):
                return _upload(found)
            connection.execute(schema.upload.delete().where(is_same))
            sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_COLUMN.size_bytes), 0))
            count, size = connection.execute(sums.where(_COLUMN.actor == upload.actor, ~_COLUMN.is_finished)).one()
            if count >= count_max or size + upload.size_bytes > bytes_max:
                raise WrongState(
                    f"{upload.actor} has {count} unfinished uploads of {size} bytes, and at most {count_max} of "
                    f"{bytes_max} bytes are allowed; finish or delete some, or wait a day"
                )
            row = connection.execute(schema.upload.insert().returning(schema.upload), _row(upload)).one()
            return _upload(row)

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
