"""Whose a package name is in a target: the first to publish it has it, and nobody else's build replaces it.

Owns the table `package_owner`, and the words of a refusal. There are names of source packages, and of the packages
that are built from them: one that comes as another's subpackage would replace it just as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from farm import wire
from farm.model.build import StepKind
from farm.model.nevra import Nevra
from farm.model.outcome import Status
from farm.model.work import AnyResult, BuildResult, SrpmResult
from farm.state.changes import BuildState, PackageName, StepState, build_for
from farm.store import schema

_COLUMN = schema.package_owner.c
_AT_ONCE = 500  # names in one question
_SHOWN = 3
_NAME_CHARS = 255
_CLAIM = sa.text(
    "INSERT INTO package_owner (target, kind, name, owner, build_id, claimed_at)"
    " VALUES (:target, :kind, :name, :owner, :build_id, :claimed_at) ON CONFLICT (target, kind, name) DO NOTHING"
).bindparams(sa.bindparam("claimed_at", type_=schema.UtcTime()))


class NameKind(StrEnum):
    SOURCE = "source"
    BINARY = "binary"


def owners_for(
    connection: sa.Connection, builds: Mapping[int, BuildState], reports: Iterable[wire.AnyReport]
) -> dict[PackageName, str]:
    """The owners of all names that these reports bring; names that nobody has are not in it."""
    return _owners(
        connection,
        (
            name
            for report in reports
            if (build := build_for(builds, report.attempt)) is not None and report.result is not None
            for name in _names(build, report.result)
        ),
    )


def owners_for_uploads(connection: sa.Connection, builds: Mapping[int, BuildState]) -> dict[PackageName, str]:
    """The same of all names that these builds have made and have not published. Another build may have published one
    of them since: its upload can be tried again much later."""
    return _owners(
        connection,
        (
            name
            for build in builds.values()
            for step in build.steps
            if step.kind is StepKind.UPLOAD and step.status is Status.READY and not step.is_logs_only
            for name in _upload_names(build, step)
        ),
    )


def _owners(connection: sa.Connection, names_of_all: Iterable[PackageName]) -> dict[PackageName, str]:
    wanted: dict[tuple[str, NameKind], set[str]] = {}
    for target, kind, name in names_of_all:
        wanted.setdefault((target, NameKind(kind)), set()).add(name)
    found: dict[PackageName, str] = {}
    for (target, kind), names in wanted.items():
        ordered = sorted(names)
        for first in range(0, len(ordered), _AT_ONCE):
            part = ordered[first : first + _AT_ONCE]
            question = sa.select(_COLUMN.name, _COLUMN.owner).where(
                _COLUMN.target == target, _COLUMN.kind == kind.value, _COLUMN.name.in_(part)
            )
            found |= {(target, kind.value, row.name): row.owner for row in connection.execute(question)}
    return found


def refusal(owners: Mapping[PackageName, str], build: BuildState, result: AnyResult) -> str | None:
    """The reason why a build may not publish its packages; None where no name has another owner."""
    return _refusal(owners, build, _names(build, result))


def upload_refusal(owners: Mapping[PackageName, str], build: BuildState, step: StepState) -> str | None:
    """The same for an upload that is sent now."""
    return _refusal(owners, build, _upload_names(build, step))


def _refusal(owners: Mapping[PackageName, str], build: BuildState, names_of_all: Iterable[PackageName]) -> str | None:
    taken = [(name, owners[name]) for name in names_of_all if owners.get(name, build.owner) != build.owner]
    if not taken:
        return None
    kind = "source package" if taken[0][0][1] == NameKind.SOURCE else "packages"
    names = ", ".join(name for (_, _, name), _ in taken[:_SHOWN]) + (", …" if len(taken) > _SHOWN else "")
    holders = ", ".join(sorted({owner for _, owner in taken})[:_SHOWN])
    return (
        f"{holders} published the {kind} {names} of target {build.target} first, and has the name; rename yours, build "
        "for a target of your own, or have an administrator release the names (docs/operating.md)"
    )


def claims_of(build: BuildState, built: BuildResult | None) -> Iterator[tuple[PackageName, str, int]]:
    """The names that a published build has from now on, if nobody had them before."""
    yield (build.target, NameKind.SOURCE.value, build.package), build.owner, build.id
    for name in _binary_names(built) if built is not None else ():
        yield (build.target, NameKind.BINARY.value, name), build.owner, build.id


def claim(connection: sa.Connection, claims: Iterable[tuple[PackageName, str, int]], at: datetime) -> None:
    values = [
        {"target": target, "kind": kind, "name": name, "owner": owner, "build_id": build_id, "claimed_at": at}
        for (target, kind, name), owner, build_id in claims
    ]
    if values:
        connection.execute(_CLAIM, values)


def _upload_names(build: BuildState, step: StepState) -> Iterator[PackageName]:
    made = build.find(StepKind.BUILD, step.arch)
    text = made.output if made is not None else None
    for name, _, _ in claims_of(build, wire.decode_output(StepKind.BUILD, text) if text else None):
        yield name


def _names(build: BuildState, result: AnyResult) -> Iterator[PackageName]:
    output = result.output
    if isinstance(output, SrpmResult):
        for name in _parsed([output.nevra]):
            yield build.target, NameKind.SOURCE.value, name
    elif isinstance(output, BuildResult):
        for name in _binary_names(output):
            yield build.target, NameKind.BINARY.value, name


def _binary_names(built: BuildResult) -> list[str]:
    return sorted(set(_parsed(rpm.nevra or "" for rpm in built.rpms)))


def _parsed(nevras: Iterable[str]) -> Iterator[str]:
    for text in nevras:
        try:
            name = Nevra.parse(text).name
        except ValueError:  # publishing refuses it, in words
            continue
        # The check of the report, which comes later, refuses any other.
        if name.isascii() and name.isprintable() and len(name) <= _NAME_CHARS:
            yield name
