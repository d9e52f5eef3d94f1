"""The owners of package names, by place: the first to publish a name owns it, and no build of another replaces it.

In the default project an owner is a person; another project owns all names in its places itself.

Owns the table `package_owner`, and the message of a refusal. A step type says which names its results bring.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa

from farm import wire
from farm.model.work import AnyResult
from farm.state.changes import BuildState, PackageName, StepState
from farm.steps import registry
from farm.steps.names import NameKind
from farm.store import schema
from farm.store.questions import portions, ready_steps, reported

#: A name, the owner who gets it, and the build that published it.
Claim = tuple[PackageName, str, int]

_COLUMN = schema.package_owner.c
_SHOWN = 3
_CLAIM = sa.text(
    "INSERT INTO package_owner (target, kind, name, owner, build_id, claimed_at)"
    " VALUES (:target, :kind, :name, :owner, :build_id, :claimed_at) ON CONFLICT (target, kind, name) DO NOTHING"
).bindparams(sa.bindparam("claimed_at", type_=schema.UtcTime()))


def owners_for(
    connection: sa.Connection, builds: Mapping[int, BuildState], reports: Iterable[wire.AnyReport]
) -> dict[PackageName, str]:
    """The owners of all names that these reports bring; names without an owner are left out."""
    return owners_of(
        connection,
        (name for build, report, result in reported(builds, reports) for name in _names(build, report.kind, result)),
    )


def owners_for_uploads(connection: sa.Connection, builds: Mapping[int, BuildState]) -> dict[PackageName, str]:
    """The owners of all names that these builds have made and not yet published. Another build may have published a
    name meanwhile: an upload can be tried again much later."""
    return owners_of(
        connection, (name for build, step in ready_steps(builds) for name in registry.claims_of(build, step))
    )


def owners_of(connection: sa.Connection, names_of_all: Iterable[PackageName]) -> dict[PackageName, str]:
    """The owners of these names; names without an owner are left out."""
    wanted: dict[tuple[str, NameKind], set[str]] = {}
    for target, kind, name in names_of_all:
        wanted.setdefault((target, NameKind(kind)), set()).add(name)
    found: dict[PackageName, str] = {}
    for (target, kind), names in wanted.items():
        for part in portions(sorted(names)):
            question = sa.select(_COLUMN.name, _COLUMN.owner).where(
                _COLUMN.target == target, _COLUMN.kind == kind.value, _COLUMN.name.in_(part)
            )
            found |= {(target, kind.value, row.name): row.owner for row in connection.execute(question)}
    return found


def refusal(owners: Mapping[PackageName, str], build: BuildState, step: StepState, result: AnyResult) -> str | None:
    """The reason why a build may not publish its packages; None if no name has another owner."""
    return _refusal(owners, build, _names(build, step.kind, result))


def upload_refusal(owners: Mapping[PackageName, str], build: BuildState, step: StepState) -> str | None:
    """The same for an upload that is sent now."""
    return _refusal(owners, build, registry.claims_of(build, step))


def _refusal(owners: Mapping[PackageName, str], build: BuildState, names_of_all: Iterable[PackageName]) -> str | None:
    taken = [(name, owners[name]) for name in names_of_all if owners.get(name, build.name_owner) != build.name_owner]
    if not taken:
        return None
    kind = "source package" if taken[0][0][1] == NameKind.SOURCE else "packages"
    names = ", ".join(name for (_, _, name), _ in taken[:_SHOWN]) + (", …" if len(taken) > _SHOWN else "")
    holders = ", ".join(sorted({owner for _, owner in taken})[:_SHOWN])
    return (
        f"{holders} published the {kind} {names} of target {build.target} first, and owns the name; rename yours, "
        "build for a target of your own, or have an administrator release the names (docs/operating.md)"
    )


def claims_of(build: BuildState, step: StepState) -> list[Claim]:
    """The names that the build's owner gets if they have no owner: the step has succeeded, or may have."""
    return [(name, build.name_owner, build.id) for name in registry.claims_of(build, step)]


def cancelled_claims(build: BuildState) -> list[Claim]:
    """The claims of a build that a person cancels now, for each step that a worker has, or may have."""
    out = [step for step in build.steps if step.live is not None and step.live.offered_at is not None]
    return [claim for step in out for claim in claims_of(build, step)]


def claim(connection: sa.Connection, claims: Iterable[Claim], at: datetime) -> None:
    values = [
        {"target": target, "kind": kind, "name": name, "owner": owner, "build_id": build_id, "claimed_at": at}
        for (target, kind, name), owner, build_id in claims
    ]
    if values:
        connection.execute(_CLAIM, values)


def _names(build: BuildState, kind: str, result: AnyResult) -> Iterable[PackageName]:
    return registry.step_type(kind).names(build, result.output) if result.output is not None else ()
