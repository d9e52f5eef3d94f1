"""The packages that uploads brought to the repositories, and which of them replaced the package of another build.

Owns the table `published_package`. Two packages of one name, version and arch have one place in a repository. A newer
build of the same source package takes it over, which both builds show. A build of another source package is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from farm import wire
from farm.model.arch import Arch
from farm.model.build import Replacement
from farm.model.work import AnyResult
from farm.state.changes import BuildState, Occupant, PublishedPackage, StepState
from farm.steps.registry import publishes, step_type
from farm.store import schema
from farm.store.questions import portions, ready_steps, reported

#: Place, arch (empty for sources) and identity.
Slot = tuple[str, str, str]
Occupants = Mapping[Slot, Occupant]

_SHOWN = 3
_COLUMN = schema.published_package.c
_IN_SLOT = sa.and_(
    _COLUMN.target == sa.bindparam("in_target"),
    _COLUMN.arch == sa.bindparam("in_arch"),
    _COLUMN.identity == sa.bindparam("of_identity"),
    _COLUMN.replaced_by.is_(None),
)
_REPLACE = (
    schema.published_package.update()
    .where(_IN_SLOT, _COLUMN.sha256 != sa.bindparam("not_sha256"))
    .values(replaced_by=sa.bindparam("by"), replaced_at=sa.bindparam("at"))
)
_NOTED = sa.select(_COLUMN.id).where(_IN_SLOT, _COLUMN.build_id == sa.bindparam("of_build")).limit(1)


def occupants_for(
    connection: sa.Connection, builds: Mapping[int, BuildState], reports: Iterable[wire.AnyReport]
) -> dict[Slot, Occupant]:
    """The packages that the packages in these reports would replace."""
    return _occupants(
        connection,
        (
            package
            for build, report, result in reported(builds, reports)
            for package in _brought(build, build.by_label(report.attempt), report.kind, result)
        ),
    )


def occupants_for_uploads(connection: sa.Connection, builds: Mapping[int, BuildState]) -> dict[Slot, Occupant]:
    """The packages that the ready uploads of these builds would replace."""
    return _occupants(
        connection, (package for build, step in ready_steps(builds) for package in publishes(build, step))
    )


def replacement_refusal(occupants: Occupants, build: BuildState, step: StepState, result: AnyResult) -> str | None:
    """The reason why a build may not publish these packages; None where none replaces that of another source
    package."""
    return _refusal(occupants, build, _brought(build, step, step.kind, result))


def upload_replacement_refusal(occupants: Occupants, build: BuildState, step: StepState) -> str | None:
    """The same for an upload that is sent now."""
    return _refusal(occupants, build, publishes(build, step))


def replaced_by_offers(
    connection: sa.Connection, offers: Iterable[tuple[BuildState, StepState]]
) -> dict[str, tuple[tuple[str, int], ...]]:
    """By the label of an offered upload: its packages that replace one, each with the build of that."""
    packages = {step.label: tuple(publishes(build, step)) for build, step in offers}
    found = _occupants(connection, (one for some in packages.values() for one in some))
    return {label: tuple(_replaced(found, some)) for label, some in packages.items() if some}


def note_published(connection: sa.Connection, packages: Sequence[PublishedPackage], at: datetime) -> None:
    """Record packages that are in the repositories now, and that others of the same slots no longer are."""
    taken = set(_occupants(connection, packages)) if packages else set()
    new: list[PublishedPackage] = []
    for package in packages:
        if package.slot in taken:
            _insert(connection, new, at)
            new = [] if _replace(connection, package, at) else [package]
        else:
            new.append(package)
            taken.add(package.slot)
    _insert(connection, new, at)


def _replace(connection: sa.Connection, package: PublishedPackage, at: datetime) -> bool:
    """Record that other contents of the slot are gone. Returns whether the build has this content there already, as
    after an upload that is run again."""
    target, arch, identity = package.slot
    slot = {"in_target": target, "in_arch": arch, "of_identity": identity}
    connection.execute(_REPLACE, slot | {"not_sha256": package.sha256, "by": package.build_id, "at": at})
    return connection.execute(_NOTED, slot | {"of_build": package.build_id}).first() is not None


def _insert(connection: sa.Connection, packages: Sequence[PublishedPackage], at: datetime) -> None:
    if packages:
        connection.execute(schema.published_package.insert(), [_row(package, at) for package in packages])


class Replacements:
    """The replacements that concern some builds."""

    def __init__(self) -> None:
        self._of_others: dict[int, list[Replacement]] = defaultdict(list)
        self._own: dict[int, list[Replacement]] = defaultdict(list)

    def add(self, rows: Sequence[Any], *, is_here: bool) -> None:
        """Add the rows of one package, of one build and the build that replaced it. `is_here` while the build has
        published it again since."""
        first = rows[0]
        arches = tuple(Arch(row.arch) for row in rows if row.arch)
        at = max(row.replaced_at for row in rows)
        found = Replacement(package=first.identity, arches=arches, of=first.build_id, by=first.replaced_by, at=at)
        self._of_others[found.by].append(found)
        if not is_here:
            self._own[found.of].append(found)

    def of_others(self, build_id: int) -> tuple[Replacement, ...]:
        """The packages of other builds that this one replaced."""
        return tuple(self._of_others[build_id])

    def own(self, build_id: int) -> tuple[Replacement, ...]:
        """The packages of this build that were replaced and are not there again."""
        return tuple(self._own[build_id])


def replacements(connection: sa.Connection, build_ids: Sequence[int]) -> Replacements:
    """Replacements of packages of these builds, or by them, in the order of their packages."""
    rows: dict[int, Any] = {}
    for some in portions(build_ids):
        for column in (_COLUMN.build_id, _COLUMN.replaced_by):
            question = sa.select(schema.published_package).where(
                column.in_(some), _COLUMN.replaced_by.is_not(None), _COLUMN.replaced_by != _COLUMN.build_id
            )
            rows |= {row.id: row for row in connection.execute(question)}
    groups: dict[tuple[str, int, int], dict[str, Any]] = defaultdict(dict)
    for row in sorted(rows.values(), key=lambda row: (row.identity, row.arch, row.id)):
        groups[row.identity, row.build_id, row.replaced_by][row.arch] = row
    here = _here(connection, sorted({row.build_id for row in rows.values()}))
    found = Replacements()
    for (identity, build_id, _), by_arch in groups.items():
        is_here = all((build_id, arch, identity) in here for arch in by_arch)
        found.add(list(by_arch.values()), is_here=is_here)
    return found


def _here(connection: sa.Connection, build_ids: Sequence[int]) -> set[tuple[int, str, str]]:
    """The build, arch and identity of packages that were not replaced."""
    found: set[tuple[int, str, str]] = set()
    for some in portions(build_ids):
        question = sa.select(_COLUMN.build_id, _COLUMN.arch, _COLUMN.identity).where(
            _COLUMN.build_id.in_(some), _COLUMN.replaced_by.is_(None)
        )
        found |= {(row.build_id, row.arch, row.identity) for row in connection.execute(question)}
    return found


def _brought(build: BuildState, step: StepState | None, kind: str, result: AnyResult) -> Iterable[PublishedPackage]:
    if step is None or step.kind != kind or result.output is None:
        return ()
    return step_type(kind).brings(build, step, result.output)


def _occupants(connection: sa.Connection, packages: Iterable[PublishedPackage]) -> dict[Slot, Occupant]:
    wanted: dict[str, set[str]] = defaultdict(set)
    for package in packages:
        wanted[package.place].add(package.identity)
    found: dict[Slot, Occupant] = {}
    for target, identities in wanted.items():
        for some in portions(sorted(identities)):
            question = (
                sa.select(_COLUMN.arch, _COLUMN.identity, _COLUMN.sha256, _COLUMN.build_id, schema.build.c.package)
                .select_from(schema.published_package.join(schema.build, _COLUMN.build_id == schema.build.c.id))
                .where(
                    _COLUMN.target == target,
                    _COLUMN.identity.in_(some),
                    _COLUMN.replaced_by.is_(None),
                )
                .order_by(_COLUMN.id)
            )
            for row in connection.execute(question):
                occupant = Occupant(sha256=row.sha256, build_id=row.build_id, source=row.package)
                found[target, row.arch, row.identity] = occupant
    return found


def _replaced(occupants: Occupants, packages: Iterable[PublishedPackage]) -> Iterator[tuple[str, int]]:
    """The packages that replace one, each once, with the build of that one."""
    pairs = (
        (one.identity, found.build_id)
        for one in packages
        if (found := occupants.get(one.slot)) is not None
        and found.sha256 != one.sha256
        and found.build_id != one.build_id
    )
    yield from dict.fromkeys(pairs)


def _refusal(occupants: Occupants, build: BuildState, packages: Iterable[PublishedPackage]) -> str | None:
    taken = {
        one.identity: found
        for one in packages
        if (found := occupants.get(one.slot)) is not None and found.source != build.package
    }
    if not taken:
        return None
    first = next(iter(taken.values()))
    names = ", ".join(list(taken)[:_SHOWN]) + (", …" if len(taken) > _SHOWN else "")
    return (
        f"the source package {first.source} published {names} for target {build.target} in build {first.build_id}, and "
        f"{build.package} would replace it; give the package of {build.package} another name, version or release"
    )


def _row(package: PublishedPackage, at: datetime) -> dict[str, Any]:
    target, arch, identity = package.slot
    return {
        "target": target,
        "arch": arch,
        "identity": identity,
        "sha256": package.sha256,
        "build_id": package.build_id,
        "published_at": at,
    }
