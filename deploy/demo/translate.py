"""Debian names, versions and dependencies in RPM's words. Pure functions.

Order is kept where the two systems allow it: `~` sorts before everything in both, and a bound without a Debian revision
becomes one without a release, which RPM compares by version alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deploy.demo.control import Alternatives, Relation

OPERATORS = {"<<": "<", "<=": "<=", "=": "=", ">=": ">=", ">>": ">", "<": "<=", ">": ">="}
ILLEGAL = re.compile(r"[^A-Za-z0-9._+~^]")
# A native Debian package has no revision, an RPM must have a release.
NATIVE_RELEASE = "0"


@dataclass(frozen=True, kw_only=True)
class Evr:
    """RPM's epoch, version and release. An empty release stands for "any" in a dependency."""

    epoch: int
    version: str
    release: str

    def __str__(self) -> str:
        epoch = f"{self.epoch}:" if self.epoch else ""
        release = f"-{self.release}" if self.release else ""
        return f"{epoch}{self.version}{release}"


def parse_evr(version: str) -> Evr:
    """Translate a Debian version; characters that RPM does not allow become `.`."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-")
    if not upstream:
        upstream, revision = rest, ""
    return Evr(epoch=int(epoch), version=ILLEGAL.sub(".", upstream), release=ILLEGAL.sub(".", revision))


def package_evr(version: str) -> Evr:
    """The EVR of a package itself, whose release must not be empty."""
    evr = parse_evr(version)
    return Evr(epoch=evr.epoch, version=evr.version, release=evr.release or NATIVE_RELEASE)


def requirement(alternatives: Alternatives, *, present: frozenset[str]) -> str | None:
    """One RPM dependency for one Debian one; None when a package in `present` satisfies it already."""
    if any(relation.name in present for relation in alternatives):
        return None
    texts = list(dict.fromkeys(bounded(relation) for relation in alternatives))
    return texts[0] if len(texts) == 1 else f"({' or '.join(texts)})"


def requirements(groups: Iterable[Alternatives], *, present: frozenset[str]) -> tuple[str, ...]:
    """RPM dependencies in first-seen order, each once."""
    texts = (requirement(group, present=present) for group in groups)
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def bounded(relation: Relation) -> str:
    """`name`, or `name operator version`."""
    if not relation.operator:
        return relation.name
    evr = parse_evr(relation.version)
    # Every revision of 2.36 is later than 2.36 for dpkg; RPM compares the versions alone and calls them equal.
    operator = ">=" if relation.operator == ">>" and not evr.release else OPERATORS[relation.operator]
    return f"{relation.name} {operator} {evr}"


def devel_names(name: str) -> tuple[str, ...]:
    """RPM's usual names of a Debian -dev package: libfoo1-dev is libfoo1-devel and foo1-devel."""
    if not name.endswith("-dev"):
        return ()
    stem = name.removesuffix("-dev")
    bare = stem.removeprefix("lib")
    return tuple(f"{each}-devel" for each in dict.fromkeys((stem, bare)) if each)
