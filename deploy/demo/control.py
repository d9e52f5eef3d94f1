"""Reading Debian control data: stanzas and dependency fields. Pure functions."""

import re
from dataclasses import dataclass

from deploy.demo.errors import DemoError

RELATION = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]*)"
    r"(?::(?P<qualifier>[a-z0-9-]+))?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s)]+)\s*\))?"
    r"(?:\s*\[[^\]]*\])?(?:\s*<[^>]*>)*$"
)


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One package name with an optional version bound. `:any` and the like are gone: the distribution has one arch."""

    name: str
    operator: str = ""
    version: str = ""


# Any one of them satisfies the dependency.
Alternatives = tuple[Relation, ...]


def parse_stanza(text: str) -> dict[str, str]:
    """Return the fields of one stanza; continuation lines keep their line breaks, field names their case."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and name:
            fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif line.strip():
            raise DemoError(f"control data: {line!r} is neither a field nor a continuation; the package may be damaged")
    return fields


def parse_relations(field: str) -> tuple[Alternatives, ...]:
    """Parse a Depends-like field: a conjunction of alternatives."""
    groups = (group.strip() for group in field.replace("\n", " ").split(","))
    return tuple(tuple(_relation(part) for part in group.split("|")) for group in groups if group)


def _relation(text: str) -> Relation:
    found = RELATION.match(text.strip())
    if found is None:
        raise DemoError(f"control data: {text.strip()!r} is not a dependency that deploy/demo/control.py can read")
    return Relation(name=found["name"], operator=found["operator"] or "", version=found["version"] or "")
