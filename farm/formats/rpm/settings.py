"""The table `[rpm]` of a target: what only targets of RPM packages have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from farm.formats.tables import Invalid, convert, filled, listed, text, url
from farm.model.target import EngineName, Target

_MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_ISOLATIONS = ("auto", "simple", "nspawn")


class LookasideForm(StrEnum):
    """The file in which a dist-git tree names its tarballs, and the form of their addresses."""

    SOURCES = "sources"  # Fedora and CentOS: the file `sources`; <base>/<name>/<file>/<hash type>/<hash>/<file>
    METADATA = "metadata"  # AlmaLinux and CentOS 8: `.<name>.metadata`; <base>/<hash>


@dataclass(frozen=True, kw_only=True)
class Lookaside:
    form: LookasideForm
    base_url: str


@dataclass(frozen=True, kw_only=True)
class MockSettings:
    """`config` is a mock configuration's name or path; `{arch}` is RPM's spelling."""

    config: str
    isolation: str = "auto"
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RpmSettings:
    """`macros` are RPM macros set for each build, in order; `rpmdb` is the database's path inside the root."""

    macros: tuple[tuple[str, str], ...] = ()
    rpmdb: str = "/var/lib/rpm"
    module_platform: str | None = None
    lookaside: Lookaside | None = None
    mock: MockSettings | None = None

    @property
    def table(self) -> Mapping[str, Any]:
        """As `Target.table` has it."""
        found: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return found


def settings_of(target: Target) -> RpmSettings:
    """The RPM settings of a target. Raises ValueError for a table that is no such settings."""
    return msgspec.convert(target.table, RpmSettings)


_Platform = Annotated[str, msgspec.Meta(pattern=r"\Aplatform:[a-z0-9.]+\Z", description="of the form platform:el9")]


class _Lookaside(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    form: LookasideForm
    base_url: str


class _Mock(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    config: str
    isolation: str = "auto"
    options: dict[str, str] = {}


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    macros: dict[str, str] = {}
    rpmdb: str = RpmSettings.rpmdb
    module_platform: _Platform | None = None
    lookaside: _Lookaside | None = None
    mock: _Mock | None = None


#: They stand at the top of older files.
OLD_KEYS = _Table.__struct_fields__


def read_table(document: Mapping[str, Any], engine: EngineName, fill: Mapping[str, str]) -> Mapping[str, Any]:
    """The checked table, with `{…}` filled in from `fill`. Raises Invalid for the first mistake, whose key begins
    below the table."""
    table = convert(document, _Table)
    if not table.rpmdb.startswith("/") or ".." in table.rpmdb.split("/"):
        raise Invalid("rpmdb", f"{text('rpmdb', table.rpmdb)!r} is not an absolute path inside the root")
    return RpmSettings(
        macros=tuple(_macro(key, value) for key, value in table.macros.items()),
        rpmdb=table.rpmdb,
        module_platform=table.module_platform,
        lookaside=_lookaside(table.lookaside, fill),
        mock=_mock(table.mock, engine, fill),
    ).table


def _lookaside(one: _Lookaside | None, fill: Mapping[str, str]) -> Lookaside | None:
    if one is None:
        return None
    return Lookaside(form=one.form, base_url=url("lookaside.base_url", one.base_url, fill).rstrip("/"))


def _mock(one: _Mock | None, engine: EngineName, fill: Mapping[str, str]) -> MockSettings | None:
    if one is None:
        if engine is EngineName.MOCK:
            raise Invalid("engine", "'mock' needs a [mock] table with the name of a configuration as `config`")
        return None
    if one.isolation not in _ISOLATIONS:
        raise Invalid("mock.isolation", f"{one.isolation!r} is not one of {listed(_ISOLATIONS)}")
    config = filled("mock.config", one.config, fill, keep_arch=True)
    if not config or config.startswith("-") or any(char.isspace() for char in config):
        raise Invalid("mock.config", f"{config!r} is not the name or path of a mock configuration")
    options = tuple(
        (text("mock.options", key), text(f"mock.options.{key}", value)) for key, value in one.options.items()
    )
    return MockSettings(config=config, isolation=one.isolation, options=options)


def _macro(name: str, value: str) -> tuple[str, str]:
    if not _MACRO.fullmatch(name):
        raise Invalid(
            "macros",
            f"{name!r} is no name of an RPM macro: at least three of A-Z, a-z, 0-9 and _, not beginning with a digit",
        )
    if not text(f"macros.{name}", value).strip():
        raise Invalid(f"macros.{name}", "is empty, which RPM refuses; write '%{nil}'")
    return name, value
