"""The arches on which a spec wants to be built.

ExclusiveArch and ExcludeArch hold RPM's spellings with macros expanded, so `%{ix86}` is many names here, none of
which is an arch of the farm. RPM compares names exactly, and so do we. `noarch` in ExclusiveArch allows a package to
be built as noarch, and says nothing of where, so it rules no arch out by itself.
"""

from collections.abc import Sequence

from farm.formats.base import ArchRules
from farm.model.arch import Arch
from farm.model.text import clip, printable

_SHOWN_CHARS = 200


def excluded(arch: Arch, rules: ArchRules) -> str | None:
    """The tag that rules the arch out, in words; None when none does."""
    only = [name for name in rules.exclusive if name != "noarch"]
    is_limited = bool(only) or (bool(rules.exclusive) and not rules.is_independent)
    if is_limited and arch.rpm not in only:
        return f"ExclusiveArch is {_shown(rules.exclusive)}, without {arch}"
    if arch.rpm in rules.excluded:
        return f"ExcludeArch has {arch}"
    return None


def _shown(names: Sequence[str]) -> str:
    """The names come out of a spec: bounded, and printable."""
    return clip(printable(" ".join(names)), _SHOWN_CHARS)
