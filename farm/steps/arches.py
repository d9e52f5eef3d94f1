"""Which arches a package is built on: the request's, less what its spec rules out, and one for all when it is noarch.

ExclusiveArch and ExcludeArch hold RPM's spellings with macros expanded, so `%{ix86}` is many names here, none of
which is an arch of the farm. RPM compares names exactly, and so do we. `noarch` in ExclusiveArch allows a package to
be built as noarch, and says nothing of where, so it rules no arch out by itself.
"""

from collections.abc import Sequence
from typing import Protocol

from farm.model.arch import Arch
from farm.model.text import clip, printable
from farm.state.machine import FanOut

_SHOWN_CHARS = 200


class ArchRules(Protocol):
    """What a source package says of the arches that it is for, in RPM's spellings."""

    @property
    def exclusive_arches(self) -> tuple[str, ...]: ...

    @property
    def exclude_arches(self) -> tuple[str, ...]: ...

    @property
    def noarch(self) -> bool: ...


def plan_arches(wanted: Sequence[Arch], srpm: ArchRules, native: Sequence[Arch]) -> FanOut:
    """`native` are arches with a free worker of their own, best first: a noarch package is built on one of those."""
    excluded = {arch: reason for arch in wanted if (reason := _why_not(arch, srpm))}
    allowed = [arch for arch in wanted if arch not in excluded]
    if not srpm.noarch or not allowed:
        return FanOut(covers={arch: (arch,) for arch in allowed}, excluded=excluded)
    best = next((arch for arch in native if arch in allowed), allowed[0])
    return FanOut(covers={best: tuple(allowed)}, excluded=excluded)


def _why_not(arch: Arch, srpm: ArchRules) -> str | None:
    only = [name for name in srpm.exclusive_arches if name != "noarch"]
    is_limited = bool(only) or (bool(srpm.exclusive_arches) and not srpm.noarch)
    if is_limited and arch.rpm not in only:
        return f"ExclusiveArch is {_shown(srpm.exclusive_arches)}, without {arch}"
    if arch.rpm in srpm.exclude_arches:
        return f"ExcludeArch has {arch}"
    return None


def _shown(names: Sequence[str]) -> str:
    """The names come out of a spec: bounded, and printable."""
    return clip(printable(" ".join(names)), _SHOWN_CHARS)
