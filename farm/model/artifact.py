"""A file by its sha256, with a kind."""

from dataclasses import dataclass
from enum import StrEnum


class ArtifactKind(StrEnum):
    SOURCE = "source"
    SRPM = "srpm"
    RPM = "rpm"
    LOG = "log"
    RECORD = "record"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """`name` is a checked base name: printable, no slash, no leading dot. `nevra` is set for srpm and rpm."""

    name: str
    kind: ArtifactKind
    sha256: str
    size_bytes: int
    nevra: str | None = None
