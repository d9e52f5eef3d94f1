"""Architectures: one enum, one method per foreign spelling."""

from enum import StrEnum


class Arch(StrEnum):
    """An architecture that the farm builds for. The value is RPM's and the kernel's spelling."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    PPC64LE = "ppc64le"

    @property
    def rpm(self) -> str:
        return self.value

    @property
    def uname(self) -> str:
        return self.value

    @property
    def debian(self) -> str:
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64", Arch.PPC64LE: "ppc64el"}[self]

    @property
    def oci(self) -> str:
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64", Arch.PPC64LE: "ppc64le"}[self]
