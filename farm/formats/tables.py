"""Reading tables of a target's file: the checks of single values that all formats share, and the words of a mistake."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_SCHEMES = ("https://", "http://", "file://")
_WORDS: Mapping[type, str] = {str: "str", int: "int", bool: "bool", list: "array", dict: "object"}
StructT = TypeVar("StructT", bound=msgspec.Struct)
ValueT = TypeVar("ValueT")


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


def convert(document: Mapping[str, Any], kind: type[StructT]) -> StructT:
    """The document as a typed table. Raises Invalid for the first mistake: a key that is unknown or missing, or a value
    that is not of the declared type or breaks a declared constraint (msgspec.Meta), whose description says in words
    what the value must be."""
    _check(_type_info(kind), document, "")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Invalid("", f"is not right: {error}") from error


@cache
def _type_info(kind: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(kind)


def _check(wanted: inspect.Type, value: object, key: str) -> None:
    match wanted:
        case inspect.Metadata():
            said = (wanted.extra_json_schema or {}).get("description", "")
            _check_constrained(wanted.type, value, key, said)
        case inspect.UnionType():
            if value is not None:
                _check(next(one for one in wanted.types if not isinstance(one, inspect.NoneType)), value, key)
        case inspect.StructType():
            _check_table(wanted, value, key)
        case inspect.VarTupleType():
            for index, one in enumerate(_of(list, value, key)):
                _check(wanted.item_type, one, f"{key}[{index}]")
        case inspect.DictType():
            for name, one in _of(dict, value, key).items():
                _check(wanted.value_type, one, f"{key}.{name}")
        case inspect.EnumType():
            if value not in (choices := [one.value for one in wanted.cls]):
                raise Invalid(key, f"{value!r} is not one of {listed(choices)}")
        case _:
            _check_constrained(wanted, value, key, "")


def _check_table(wanted: inspect.StructType, value: object, key: str) -> None:
    table, known = _of(dict, value, key), [field.encode_name for field in wanted.fields]
    if unknown := sorted(str(name) for name in table if name not in known):
        shown = ", ".join(repr(name) for name in unknown)
        raise Invalid(key, f"{shown} is not a key here; known are {listed(known)}")
    for field in wanted.fields:
        name = field.encode_name
        if name in table:
            _check(field.type, table[name], f"{key}.{name}".removeprefix("."))
        elif field.required:
            raise Invalid(key, f"the key {name} is missing")


def _check_constrained(wanted: inspect.Type, value: object, key: str, said: str) -> None:
    """A value with the constraints that are declared for it; `said` is their description."""
    match wanted:
        case inspect.StrType():
            if wanted.pattern is not None and not re.search(wanted.pattern, _of(str, value, key)):
                raise Invalid(key, f"{value!r} is not {said}")
            _of(str, value, key)
        case inspect.IntType():
            number = _of(int, value, key)
            if (wanted.ge is not None and number < wanted.ge) or (wanted.le is not None and number > wanted.le):
                raise Invalid(key, f"{value!r} is not {said}")
        case inspect.BoolType():
            _of(bool, value, key)
        case inspect.VarTupleType():
            if len(_of(list, value, key)) < (wanted.min_length or 0):
                raise Invalid(key, f"is empty; name {said}")
            _check(wanted, value, key)
        case _:
            raise TypeError(f"no check is written for a key of the type {wanted}")


def _of(kind: type[ValueT], value: object, key: str) -> ValueT:
    """A bool is no int here, as in TOML."""
    if type(value) is not kind:
        raise Invalid(key, f"{value!r} is not right: expected {_WORDS[kind]}, got {_word(value)}")
    return value


def _word(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)


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
