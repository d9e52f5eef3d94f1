"""Decides whether a root already meets a package's requirements, so that a trivial package needs no run of dnf.

Owns RPM's comparison of versions and of ranges, for this question only. After a "no" dnf decides.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PART = re.compile(r"[0-9]+|[a-zA-Z]+|~|\^")
_REQUIREMENT = re.compile(r"(?P<name>[^\s(]\S*)(?:\s+(?P<op><=|>=|<|>|=)\s+(?P<evr>\S+))?")


@dataclass(frozen=True, kw_only=True)
class Capability:
    """A name, with or without a range: `op` is "", "<", "<=", "=", ">=" or ">"."""

    name: str
    op: str = ""
    evr: str = ""

    @classmethod
    def parse(cls, text: str) -> "Capability | None":
        """Parse `name` or `name op evr`; None for a rich dependency and for any other text."""
        found = _REQUIREMENT.fullmatch(text.strip())
        return cls(name=found["name"], op=found["op"] or "", evr=found["evr"] or "") if found else None


@dataclass(frozen=True, kw_only=True)
class Provided:
    """The capabilities that a root provides, by name, and the files that its packages own."""

    capabilities: Mapping[str, tuple[Capability, ...]]
    files: frozenset[str]

    def meets(self, requirement: str) -> bool:
        """True if the root certainly meets the requirement. Rich dependencies are left to dnf."""
        wanted = Capability.parse(requirement)
        if wanted is None:
            return False
        if wanted.name.startswith("/") and not wanted.op and wanted.name in self.files:
            return True
        return any(overlap(given, wanted) for given in self.capabilities.get(wanted.name, ()))


def unmet(requirements: Iterable[str], provided: Provided) -> tuple[str, ...]:
    """The requirements that dnf has to resolve, sorted, each once."""
    return tuple(sorted({requirement for requirement in requirements if not provided.meets(requirement)}))


def overlap(given: Capability, wanted: Capability) -> bool:
    """Whether a version is in both ranges, as rpmdsCompare of rpm 4.18 decides it."""
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
    """Compare epoch, version, and the release if both have one: -1, 0 or 1."""
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
    """A key that orders digits by value. A recipe may write a million digits, for which int() is too slow."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _split(evr: str) -> tuple[tuple[int, str], str, str]:
    epoch, colon, rest = evr.partition(":")
    if not colon or not (epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", evr
    version, _, release = rest.partition("-")
    return _number(epoch), version, release
