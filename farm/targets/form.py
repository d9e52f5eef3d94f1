"""The form of a target's file, and every check on it: makes a `Target` from a TOML document.

farm/targets/load.py finds the files. docs/targets.md describes each key.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from farm.formats.base import Format
from farm.formats.registry import format_of, names
from farm.formats.tables import Invalid, convert, filled, listed, text, url
from farm.model.arch import Arch
from farm.model.target import (
    LIMIT_RANGES,
    EngineName,
    Limits,
    OwnLimits,
    PackageLimits,
    RepositorySource,
    Target,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_URLS = ("baseurl", "metalink", "mirrorlist")
_ADDRESSES = (*_URLS, "target")


_Release = Annotated[
    str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", description="a release, such as 9 or 10.1")
]
_RepositoryName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.:-]*\Z",
        description="a repository's name, which is [A-Za-z0-9][A-Za-z0-9_.:-]*",
    ),
]
_Package = Annotated[
    str, msgspec.Meta(pattern=r"\A[@A-Za-z0-9/_]\S*\Z", description="a package's name, a path, or @group")
]
_Pattern = Annotated[
    str,
    msgspec.Meta(pattern=r"\A[A-Za-z0-9._+~*?\[\]!-]+\Z", description="a package's name, nor one with *, ? or [...]"),
]
_Arches = Annotated[tuple[Arch, ...], msgspec.Meta(min_length=1, description=f"at least one of {listed(Arch)}")]
_Packages = Annotated[
    tuple[_Package, ...],
    msgspec.Meta(min_length=1, description="the packages that every build root starts with, such as rpm-build"),
]
_Patterns = Annotated[
    tuple[_Pattern, ...],
    msgspec.Meta(min_length=1, description="the source packages, such as kernel or python3-*"),
]
_Kept = Annotated[
    int,
    msgspec.Meta(
        ge=2,
        le=1000,
        description="between 2 and 1000: with fewer than two, clients would meet a repository whose files are just "
        "being replaced",
    ),
]


class _Repository(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: _RepositoryName
    baseurl: str | None = None
    metalink: str | None = None
    mirrorlist: str | None = None
    target: str | None = None
    gpgkey: str | None = None
    gpgcheck: bool = True
    priority: int = 99
    arches: tuple[Arch, ...] = ()
    module_hotfixes: bool = False


class _Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    wall_s: int = Limits.wall_s
    silence_s: int = Limits.silence_s
    log_bytes: int = Limits.log_bytes
    memory_bytes: int = Limits.memory_bytes
    disk_bytes: int = Limits.disk_bytes
    files: int = Limits.files
    processes: int = Limits.processes
    results: int = Limits.results
    metadata_bytes: int = Limits.metadata_bytes


class _PackageLimits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    packages: _Patterns
    wall_s: int | None = None
    silence_s: int | None = None
    log_bytes: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    files: int | None = None
    processes: int | None = None
    results: int | None = None
    metadata_bytes: int | None = None


class _Retention(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    versions: _Kept = Target.keep_versions


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    distribution: str
    release: _Release
    format: str = Target.format
    engine: EngineName = EngineName.NATIVE
    arches: _Arches
    packages: _Packages
    user_namespaces: bool = False
    repositories: tuple[_Repository, ...]
    allow_networks: tuple[str, ...] = ()
    limits: _Limits = msgspec.field(default_factory=_Limits)
    package_limits: tuple[_PackageLimits, ...] = ()
    retention: _Retention = msgspec.field(default_factory=_Retention)


def to_target(name: str, document: Mapping[str, Any], variables: Mapping[str, str]) -> Target:
    """The target that the document describes, with `{…}` filled in from `variables` and `{release}`.

    Raises Invalid for the first mistake.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("", f"a target's name, which its file gives it, is {_NAME.pattern}; {name!r} is not")
    form = _format_of(document)
    common, own = _parted(document, form)
    file = convert(common, _File)
    _check_root(file)
    _check_limits("limits", msgspec.structs.asdict(file.limits))
    fill = {**variables, "release": file.release}
    return Target(
        name=name,
        distribution=text("distribution", file.distribution),
        release=file.release,
        format=file.format,
        engine=file.engine,
        arches=file.arches,
        repositories=_repositories(file, fill),
        packages=file.packages,
        table=_own_table(own, file, form, document, fill),
        user_namespaces=file.user_namespaces,
        allow_networks=tuple(
            _network(f"allow_networks[{index}]", one) for index, one in enumerate(file.allow_networks)
        ),
        limits=Limits(**msgspec.structs.asdict(file.limits)),
        package_limits=tuple(
            _package_limits(f"package_limits[{index}]", one) for index, one in enumerate(file.package_limits)
        ),
        keep_versions=file.retention.versions,
    )


def _format_of(document: Mapping[str, Any]) -> Format:
    name = document.get("format", Target.format)
    if name not in names():
        raise Invalid("format", f"{name!r} is not one of {listed(names())}")
    return format_of(name)


def _parted(document: Mapping[str, Any], form: Format) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of all formats, and the table of the format's own. Older files have keys of that table at the top."""
    own = document.get(form.name, {})
    if not isinstance(own, dict):
        raise Invalid(form.name, f"{own!r} is not a table; write [{form.name}]")
    old = {key: document[key] for key in form.top_keys if key in document}
    if twice := sorted(old.keys() & own.keys()):
        raise Invalid(twice[0], f"stands in [{form.name}] too; leave it there, and remove it here")
    common = {key: value for key, value in document.items() if key not in old and key != form.name}
    return common, {**own, **old}


def _own_table(
    own: Mapping[str, Any], file: _File, form: Format, document: Mapping[str, Any], fill: Mapping[str, str]
) -> Mapping[str, Any]:
    try:
        return form.read_table(own, file.engine, fill)
    except Invalid as error:
        # The message names the key with its place in the file.
        top = re.split(r"[.\[]", error.key)[0]
        is_at_top = top in document or not (top or document.get(form.name))
        raise Invalid(error.key if is_at_top else f"{form.name}.{error.key}".rstrip("."), error.why) from error


def _check_root(file: _File) -> None:
    """The parts of a build root, besides its repositories."""
    _check_arches("arches", file.arches)
    for index, package in enumerate(file.packages):
        text(f"packages[{index}]", package)


def _check_arches(key: str, arches: tuple[Arch, ...]) -> None:
    if len(set(arches)) != len(arches):
        raise Invalid(key, f"{listed(arches)} names an arch twice")


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
    values = msgspec.structs.asdict(one)
    values.pop("packages")
    limits = OwnLimits(**values)
    if not limits.given:
        raise Invalid(key, f"has no limit; give at least one of {listed(LIMIT_RANGES)}")
    _check_limits(key, limits.given)
    return PackageLimits(packages=one.packages, limits=limits)


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
    given = [address for address in _ADDRESSES if getattr(one, address) is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "there is no address"
        raise Invalid(key, f"repository {one.name!r}: {said}; give exactly one of {', '.join(_ADDRESSES)}")
    if one.gpgcheck and one.gpgkey is None:
        raise Invalid(key, f"repository {one.name!r} has no gpgkey to check packages with; add it, or gpgcheck = false")
    _check_arches(f"{key}.arches", one.arches)
    for arch in one.arches:
        if arch not in file.arches:
            raise Invalid(f"{key}.arches", f"{arch} is not one of the target's arches, {listed(file.arches)}")
    if one.target is not None and not _NAME.fullmatch(one.target):
        raise Invalid(f"{key}.target", f"{one.target!r} is not a target's name, which is {_NAME.pattern}")
    urls = [address for address in given if address in _URLS]
    addresses = {address: url(f"{key}.{address}", getattr(one, address), fill, keep_arch=True) for address in urls}
    return RepositorySource(
        name=one.name,
        target=one.target,
        gpgkey=None if one.gpgkey is None else _key_address(f"{key}.gpgkey", one.gpgkey, fill),
        gpgcheck=one.gpgcheck,
        priority=one.priority,
        arches=one.arches,
        module_hotfixes=one.module_hotfixes,
        includes=(),  # for the farm's own repositories alone
        **addresses,
    )


def _network(key: str, given: str) -> str:
    try:
        return str(ipaddress.ip_network(given))
    except ValueError as error:
        raise Invalid(key, f"{given!r} is not a network, such as 10.0.0.0/8 or fd00::/8: {error}") from error


def _key_address(key: str, given: str, fill: Mapping[str, str]) -> str:
    if given.startswith(("/", "{data}/")) and not any(char.isspace() for char in given):
        return "file://" + filled(key, given, fill)
    return url(key, given, fill)
