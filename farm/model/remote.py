"""The far end that trouble was with, if it was not the host itself."""

from dataclasses import dataclass
from enum import StrEnum


class RemoteKind(StrEnum):
    """A server is the same one for every build that names it. An input is of one step of one build."""

    SERVER = "server"
    INPUT = "input"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """`name` is the host's name or address of a server, or words for an input."""

    name: str
    kind: RemoteKind
