"""The form of a target's file, and every check on it: makes a `Target` from a TOML document.

farm/targets/load.py finds the files. docs/targets.md describes each key.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from farm.model.arch import Arch
from farm.model.target import (
    LIMIT_RANGES,
    EngineName,
    Limits,
    Lookaside,
    LookasideForm,
    MockSettings,
    OwnLimits,
    PackageFormat,
    PackageLimits,
    RepositorySource,
    Target,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_PACKAGE = re.compile(r"[@A-Za-z0-9/_]\S*")
_PATTERN = re.compile(r"[A-Za-z0-9._+~*?\[\]!-]+")
_MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_ISOLATIONS = ("auto", "simple", "nspawn")
_SCHEMES = ("https://", "http://", "file://")
_KEEP_LEAST, _KEEP_MOST = 2, 1000
_URLS = ("baseurl", "metalink", "mirrorlist")
_ADDRESSES = (*_URLS, "target")


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


class _Repository(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    baseurl: str | None = None
    metalink: str | None = None
    mirrorlist: str | None = None
    target: str | None = None
    gpgkey: str | None = None
    gpgcheck: bool = True
    priority: int = 99
    arches: tuple[Arch, ...] = ()
    module_hotfixes: bool = False


class _Lookaside(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    form: LookasideForm
    base_url: str


class _Mock(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    config: str
    isolation: str = "auto"
    options: dict[str, str] = {}


class _Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    wall_s: int = Limits.wall_s
    silence_s: int = Limits.silence_s
    log_bytes: int = Limits.log_bytes
    memory_bytes: int = Limits.memory_bytes
    disk_bytes: int = Limits.disk_bytes
    files: int = Limits.files
    processes: int = Limits.processes


class _PackageLimits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    packages: tuple[str, ...]
    wall_s: int | None = None
    silence_s: int | None = None
    log_bytes: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    files: int | None = None
    processes: int | None = None


class _Retention(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    versions: int = Target.keep_versions


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    distribution: str
    release: str
    format: PackageFormat = PackageFormat.RPM
    engine: EngineName = EngineName.NATIVE
    arches: tuple[Arch, ...]
    packages: tuple[str, ...]
    macros: dict[str, str] = {}
    rpmdb: str = "/var/lib/rpm"
    module_platform: str | None = None
    user_namespaces: bool = False
    repositories: tuple[_Repository, ...]
    lookaside: _Lookaside | None = None
    allow_networks: tuple[str, ...] = ()
    mock: _Mock | None = None
    limits: _Limits = msgspec.field(default_factory=_Limits)
    package_limits: tuple[_PackageLimits, ...] = ()
    retention: _Retention = msgspec.field(default_factory=_Retention)


#: The allowed values for a key, by its path without indices; only messages about values of the wrong form use them.
_TABLES: Mapping[str, type[msgspec.Struct]] = {
    "": _File,
    "repositories[]": _Repository,
    "lookaside": _Lookaside,
    "mock": _Mock,
    "limits": _Limits,
    "package_limits[]": _PackageLimits,
    "retention": _Retention,
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "arches[]": tuple(Arch),
    "repositories[].arches[]": tuple(Arch),
    "format": tuple(PackageFormat),
    "engine": tuple(EngineName),
    "lookaside.form": tuple(LookasideForm),
}


def to_target(name: str, document: Mapping[str, Any], variables: Mapping[str, str]) -> Target:
    """The target that the document describes, with `{…}` filled in from `variables` and `{release}`.

    Raises Invalid for the first mistake.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("", f"a target's name, which its file gives it, is {_NAME.pattern}; {name!r} is not")
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise _explained(str(error), document) from error
    _check_root(file)
    _check_limits("limits", msgspec.structs.asdict(file.limits))
    fill = {**variables, "release": file.release}
    return Target(
        name=name,
        distribution=_text("distribution", file.distribution),
        release=file.release,
        format=file.format,
        engine=file.engine,
        arches=file.arches,
        repositories=_repositories(file, fill),
        packages=file.packages,
        macros=tuple(_macro(key, value) for key, value in file.macros.items()),
        rpmdb=file.rpmdb,
        module_platform=file.module_platform,
        user_namespaces=file.user_namespaces,
        lookaside=_lookaside(file.lookaside, fill),
        allow_networks=tuple(
            _network(f"allow_networks[{index}]", text) for index, text in enumerate(file.allow_networks)
        ),
        mock=_mock(file, fill),
        limits=Limits(**msgspec.structs.asdict(file.limits)),
        package_limits=tuple(
            _package_limits(f"package_limits[{index}]", one) for index, one in enumerate(file.package_limits)
        ),
        keep_versions=_kept(file.retention.versions),
    )


def _check_root(file: _File) -> None:
    """The parts of a build root, besides its repositories."""
    if not _RELEASE.fullmatch(file.release):
        raise Invalid("release", f"{file.release!r} is not a release, such as 9 or 10.1")
    _check_arches("arches", file.arches)
    if not file.arches:
        raise Invalid("arches", f"is empty; name at least one of {_listed(Arch)}")
    if not file.packages:
        raise Invalid("packages", "is empty; name what every build root starts with, such as rpm-build")
    for index, package in enumerate(file.packages):
        if not _PACKAGE.fullmatch(_text(f"packages[{index}]", package)):
            raise Invalid(f"packages[{index}]", f"{package!r} is not a package's name, a path, or @group")
    if not file.rpmdb.startswith("/") or ".." in file.rpmdb.split("/"):
        raise Invalid("rpmdb", f"{_text('rpmdb', file.rpmdb)!r} is not an absolute path inside the root")
    if file.module_platform is not None and not re.fullmatch(r"platform:[a-z0-9.]+", file.module_platform):
        raise Invalid("module_platform", f"{file.module_platform!r} is not of the form platform:el9")


def _check_arches(key: str, arches: tuple[Arch, ...]) -> None:
    if len(set(arches)) != len(arches):
        raise Invalid(key, f"{_listed(arches)} names an arch twice")


def _check_limits(table: str, limits: Mapping[str, int]) -> None:
    for key, value in limits.items():
        least, most = LIMIT_RANGES[key]
        if value <= 0:
            raise Invalid(
                f"{table}.{key}", f"{value} is not a limit; it must be above 0, for every step has all limits"
            )
        if not least <= value <= most:
            raise Invalid(f"{table}.{key}", f"{value} is out of range; use {least} to {most}")


def _package_limits(key: str, one: _PackageLimits) -> PackageLimits:
    if not one.packages:
        raise Invalid(f"{key}.packages", "is empty; name the source packages, such as kernel or python3-*")
    for index, pattern in enumerate(one.packages):
        if not _PATTERN.fullmatch(pattern):
            raise Invalid(f"{key}.packages[{index}]", f"{pattern!r} is no package's name, nor one with *, ? or [...]")
    values = msgspec.structs.asdict(one)
    values.pop("packages")
    limits = OwnLimits(**values)
    if not limits.given:
        raise Invalid(key, f"has no limit; give at least one of {_listed(LIMIT_RANGES)}")
    _check_limits(key, limits.given)
    return PackageLimits(packages=one.packages, limits=limits)


def _kept(versions: int) -> int:
    if not _KEEP_LEAST <= versions <= _KEEP_MOST:
        raise Invalid(
            "retention.versions",
            f"{versions} is not between {_KEEP_LEAST} and {_KEEP_MOST}: with fewer than two, clients would meet a "
            "repository whose files are just being replaced",
        )
    return versions


def _repositories(file: _File, fill: Mapping[str, str]) -> tuple[RepositorySource, ...]:
    sources = tuple(
        _repository(f"repositories[{index}]", one, file, fill) for index, one in enumerate(file.repositories)
    )
    names = [source.name for source in sources]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Invalid(f"repositories[{index}].name", f"{name!r} is the name of an earlier repository too")
    for arch in file.arches:
        if not any(not source.arches or arch in source.arches for source in sources):
            raise Invalid("repositories", f"none has packages for {arch}, which is one of the target's arches")
    return sources


def _repository(key: str, one: _Repository, file: _File, fill: Mapping[str, str]) -> RepositorySource:
    if not _REPOSITORY.fullmatch(one.name):
        raise Invalid(f"{key}.name", f"{one.name!r} is not a repository's name, which is {_REPOSITORY.pattern}")
    given = [address for address in _ADDRESSES if getattr(one, address) is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "there is no address"
        raise Invalid(key, f"repository {one.name!r}: {said}; give exactly one of {', '.join(_ADDRESSES)}")
    if one.gpgcheck and one.gpgkey is None:
        raise Invalid(key, f"repository {one.name!r} has no gpgkey to check packages with; add it, or gpgcheck = false")
    _check_arches(f"{key}.arches", one.arches)
    for arch in one.arches:
        if arch not in file.arches:
            raise Invalid(f"{key}.arches", f"{arch} is not one of the target's arches, {_listed(file.arches)}")
    if one.target is not None and not _NAME.fullmatch(one.target):
        raise Invalid(f"{key}.target", f"{one.target!r} is not a target's name, which is {_NAME.pattern}")
    urls = [address for address in given if address in _URLS]
    addresses = {address: _url(f"{key}.{address}", getattr(one, address), fill, keep_arch=True) for address in urls}
    return RepositorySource(
        name=one.name,
        target=one.target,
        gpgkey=None if one.gpgkey is None else _key_address(f"{key}.gpgkey", one.gpgkey, fill),
        gpgcheck=one.gpgcheck,
        priority=one.priority,
        arches=one.arches,
        module_hotfixes=one.module_hotfixes,
        **addresses,
    )


def _lookaside(one: _Lookaside | None, fill: Mapping[str, str]) -> Lookaside | None:
    if one is None:
        return None
    return Lookaside(form=one.form, base_url=_url("lookaside.base_url", one.base_url, fill).rstrip("/"))


def _network(key: str, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Invalid(key, f"{text!r} is not a network, such as 10.0.0.0/8 or fd00::/8: {error}") from error


def _mock(file: _File, fill: Mapping[str, str]) -> MockSettings | None:
    if file.mock is None:
        if file.engine is EngineName.MOCK:
            raise Invalid("engine", "'mock' needs a [mock] table with the name of a configuration as `config`")
        return None
    if file.mock.isolation not in _ISOLATIONS:
        raise Invalid("mock.isolation", f"{file.mock.isolation!r} is not one of {_listed(_ISOLATIONS)}")
    config = _filled("mock.config", file.mock.config, fill, keep_arch=True)
    if not config or config.startswith("-") or any(char.isspace() for char in config):
        raise Invalid("mock.config", f"{config!r} is not the name or path of a mock configuration")
    options = tuple(
        (_text("mock.options", key), _text(f"mock.options.{key}", value)) for key, value in file.mock.options.items()
    )
    return MockSettings(config=config, isolation=file.mock.isolation, options=options)


def _macro(name: str, value: str) -> tuple[str, str]:
    if not _MACRO.fullmatch(name):
        raise Invalid(
            "macros",
            f"{name!r} is no name of an RPM macro: at least three of A-Z, a-z, 0-9 and _, not beginning with a digit",
        )
    if not _text(f"macros.{name}", value).strip():
        raise Invalid(f"macros.{name}", "is empty, which RPM refuses; write '%{nil}'")
    return name, value


def _url(key: str, text: str, fill: Mapping[str, str], *, keep_arch: bool = False) -> str:
    if not text.startswith(_SCHEMES) or any(char.isspace() for char in text):
        raise Invalid(key, f"{text!r} is not a URL; it begins with {_listed(_SCHEMES)} and has no blanks")
    return _filled(key, text, fill, keep_arch=keep_arch)


def _key_address(key: str, text: str, fill: Mapping[str, str]) -> str:
    if text.startswith(("/", "{data}/")) and not any(char.isspace() for char in text):
        return "file://" + _filled(key, text, fill)
    return _url(key, text, fill)


def _filled(key: str, text: str, fill: Mapping[str, str], *, keep_arch: bool = False) -> str:
    """The text with `{name}` replaced. `{arch}` stays for the worker, where one value is for all arches."""
    known = {**fill, "arch": "{arch}"} if keep_arch else fill

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in known:
            raise Invalid(key, f"{{{name}}} in {text!r} is not a variable here; known are {_listed(sorted(known))}")
        return known[name]

    return _VARIABLE.sub(value, _text(key, text))


def _text(key: str, text: str) -> str:
    """The text itself. A control character in it could add lines to the configuration of dnf or mock."""
    if not text.isprintable():
        raise Invalid(key, f"{text!r} has a character that is not printable; only plain text on one line is allowed")
    return text


def _explained(message: str, document: Mapping[str, Any]) -> Invalid:
    """msgspec's words, as key, value and what is allowed. They end with "- at `$.repositories[0].name`"."""
    why, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    general = re.sub(r"\[\d+\]|\[\.\.\.\]", "[]", path)
    if "unknown field" in why and general in _TABLES:
        unknown = sorted(set(_at(document, path)) - set(_TABLES[general].__struct_fields__))
        shown = ", ".join(repr(key) for key in unknown)
        return Invalid(path, f"{shown} is not a key here; known are {_listed(_TABLES[general].__struct_fields__)}")
    if "missing required field" in why:
        return Invalid(path, f"the key {why.rpartition(' ')[2].replace('`', '')} is missing")
    if general in _CHOICES:
        return Invalid(path, f"{_at(document, path)!r} is not one of {_listed(_CHOICES[general])}")
    return Invalid(path, f"{_at(document, path)!r} is not right: {why[:1].lower()}{why[1:].replace('`', '')}")


def _at(document: Any, path: str) -> Any:
    """The value at a path like `repositories[0].name`; None where it leads nowhere."""
    for step in re.findall(r"\w+", path):
        try:
            document = document[int(step)] if isinstance(document, list) else document[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return document


def _listed(words: Any) -> str:
    return ", ".join(str(word) for word in words)
