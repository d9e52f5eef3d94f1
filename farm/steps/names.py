"""Names of packages in the reports of workers: checks them, and lists the names that will get an owner."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from farm.formats.base import Format, Identity
from farm.formats.registry import format_of
from farm.model.artifact import Artifact

_NAME_CHARS = 255


class NameKind(StrEnum):
    """Source packages have names, and so have the packages built from them: a subpackage of another source package
    would replace a package of the same name just as well."""

    SOURCE = "source"
    BINARY = "binary"


def bad_identity(form: str, text: str) -> str | None:
    """The problem with a package's identity in a format; None for a sound one."""
    try:
        parsed = format_of(form).parse_identity(text)
    except ValueError:
        return f"the identity {text[:_NAME_CHARS]!a} of a package"
    if not text.isascii() or not text.isprintable() or len(text) > 4 * _NAME_CHARS:
        return "an identity that does not print"
    return None if len(parsed.name) <= _NAME_CHARS else f"a name of {len(parsed.name)} characters"


def identity_of(form: Format, package: Artifact) -> Identity | None:
    """None for a text that is no identity: publishing refuses it, with a message."""
    try:
        return form.parse_identity(package.identity or "")
    except ValueError:
        return None


def package_names(form: str, packages: Iterable[Artifact]) -> list[str]:
    """The names of these packages, each once."""
    return sorted(set(parsed_names(form, (package.identity or "" for package in packages))))


def parsed_names(form: str, identities: Iterable[str]) -> Iterator[str]:
    for text in identities:
        try:
            name = format_of(form).parse_identity(text).name
        except ValueError:  # publishing refuses it, with a message
            continue
        # The check of the report, which comes later, refuses every other name.
        if name.isascii() and name.isprintable() and len(name) <= _NAME_CHARS:
            yield name
