"""The artifacts that builds still need, which `farm gc` must not remove."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from farm.model.outcome import Status
from farm.store import columns, schema
from farm.store.database import Database
from farm.store.questions import portions

_BUILD = schema.build.c
_ATTEMPT = schema.attempt.c
_FOUND = schema.attempt_artifact.c


class RetentionStore(Database):
    """The part of the store that knows which builds name an artifact."""

    def needed_artifacts(self, sha256s: Collection[str], *, since: datetime) -> frozenset[str]:
        """The digests that an unfinished build, or one that ended after `since`, names: as its source, as the record of
        its target, or as a file that one of its attempts stored."""
        is_kept = (_BUILD.status != Status.FINISHED.value) | (_BUILD.finished_at >= since)
        stored = (
            sa.select(_FOUND.sha256)
            .distinct()
            .select_from(
                schema.attempt_artifact.join(schema.attempt, _FOUND.attempt_id == _ATTEMPT.id)
                .join(schema.step, _ATTEMPT.step_id == schema.step.c.id)
                .join(schema.build, schema.step.c.job_id == _BUILD.id)
            )
            .where(is_kept)
        )
        recorded = sa.select(_BUILD.target_sha256).distinct().where(is_kept)
        given = sa.select(_BUILD.source).distinct().where(is_kept, _BUILD.source.like('%"kind":"srpm"%'))
        wanted = sorted(sha256s)
        needed: set[str] = set()
        with self.reading() as connection:
            for some in portions(wanted):
                needed |= set(connection.execute(stored.where(_FOUND.sha256.in_(some))).scalars())
                needed |= set(connection.execute(recorded.where(_BUILD.target_sha256.in_(some))).scalars())
            if wanted:
                sources = (columns.decode_source(text) for text in connection.execute(given).scalars())
                needed |= {source.sha256 for source in sources if source.sha256} & set(wanted)
        return frozenset(needed)

    def oldest_work_at(self) -> datetime | None:
        """The time when the oldest unfinished attempt was sent; None if there is none. The database does not have an
        attempt's files before it reports."""
        with self.reading() as connection:
            oldest = sa.select(sa.func.min(_ATTEMPT.dispatched_at)).where(sa.text(schema.IS_LIVE))
            found: datetime | None = connection.execute(oldest).scalar()
            return found
