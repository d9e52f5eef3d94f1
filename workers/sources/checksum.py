"""The checksum that a list of sources gives for a file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """`algorithm` as hashlib spells it; `hexdigest` in lower case."""

    algorithm: str
    hexdigest: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.hexdigest}"
