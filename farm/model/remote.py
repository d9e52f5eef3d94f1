"""The far end that caused trouble, if the host itself did not."""

from dataclasses import dataclass
from enum import StrEnum


class RemoteKind(StrEnum):
    """A server is the same for every build that names it. An input belongs to one step of one build."""

    SERVER = "server"
    INPUT = "input"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """`name` is the host name or address of a server, or a description of an input."""

    name: str
    kind: RemoteKind
