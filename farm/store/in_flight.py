"""Uploads that publish at the moment: another one waits that brings the same version, or a new name for another owner.

Two uploads of one source package's version replace each other's packages. They run one after the other, so that the
record of which build replaced which (published.py) has the order of the repositories.

The rest is about names without an owner: another owner's upload of the same name waits.

Owns the table `name_in_flight`. A row counts while its upload may still publish: from its offer to the end of its step.
The first upload to end decides, since a name then has an owner (owners.py) or is free again. A row gives no other
right, so a report of names that are never published takes no name from other owners.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import sqlalchemy as sa

from farm.model.outcome import Status
from farm.state import machine
from farm.state.changes import BuildState, Changes, PackageName, PublishedPackage, StepState
from farm.state.text import clean
from farm.steps.registry import claims_of, publishes, publishing_kinds
from farm.store import schema, state_rows
from farm.store.owners import owners_of
from farm.store.questions import portions

#: How long an upload waits before it is tried again.
WAIT = timedelta(seconds=5)
_SHORT_WAIT = timedelta(seconds=1)  # for an upload of the same version
_COLUMN = schema.name_in_flight.c
_ADD = sa.text(
    "INSERT INTO name_in_flight (target, kind, name, step_id, owner) VALUES (:target, :kind, :name, :step_id, :owner)"
    " ON CONFLICT (target, kind, name, step_id) DO NOTHING"
)
_FORGET = schema.name_in_flight.delete().where(_COLUMN.step_id.in_(sa.bindparam("ids", expanding=True)))
_PUBLISHING = (
    sa.select(schema.step.c.job_id, schema.step.c.id)
    .select_from(
        schema.attempt.join(schema.step, schema.attempt.c.step_id == schema.step.c.id).join(
            schema.build, schema.build.c.id == schema.step.c.job_id
        )
    )
    .where(
        sa.text(schema.IS_LIVE),
        schema.attempt.c.offered_at.is_not(None),
        schema.step.c.kind.in_(sa.bindparam("kinds", expanding=True)),
        schema.build.c.package.in_(sa.bindparam("packages", expanding=True)),
    )
)
# A step that a person runs again has no troubles, and its old rows count for nothing until it is offered.
_MAY_PUBLISH = sa.text(
    f"""
    EXISTS (
      SELECT 1 FROM step WHERE step.id = name_in_flight.step_id AND (
        (step.status IN ('waiting', 'ready') AND step.troubles > 0) OR EXISTS (
          SELECT 1 FROM attempt
          WHERE attempt.step_id = step.id AND {schema.IS_LIVE} AND attempt.offered_at IS NOT NULL
        )
      )
    )
    """  # noqa: S608 - made of constants
)


def keep_apart(connection: sa.Connection, changes: Changes) -> None:
    """Put off each upload offered in this transaction that has a new name in common with an upload of another owner,
    and note the new names of the others. Call it before the changes are written."""
    offered = [(build, step) for build, step in changes.offers if step.live is not None]
    names = {step.label: [*claims_of(build, step)] for build, step in offered}
    going = _Going(connection, changes, offered) if offered else None
    # An upload with a name that has another owner by now is refused when it is tried again.
    taken = owners_of(connection, (name for some in names.values() for name in some))
    for build, step in offered:
        new = [name for name in names[step.label] if name not in taken]
        clash = _clash(connection, build, names[step.label], taken)
        wait = WAIT
        if clash is None and going is not None:
            clash, wait = going.clash(build, step), _SHORT_WAIT
        if clash is not None:
            _forget(connection, [step])
            machine.put_off(changes, step, message=clean(clash), until=changes.now + wait)
        elif new:
            taken |= dict.fromkeys(new, build.name_owner)
            connection.execute(_ADD, [_row(build, step, name) for name in new])


class _Going:
    """The packages that uploads publish now: by slot, each content and a build that brings it."""

    def __init__(
        self, connection: sa.Connection, changes: Changes, offered: Sequence[tuple[BuildState, StepState]]
    ) -> None:
        """Only of the source packages that are offered."""
        kinds = publishing_kinds()
        self._contents: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
        given = {"kinds": kinds, "packages": sorted({build.package for build, step in offered if step.kind in kinds})}
        live = [(row.job_id, row.id) for row in connection.execute(_PUBLISHING, given)] if given["packages"] else []
        missing = {build_id for build_id, _ in live} - changes.builds.keys()
        builds = changes.builds | (state_rows.load(connection, missing) if missing else {})
        for build_id, step_id in live:
            for step in builds[build_id].steps:
                # An upload that ended in this transaction has no live attempt any more.
                if step.id == step_id and step.live is not None:
                    self._note(tuple(publishes(builds[build_id], step)))

    def clash(self, build: BuildState, step: StepState) -> str | None:
        """The reason why an upload waits for that of another build, which brings another content of a package; None if
        it need not wait, and counts as going from now on."""
        packages = tuple(publishes(build, step))
        for one in packages:
            for sha256, other in self._contents[one.slot].items():
                if sha256 != one.sha256 and other != build.id:
                    return f"build {other} publishes {one.identity} for target {build.target} at the moment"
        self._note(packages)
        return None

    def _note(self, packages: Iterable[PublishedPackage]) -> None:
        for one in packages:
            self._contents[one.slot][one.sha256] = one.build_id


def release(connection: sa.Connection, changes: Changes) -> None:
    """Remove the rows of uploads that ended in this transaction."""
    changed = (thing for thing, _ in changes.dirty.values() if isinstance(thing, StepState))
    over = (step for step in changed if step.status is Status.FINISHED)
    _forget(connection, [step for step in over if _has_names(changes.builds[step.job_id], step)])


def _has_names(build: BuildState, step: StepState) -> bool:
    return any(True for _ in claims_of(build, step))


def _forget(connection: sa.Connection, steps: list[StepState]) -> None:
    if steps:
        connection.execute(_FORGET, {"ids": [step.id for step in steps]})


def _row(build: BuildState, step: StepState, name: PackageName) -> dict[str, str | int | None]:
    target, kind, text = name
    return {"target": target, "kind": kind, "name": text, "step_id": step.id, "owner": build.name_owner}


def _clash(
    connection: sa.Connection, build: BuildState, names: list[PackageName], taken: dict[PackageName, str]
) -> str | None:
    """The reason why an upload of these names waits; None if it need not wait."""
    found = next(((name, taken[name]) for name in names if taken.get(name, build.name_owner) != build.name_owner), None)
    found = found or next(_of_others(connection, build, names), None)
    if found is None:
        return None
    (target, kind, name), owner = found
    return f"an upload of {owner} publishes the {kind} package {name} of target {target} at the moment"


def _of_others(
    connection: sa.Connection, build: BuildState, names: list[PackageName]
) -> Iterator[tuple[PackageName, str]]:
    for kind in sorted({kind for _, kind, _ in names}):
        mine = [name for _, own_kind, name in names if own_kind == kind]
        for some in portions(mine):
            question = sa.select(_COLUMN.name, _COLUMN.owner).where(
                _COLUMN.target == build.place,
                _COLUMN.kind == kind,
                _COLUMN.name.in_(some),
                _COLUMN.owner != build.name_owner,
                _MAY_PUBLISH,
            )
            for name, owner in connection.execute(question.limit(1)):
                yield (build.place, kind, name), owner
