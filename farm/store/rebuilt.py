"""Builds of one version from different commits: the newer one shows a warning that names the older one."""

from typing import Any

import sqlalchemy as sa

from farm.model.outcome import Outcome
from farm.store import schema

_ID_CHARS = 12


def warnings_of(connection: sa.Connection, row: Any) -> tuple[str, ...]:
    """The warnings about a row of `build`: its name, version and release were built before from another commit."""
    if row.nevra is None or row.source_commit is None:
        return ()
    column = schema.build.c
    query = (
        sa.select(column.id, column.source_commit)
        .where(column.target == row.target, column.nevra == row.nevra, column.id < row.id)
        .where(column.source_commit != row.source_commit, column.outcome == Outcome.SUCCEEDED.value)
        .order_by(column.id.desc())
        .limit(1)
    )
    before = connection.execute(query).one_or_none()
    if before is None:
        return ()
    commit = before.source_commit[:_ID_CHARS]
    what = f"{row.nevra} was built before, by build {before.id} from commit {commit}"
    return (f"{what}; give each commit a release of its own, by hand or with %autorelease",)
