"""A root as a value: the folders that it is stacked from, and its packages."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RootPackage:
    """A package in a root: its identity in the format's spelling, and the digest that the format records for it."""

    identity: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Root:
    """The folders of a root from the top down, and its packages. `is_sealed` if the build user could write in it to
    /tmp and /var/tmp alone."""

    lowers: tuple[Path, ...]
    packages: tuple[RootPackage, ...]
    is_sealed: bool = False

    @property
    def as_it_is(self) -> Path | None:
        """The folder that can serve many sessions at once, read-only, without an overlay of their own."""
        return self.lowers[0] if len(self.lowers) == 1 and self.is_sealed else None
