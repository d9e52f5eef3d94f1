"""What a person needs to install from one of the farm's repositories, and what became of it when it was rolled back."""

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
    """Which of a target's repositories of packages, in the words of their paths."""

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
    """What clients get `after`, and got `before`; both are one version where there was nothing to change."""

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
        """For /etc/yum.repos.d; debuginfo and sources are there, switched off."""
        parts = [("", "", self.baseurl, 1), ("-debug", " debuginfo", self.debug_url, 0)]
        parts.append(("-source", " sources", self.source_url, 0))
        sections = [
            f"[{self.id}{suffix}]\nname={self.target}{words} ({self.arch}) from the farm\nbaseurl={url}\n"
            f"enabled={enabled}\ngpgcheck=0\nmetadata_expire=1\n"
            for suffix, words, url, enabled in parts
        ]
        return "\n".join(sections)

    def dnf_command(self, package: str = "PACKAGE") -> str:
        """Installs from here without writing a file."""
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

    Raises UnknownTarget, UnknownArch, BadRequest for a kind that there is not.
    """
    found = _arch_of(settings, target, arch)
    try:
        package_kind = PackageKind(kind)
    except ValueError as error:
        raise BadRequest(f"{kind!r} is no kind of repository; there are {', '.join(PackageKind)}") from error
    is_for_all = package_kind is PackageKind.SOURCE
    return RepositoryName(target=target, kind=package_kind.of_back_end, arch=None if is_for_all else found)


def pick_version(name: RepositoryName, versions: tuple[RepositoryVersion, ...], number: int) -> RepositoryVersion:
    """Raises NotFound for a version that is not kept, with those that are."""
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
    """Whether the back end that the settings name can be used from here. Needs no farm that runs."""
    return open_repositories(settings).check()
