"""The person or machine that acts on a farm, and its roles there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """farm.service.permissions has the table of what each role may do."""

    READER = "reader"
    PACKAGER = "packager"
    MAINTAINER = "maintainer"
    OPERATOR = "operator"
    ADMIN = "admin"


#: The roles whose rights a role has besides its own.
_INCLUDES: Mapping[Role, tuple[Role, ...]] = MappingProxyType(
    {
        Role.READER: (),
        Role.PACKAGER: (Role.READER,),
        Role.MAINTAINER: (Role.PACKAGER, Role.READER),
        Role.OPERATOR: (Role.READER,),
        Role.ADMIN: tuple(Role),
    }
)


def with_included(roles: Iterable[Role]) -> frozenset[Role]:
    """The roles, and those that they include.

    >>> sorted(with_included([Role.PACKAGER]))
    [<Role.PACKAGER: 'packager'>, <Role.READER: 'reader'>]
    """
    given = frozenset(roles)
    return given.union(*(_INCLUDES[role] for role in given))


@dataclass(frozen=True, kw_only=True)
class Actor:
    """`name` is the owner of the builds that the actor enqueues, and stands in the farm's records.

    With a `project` the roles hold in that project alone.

    `uid` is the actor's user on the machine of the farm, with whose rights workers read a repository of that machine;
    None for an actor elsewhere, which may name no such repository. `origin` is the address of such an actor.
    """

    name: str
    roles: frozenset[Role]
    uid: int | None = None
    origin: str = field(default="", compare=False)
    project: str | None = None
