"""The arches on which a package is built: the request's arches that its source package allows, or one of them when the
package is independent of the arch.
"""

from collections.abc import Sequence

from farm.formats.base import ArchRules, Format
from farm.model.arch import Arch
from farm.state.machine import FanOut


def plan_arches(wanted: Sequence[Arch], rules: ArchRules, native: Sequence[Arch], form: Format) -> FanOut:
    """`native` are arches with a free native worker, best first: an independent package is built on one of them."""
    excluded = {arch: reason for arch in wanted if (reason := form.excluded(arch, rules))}
    allowed = [arch for arch in wanted if arch not in excluded]
    if not rules.is_independent or not allowed:
        return FanOut(covers={arch: (arch,) for arch in allowed}, excluded=excluded)
    best = next((arch for arch in native if arch in allowed), allowed[0])
    return FanOut(covers={best: tuple(allowed)}, excluded=excluded)
