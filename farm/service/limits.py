"""Limits as a person writes them, `memory=8GiB`: read, checked and shown. The workers enforce them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from farm.errors import BadRequest
from farm.model.build import Build
from farm.model.target import LIMIT_RANGES, OwnLimits, Target

#: Values as `enqueue` takes them: by field, in bytes, seconds and processes.
GivenLimits = OwnLimits | Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """The notation for values of one kind: units from large to small, their aliases, and an example."""

    units: Mapping[str, int]
    short: Mapping[str, str]
    example: str


_SIZE = _Kind(
    units={"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10},
    short={"T": "TiB", "G": "GiB", "M": "MiB", "K": "KiB"},
    example="512MiB or 8GiB; units are KiB, MiB, GiB and TiB, and bytes without one",
)
_TIME = _Kind(
    units={"d": 86400, "h": 3600, "min": 60, "s": 1},
    short={"m": "min"},
    example="90min or 2h; units are s, min, h and d, and seconds without one",
)
_COUNT = _Kind(units={}, short={}, example="500")
#: The field for each name after --limit.
_FIELDS = {field.rpartition("_")[0] or field: field for field in LIMIT_RANGES}
_VALUE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,5})")


def parse_limits(texts: Iterable[str]) -> OwnLimits:
    """From `NAME=VALUE` words, each name once. Raises BadRequest, naming the word and what is allowed.

    >>> parse_limits(["memory=1.5GiB", "silence=2h"]).given
    {'silence_s': 7200, 'memory_bytes': 1610612736}
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        field = _FIELDS.get(name.strip())
        if field is None:
            raise BadRequest(f"--limit {text[:80]!r} is none; use NAME=VALUE with one of {', '.join(_FIELDS)}")
        if field in found:
            raise BadRequest(f"--limit {name} is given twice; leave one of them out")
        found[field] = _number(field, text, value.strip())
    return check_limits(found)


def check_limits(given: GivenLimits) -> OwnLimits:
    """Return the same values if each of them can be a limit. Raises BadRequest, naming the limit, the value and the
    range.
    """
    values = given.given if isinstance(given, OwnLimits) else dict(given)
    for field, value in values.items():
        if field not in LIMIT_RANGES:
            raise BadRequest(f"{field!r} is not a limit; there are {', '.join(LIMIT_RANGES)}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadRequest(f"the limit {field} is a whole number, and {value!r} is none")
        least, most = LIMIT_RANGES[field]
        if not least <= value <= most:
            raise BadRequest(
                f"--limit {_name(field)}={limit_text(field, value)} is out of range; "
                f"use {limit_text(field, least)} to {limit_text(field, most)}"
            )
    return OwnLimits(**values)


def differing_limits(build: Build, target: Target) -> Iterator[tuple[str, int, int]]:
    """The limits of its `build` steps that differ from the target's: (field, value, the target's value)."""
    own = build.options.limits_over(target.limits_for(build.package))
    for field in LIMIT_RANGES:
        value, usual = getattr(own, field), getattr(target.limits, field)
        if value != usual:
            yield field, value, usual


def limit_words(field: str, value: int) -> str:
    """The limit as written after --limit.

    >>> limit_words("memory_bytes", 8 * 2**30)
    'memory=8GiB'
    """
    return f"{_name(field)}={limit_text(field, value)}"


def limit_text(field: str, value: int) -> str:
    """The value in the largest unit in which it is whole: `8GiB`, `90min`, `500`."""
    for unit, factor in _kind(field).units.items():
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def _number(field: str, text: str, value: str) -> int:
    kind = _kind(field)
    found = _VALUE.fullmatch(value)
    factor = kind.units.get(kind.short.get(found[2], found[2]), 0 if found[2] else 1) if found else 0
    number = Decimal(found[1]) * factor if found else Decimal(0)
    if not factor or number != int(number):
        raise BadRequest(f"--limit {text[:80]!r} has no value that can be used; write {_name(field)}={kind.example}")
    return int(number)


def _kind(field: str) -> _Kind:
    return _TIME if field.endswith("_s") else _SIZE if field.endswith("_bytes") else _COUNT


def _name(field: str) -> str:
    return next(name for name, one in _FIELDS.items() if one == field)
