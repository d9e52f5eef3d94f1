"""Names of packages in what workers report: whether they are sound, and whose they are to be."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from farm.model.artifact import Artifact
from farm.model.nevra import Nevra

_NAME_CHARS = 255


class NameKind(StrEnum):
    """There are names of source packages, and of the packages that are built from them: one that comes as another's
    subpackage would replace it just as well."""

    SOURCE = "source"
    BINARY = "binary"


def bad_nevra(nevra: str) -> str | None:
    """The problem with a NEVRA; None for a sound one."""
    try:
        parsed = Nevra.parse(nevra)
    except ValueError:
        return f"NEVRA {nevra[:_NAME_CHARS]!a}"
    if not nevra.isascii() or not nevra.isprintable() or len(nevra) > 4 * _NAME_CHARS:
        return "a NEVRA that does not print"
    return None if len(parsed.name) <= _NAME_CHARS else f"a name of {len(parsed.name)} characters"


def package_names(packages: Iterable[Artifact]) -> list[str]:
    """The names of these packages, each once."""
    return sorted(set(parsed_names(package.nevra or "" for package in packages)))


def parsed_names(nevras: Iterable[str]) -> Iterator[str]:
    for text in nevras:
        try:
            name = Nevra.parse(text).name
        except ValueError:  # publishing refuses it, in words
            continue
        # The check of the report, which comes later, refuses any other.
        if name.isascii() and name.isprintable() and len(name) <= _NAME_CHARS:
            yield name
