"""The person or machine that acts on a farm, and its roles there."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """A builder enqueues builds, and cancels and retries its own; an admin does everything."""

    ADMIN = "admin"
    BUILDER = "builder"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """`name` is the owner of the builds that the actor enqueues, and stands in the farm's records.

    `uid` is the actor's user on the machine of the farm, with whose rights workers read a repository of that machine;
    None for an actor elsewhere, which may name no such repository.
    """

    name: str
    roles: frozenset[Role]
    uid: int | None = None
