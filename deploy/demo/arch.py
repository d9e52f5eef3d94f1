"""How Debian's compiler and dynamic linker spell the farm's architectures."""

from farm.model.arch import Arch


def triplet(arch: Arch) -> str:
    """The multiarch directory below /usr/lib, in which they search for libraries by default."""
    cpu = {Arch.X86_64: "x86_64", Arch.AARCH64: "aarch64", Arch.PPC64LE: "powerpc64le"}[arch]
    return f"{cpu}-linux-gnu"
