"""A target: distribution, release, repositories to build against, package format."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from farm.model.arch import Arch

#: A target's name is a folder's name in several places, so it is never a path.
TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class EngineName(StrEnum):
    NATIVE = "native"
    MOCK = "mock"


@dataclass(frozen=True, kw_only=True)
class RepositorySource:
    """A repository from which build roots are filled. `{arch}` in a URL is RPM's spelling of the arch.

    Exactly one of `baseurl`, `metalink`, `mirrorlist`, `target`; the last is the farm's own repository for a target,
    and `Target.pinned` makes a `baseurl` of it. `gpgkey` is a URL or path; without it packages are not checked, which
    targets must ask for with `gpgcheck = false`. With `includes` only packages of these names are taken from it.
    """

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
    includes: tuple[str, ...] = ()

    def url_for(self, arch: Arch) -> str:
        """The address that is set of `baseurl`, `metalink` and `mirrorlist`, with `{arch}` filled in."""
        return (self.baseurl or self.metalink or self.mirrorlist or "").replace("{arch}", arch.rpm)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one step. Zero is not "no limit"; every step has all of them."""

    wall_s: int = 6 * 3600
    silence_s: int = 3600
    log_bytes: int = 256 * 2**20
    memory_bytes: int = 16 * 2**30
    disk_bytes: int = 64 * 2**30
    files: int = 1_000_000
    processes: int = 4096
    results: int = 20_000
    metadata_bytes: int = 128 * 2**20


#: The metadata that one upload may bring to a repository, whatever a target says: a publisher's memory takes so
#: much.
METADATA_MAX_BYTES = 256 * 2**20
_DAY_S = 24 * 3600
#: The range of each limit, both ends included. The farm's own tools in the sandbox need the minimum. A value above the
#: maximum is too large for a kernel (processes), or a typing mistake.
LIMIT_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "wall_s": (1, 7 * _DAY_S),
        "silence_s": (1, 7 * _DAY_S),
        "log_bytes": (2**10, 2**50),
        "memory_bytes": (2**24, 2**50),
        "disk_bytes": (2**20, 2**50),
        "files": (100, 50_000_000),
        "processes": (16, 2**22),
        "results": (1, 20_000),
        "metadata_bytes": (2**16, METADATA_MAX_BYTES),
    }
)


@dataclass(frozen=True, kw_only=True)
class OwnLimits:
    """Limits of a package or a build; None for a limit that it does not set, so that the target's limit holds."""

    wall_s: int | None = None
    silence_s: int | None = None
    log_bytes: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    files: int | None = None
    processes: int | None = None
    results: int | None = None
    metadata_bytes: int | None = None

    @property
    def given(self) -> dict[str, int]:
        """The limits that are not None, by name."""
        return {name: value for name in LIMIT_RANGES if (value := getattr(self, name)) is not None}

    def over(self, limits: Limits) -> Limits:
        """These limits, completed by the others."""
        if self == _NO_LIMITS:  # nearly always
            return limits
        given = self.given
        return replace(limits, **given) if given else limits


_NO_LIMITS = OwnLimits()


@dataclass(frozen=True, kw_only=True)
class PackageLimits:
    """Limits of some of a target's packages. `packages` are names of source packages, or patterns with `*`, `?` and
    `[…]`, such as `python3-*`."""

    packages: tuple[str, ...]
    limits: OwnLimits

    def is_for(self, package: str) -> bool:
        return any(fnmatchcase(package, pattern) for pattern in self.packages)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The distribution for which packages are built. Every build root starts with `packages`. `table` is what only the
    target's package format knows: JSON, which the format reads and has checked. `keep_versions` is the number of kept
    versions of each of the target's own repositories, at least two. `user_namespaces` lets builds make user namespaces.
    `fetch` may connect to `allow_networks` although they are not public.
    """

    name: str
    distribution: str
    release: str
    format: str = "rpm"
    engine: EngineName = EngineName.NATIVE
    arches: tuple[Arch, ...]
    repositories: tuple[RepositorySource, ...]
    packages: tuple[str, ...]
    table: Mapping[str, Any] = field(default_factory=dict)
    allow_networks: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    package_limits: tuple[PackageLimits, ...] = ()
    keep_versions: int = 20
    user_namespaces: bool = False

    def pinned(self, url_of: Callable[[str], str | None]) -> "Target":
        """The target with an address for each repository that the farm itself fills: `url_of` of that target's name. A
        repository without an address is empty, and is left out.
        """
        if all(source.target is None for source in self.repositories):
            return self
        sources = []
        for source in self.repositories:
            if source.target is None:
                sources.append(source)
            elif url := url_of(source.target):
                sources.append(replace(source, baseurl=url, target=None))
        return replace(self, repositories=tuple(sources))

    def limits_for(self, package: str) -> Limits:
        """The target's limits, replaced by those of the first table that matches the package; later tables do not
        count.
        """
        own = next((one.limits for one in self.package_limits if one.is_for(package)), _NO_LIMITS)
        return own.over(self.limits)

    def repositories_for(self, arch: Arch) -> tuple[RepositorySource, ...]:
        """The repositories with packages for the arch; a repository that names no arches has packages for all."""
        return tuple(source for source in self.repositories if not source.arches or arch in source.arches)
