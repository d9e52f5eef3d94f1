"""A file by its sha256, with a kind."""

from dataclasses import dataclass
from enum import StrEnum


class ArtifactKind(StrEnum):
    SOURCE = "source"
    SRPM = "srpm"
    RPM = "rpm"
    LOG = "log"
    RECORD = "record"

    @property
    def is_package(self) -> bool:
        """Whether it can be installed."""
        return self is ArtifactKind.RPM


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """`name` is a checked base name: printable, no slash, no leading dot. `identity` identifies a package, in the
    spelling of its format; None for every other kind."""

    name: str
    kind: ArtifactKind
    sha256: str
    size_bytes: int
    identity: str | None = None
