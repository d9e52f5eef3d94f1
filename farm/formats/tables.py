"""Reading tables of a target's file: the checks of single values that all formats share, and the words of a mistake."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_SCHEMES = ("https://", "http://", "file://")
StructT = TypeVar("StructT", bound=msgspec.Struct)


class Invalid(ValueError):
    """A key of the file is missing, unknown or has an invalid value. Positional arguments: the key's path, and a
    sentence about it.
    """

    def __init__(self, key: str, why: str) -> None:
        super().__init__(key, why)
        self.key = key
        self.why = why

    def __str__(self) -> str:
        return f"{self.key}: {self.why}" if self.key else self.why


def convert(
    document: Mapping[str, Any],
    kind: type[StructT],
    *,
    tables: Mapping[str, type[msgspec.Struct]],
    choices: Mapping[str, Iterable[str]],
) -> StructT:
    """The document as a typed table. `tables` and `choices` have, by the key's path without indices, the tables below
    it and the allowed values, for messages about values of the wrong form. Raises Invalid for the first mistake."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), document, {"": kind, **tables}, choices) from error


def url(key: str, given: str, fill: Mapping[str, str], *, keep_arch: bool = False) -> str:
    """A URL with its variables filled in. Raises Invalid."""
    if not given.startswith(_SCHEMES) or any(char.isspace() for char in given):
        raise Invalid(key, f"{given!r} is not a URL; it begins with {listed(_SCHEMES)} and has no blanks")
    return filled(key, given, fill, keep_arch=keep_arch)


def filled(key: str, given: str, fill: Mapping[str, str], *, keep_arch: bool = False) -> str:
    """The text with `{name}` replaced. `{arch}` stays for the worker, where one value is for all arches."""
    known = {**fill, "arch": "{arch}"} if keep_arch else fill

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in known:
            raise Invalid(key, f"{{{name}}} in {given!r} is not a variable here; known are {listed(sorted(known))}")
        return known[name]

    return _VARIABLE.sub(value, text(key, given))


def text(key: str, given: str) -> str:
    """The text itself. A control character in it could add lines to the configuration of a package manager."""
    if not given.isprintable():
        raise Invalid(key, f"{given!r} has a character that is not printable; only plain text on one line is allowed")
    return given


def listed(words: Iterable[object]) -> str:
    return ", ".join(str(word) for word in words)


def _explained(
    message: str,
    document: Mapping[str, Any],
    tables: Mapping[str, type[msgspec.Struct]],
    choices: Mapping[str, Iterable[str]],
) -> Invalid:
    """msgspec's words, as key, value and what is allowed. They end with "- at `$.repositories[0].name`"."""
    why, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    general = re.sub(r"\[\d+\]|\[\.\.\.\]", "[]", path)
    if "unknown field" in why and general in tables:
        unknown = sorted(set(_at(document, path)) - set(tables[general].__struct_fields__))
        shown = ", ".join(repr(key) for key in unknown)
        return Invalid(path, f"{shown} is not a key here; known are {listed(tables[general].__struct_fields__)}")
    if "missing required field" in why:
        return Invalid(path, f"the key {why.rpartition(' ')[2].replace('`', '')} is missing")
    if general in choices:
        return Invalid(path, f"{_at(document, path)!r} is not one of {listed(choices[general])}")
    return Invalid(path, f"{_at(document, path)!r} is not right: {why[:1].lower()}{why[1:].replace('`', '')}")


def _at(document: Any, path: str) -> Any:
    """The value at a path like `repositories[0].name`; None where it leads nowhere."""
    for step in re.findall(r"\w+", path):
        try:
            document = document[int(step)] if isinstance(document, list) else document[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return document
