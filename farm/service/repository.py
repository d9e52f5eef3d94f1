"""A repository as a client installs from it: addresses, .repo file, dnf command, versions and rollback."""

import platform
import shlex
from dataclasses import dataclass
from enum import StrEnum

from farm.config import Settings
from farm.errors import BadRequest, NotFound
from farm.model.arch import Arch
from farm.repositories import (
    RepositoryBackend,
    RepositoryCheck,
    RepositoryKind,
    RepositoryName,
    RepositoryVersion,
    open_repositories,
)
from farm.targets.load import find_target, pick_arches


class PackageKind(StrEnum):
    """The kind of a target's package repository, as it stands in its path."""

    OS = "os"
    DEBUG = "debug"
    SOURCE = "source"

    @property
    def of_back_end(self) -> RepositoryKind:
        match self:
            case PackageKind.OS:
                return RepositoryKind.BINARY
            case PackageKind.DEBUG:
                return RepositoryKind.DEBUG
            case PackageKind.SOURCE:
                return RepositoryKind.SOURCE


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """The versions that clients get `after` and got `before`; both are the same if nothing had to change."""

    path: str
    arch: Arch | None
    to: int
    before: RepositoryVersion
    after: RepositoryVersion

    @property
    def has_changed(self) -> bool:
        return self.before.number != self.after.number


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The packages built for one target and arch. The URLs always lead to the newest version.

    `version` is the number of the binary repository's newest version; 0 is the empty repository.
    """

    target: str
    arch: Arch
    baseurl: str
    debug_url: str
    source_url: str
    version: int

    def __str__(self) -> str:
        return self.baseurl

    @property
    def id(self) -> str:
        return f"farm-{self.target}"

    @property
    def repo_file(self) -> str:
        """A file for /etc/yum.repos.d; it has debuginfo and sources too, disabled."""
        parts = [("", "", self.baseurl, 1), ("-debug", " debuginfo", self.debug_url, 0)]
        parts.append(("-source", " sources", self.source_url, 0))
        sections = [
            f"[{self.id}{suffix}]\nname={self.target}{words} ({self.arch}) from the farm\nbaseurl={url}\n"
            f"enabled={enabled}\ngpgcheck=0\nmetadata_expire=1\n"
            for suffix, words, url, enabled in parts
        ]
        return "\n".join(sections)

    def dnf_command(self, package: str = "PACKAGE") -> str:
        """The command that installs from this repository without a .repo file."""
        where = shlex.quote(f"--repofrompath={self.id},{self.baseurl}")
        return f"dnf {where} --setopt={self.id}.gpgcheck=0 install {shlex.quote(package)}"


def describe(settings: Settings, target: str, arch: str | Arch | None) -> Repository:
    """Raises UnknownTarget, UnknownArch; RepositoryTrouble when the back end does not answer."""
    backend = open_repositories(settings)
    arch = _arch_of(settings, target, arch)
    binary = RepositoryName(target=target, kind=RepositoryKind.BINARY, arch=arch)
    debug = RepositoryName(target=target, kind=RepositoryKind.DEBUG, arch=arch)
    source = RepositoryName(target=target, kind=RepositoryKind.SOURCE)
    return Repository(
        target=target,
        arch=arch,
        baseurl=backend.url(binary),
        debug_url=backend.url(debug),
        source_url=backend.url(source),
        version=backend.current(binary),
    )


def _arch_of(settings: Settings, target: str, arch: str | Arch | None) -> Arch:
    """This machine's when None, if the target has it. Raises UnknownTarget, UnknownArch."""
    found = find_target(settings, target)
    if arch is None:
        arch = platform.machine() if platform.machine() in found.arches else found.arches[0]
    return pick_arches(found, [arch])[0]


def named(settings: Settings, target: str, arch: str | Arch | None, kind: str) -> RepositoryName:
    """One of a target's repositories; that of sources is the same for every arch.

    Raises UnknownTarget, UnknownArch, BadRequest for an unknown kind.
    """
    found = _arch_of(settings, target, arch)
    try:
        package_kind = PackageKind(kind)
    except ValueError as error:
        raise BadRequest(f"{kind!r} is not a kind of repository; the kinds are {', '.join(PackageKind)}") from error
    is_for_all = package_kind is PackageKind.SOURCE
    return RepositoryName(target=target, kind=package_kind.of_back_end, arch=None if is_for_all else found)


def pick_version(name: RepositoryName, versions: tuple[RepositoryVersion, ...], number: int) -> RepositoryVersion:
    """Raises NotFound for a version that is not kept; the message lists the kept ones."""
    for version in versions:
        if version.number == number:
            return version
    kept = ", ".join(str(version.number) for version in versions) or "none"
    raise NotFound(f"repository {name.path} has no version {number}; kept are {kept}")


def current_of(versions: tuple[RepositoryVersion, ...]) -> RepositoryVersion | None:
    return next((version for version in versions if version.is_current), None)


def roll_back(backend: RepositoryBackend, name: RepositoryName, to: int) -> Rollback:
    """Raises NotFound for a version that is not kept, RepositoryTrouble."""
    versions = backend.versions(name)
    wanted = pick_version(name, versions, to)
    number = backend.rollback(name, to)
    after = pick_version(name, backend.versions(name), number)
    return Rollback(path=name.path, arch=name.arch, to=to, before=current_of(versions) or wanted, after=after)


def check_repositories(settings: Settings) -> tuple[RepositoryCheck, ...]:
    """Check from this host the back end that the settings name. It works without a running farm."""
    return open_repositories(settings).check()
