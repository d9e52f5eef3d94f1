"""How Debian's compiler and dynamic linker spell the farm's architectures."""

from farm.model.arch import Arch


def triplet(arch: Arch) -> str:
    """The multiarch directory name, below /usr/lib, where they look for libraries without being told."""
    cpu = {Arch.X86_64: "x86_64", Arch.AARCH64: "aarch64", Arch.PPC64LE: "powerpc64le"}[arch]
    return f"{cpu}-linux-gnu"
