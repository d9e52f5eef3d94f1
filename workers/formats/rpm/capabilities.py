"""Whether a root already provides what a package requires, so that a trivial package need not pay for dnf.

Owns RPM's comparison of versions and of ranges, for this question only. A "no" is never final: dnf decides then.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PART = re.compile(r"[0-9]+|[a-zA-Z]+|~|\^")
_REQUIREMENT = re.compile(r"(?P<name>[^\s(]\S*)(?:\s+(?P<op><=|>=|<|>|=)\s+(?P<evr>\S+))?")


@dataclass(frozen=True, kw_only=True)
class Capability:
    """A name, and for some a range: `op` is "", "<", "<=", "=", ">=" or ">"."""

    name: str
    op: str = ""
    evr: str = ""

    @classmethod
    def parse(cls, text: str) -> "Capability | None":
        """From `name` or `name op evr`; None for a rich dependency and for anything else."""
        found = _REQUIREMENT.fullmatch(text.strip())
        return cls(name=found["name"], op=found["op"] or "", evr=found["evr"] or "") if found else None


@dataclass(frozen=True, kw_only=True)
class Provided:
    """What a root provides: capabilities by name, and the files that its packages own."""

    capabilities: Mapping[str, tuple[Capability, ...]]
    files: frozenset[str]

    def meets(self, requirement: str) -> bool:
        """Whether it certainly does. Rich dependencies are left to dnf."""
        wanted = Capability.parse(requirement)
        if wanted is None:
            return False
        if wanted.name.startswith("/") and not wanted.op and wanted.name in self.files:
            return True
        return any(overlap(given, wanted) for given in self.capabilities.get(wanted.name, ()))


def unmet(requirements: Iterable[str], provided: Provided) -> tuple[str, ...]:
    """Those that dnf has to look for, sorted, each once."""
    return tuple(sorted({requirement for requirement in requirements if not provided.meets(requirement)}))


def overlap(given: Capability, wanted: Capability) -> bool:
    """Whether some version is in both ranges, as rpmdsCompare of rpm 4.18 decides it."""
    if not given.op or not wanted.op:
        return True
    sense = compare_evr(given.evr, wanted.evr)
    if sense < 0:
        return ">" in given.op or "<" in wanted.op
    if sense > 0:
        return "<" in given.op or ">" in wanted.op
    return (
        ("=" in given.op and "=" in wanted.op)
        or ("<" in given.op and "<" in wanted.op)
        or (">" in given.op and ">" in wanted.op)
    )


def compare_evr(left: str, right: str) -> int:
    """Epoch, version, and the release where both have one: -1, 0 or 1."""
    (left_epoch, left_version, left_release), (right_epoch, right_version, right_release) = _split(left), _split(right)
    order = (left_epoch > right_epoch) - (left_epoch < right_epoch)
    order = order or compare_version(left_version, right_version)
    if order or not left_release or not right_release:
        return order
    return compare_version(left_release, right_release)


def compare_version(left: str, right: str) -> int:
    """rpmvercmp of rpm 4.18: runs of digits or letters; `~` sorts before the end of the string, `^` just after it."""
    lefts, rights = _PART.findall(left), _PART.findall(right)
    for index in range(max(len(lefts), len(rights))):
        one = lefts[index] if index < len(lefts) else ""
        two = rights[index] if index < len(rights) else ""
        if one == two:
            continue
        if order := _compare_part(one, two):
            return order
    return 0


def _compare_part(one: str, two: str) -> int:
    for mark, before in (("~", -1), ("^", 0)):
        if mark in (one, two):
            if mark == "~":
                return before if one == "~" else -before
            # A caret is newer than the end of the string, and older than anything else.
            other = two if one == "^" else one
            newer = 1 if not other else -1
            return newer if one == "^" else -newer
    if not one or not two:
        return 1 if one else -1
    if one.isdigit() and two.isdigit():
        left, right = _number(one), _number(two)
        return (left > right) - (left < right)
    if one.isdigit() or two.isdigit():
        return 1 if one.isdigit() else -1
    return (one > two) - (one < two)


def _number(digits: str) -> tuple[int, str]:
    """Orders digits by value; a recipe may write a million of them, which int() is too slow for."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _split(evr: str) -> tuple[tuple[int, str], str, str]:
    epoch, colon, rest = evr.partition(":")
    if not colon or not (epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", evr
    version, _, release = rest.partition("-")
    return _number(epoch), version, release
