"""RPM's package identity. Identity is the exact string; ordering is left to RPM itself."""

import re
from dataclasses import dataclass

_NEVRA = re.compile(
    r"(?P<name>[^\s/]+)-(?:(?P<epoch>[0-9]+):)?(?P<version>[^\s/-]+)-(?P<release>[^\s/-]+)\.(?P<arch>[a-z0-9_]+)"
)


@dataclass(frozen=True, kw_only=True)
class Nevra:
    """Name, epoch, version, release, arch of one RPM; `arch` is "src" for a source package."""

    name: str
    epoch: int = 0
    version: str
    release: str
    arch: str

    @classmethod
    def parse(cls, text: str) -> "Nevra":
        """From `name-[epoch:]version-release.arch`. Raises ValueError for anything else."""
        found = _NEVRA.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not name-[epoch:]version-release.arch")
        name, epoch, version, release, arch = found.groups()
        return cls(name=name, epoch=int(epoch or 0), version=version, release=release, arch=arch)

    @property
    def evr(self) -> str:
        epoch = f"{self.epoch}:" if self.epoch else ""
        return f"{epoch}{self.version}-{self.release}"

    @property
    def filename(self) -> str:
        """The file name that rpmbuild chooses; it does not contain the epoch."""
        return f"{self.name}-{self.version}-{self.release}.{self.arch}.rpm"

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"
