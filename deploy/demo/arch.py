"""The demo's three architectures and how Debian, RPM and the compiler spell them."""

from enum import Enum


class Arch(Enum):
    """An architecture of the demo distribution; the value is RPM's spelling."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    PPC64LE = "ppc64le"

    @property
    def debian(self) -> str:
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64", Arch.PPC64LE: "ppc64el"}[self]

    @property
    def triplet(self) -> str:
        """Debian's multiarch directory name, where its dynamic linker and compiler look for libraries."""
        cpu = {Arch.X86_64: "x86_64", Arch.AARCH64: "aarch64", Arch.PPC64LE: "powerpc64le"}[self]
        return f"{cpu}-linux-gnu"
