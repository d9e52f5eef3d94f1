"""A repository as a client installs from it: addresses, client configuration, versions and rollback."""

import platform
import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from farm.config import Settings
from farm.errors import BadRequest, NotFound
from farm.formats.base import Clients, Section
from farm.formats.registry import format_of
from farm.model.arch import Arch
from farm.model.place import DEFAULT_PROJECT
from farm.model.target import Target
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
    """The packages of a project built for one target and arch. The URLs always lead to the newest version.

    `version` is the number of the binary repository's newest version; 0 is the empty repository.
    """

    target: str
    arch: Arch
    baseurl: str
    debug_url: str
    source_url: str
    version: int
    format: str = Target.format
    project: str = DEFAULT_PROJECT

    def __str__(self) -> str:
        return self.baseurl

    @property
    def id(self) -> str:
        return f"farm-{self.target}" if self.project == DEFAULT_PROJECT else f"farm-{self.project}-{self.target}"

    @property
    def _clients(self) -> Clients:
        sections = (
            Section(suffix="", words="", url=self.baseurl),
            Section(suffix="-debug", words=" debuginfo", url=self.debug_url),
            Section(suffix="-source", words=" sources", url=self.source_url),
        )
        return Clients(id=self.id, target=self.target, arch=self.arch, sections=sections)

    @property
    def repo_file(self) -> str:
        """A file for the package manager's configuration; it has debug packages and sources too, disabled."""
        return format_of(self.format).client_file(self._clients)

    def install_command(self, package: str = "PACKAGE") -> str:
        """The command that installs from this repository without such a file."""
        return shlex.join(format_of(self.format).install_command(self._clients, package))

    def dnf_command(self, package: str = "PACKAGE") -> str:
        """`install_command` by its older name, for scripts."""
        return self.install_command(package)


def describe(settings: Settings, target: str, arch: str | Arch | None, project: str) -> Repository:
    """Raises UnknownTarget, UnknownArch; RepositoryTrouble when the back end does not answer."""
    backend = open_repositories(settings)
    found = find_target(settings, target)
    arch = _arch_of(found, arch)
    own = partial(RepositoryName, project=project, target=target, format=found.format)
    binary = own(kind=RepositoryKind.BINARY, arch=arch)
    debug = own(kind=RepositoryKind.DEBUG, arch=arch)
    source = own(kind=RepositoryKind.SOURCE)
    return Repository(
        target=target,
        arch=arch,
        baseurl=backend.url(binary),
        debug_url=backend.url(debug),
        source_url=backend.url(source),
        version=backend.current(binary),
        format=found.format,
        project=project,
    )


def _arch_of(found: Target, arch: str | Arch | None) -> Arch:
    """This machine's when None, if the target has it. Raises UnknownArch."""
    if arch is None:
        arch = platform.machine() if platform.machine() in found.arches else found.arches[0]
    return pick_arches(found, [arch])[0]


def named(settings: Settings, target: str, arch: str | Arch | None, *, kind: str, project: str) -> RepositoryName:
    """One of a project's repositories for a target; that of sources is the same for every arch.

    Raises UnknownTarget, UnknownArch, BadRequest for an unknown kind.
    """
    found = find_target(settings, target)
    found_arch = _arch_of(found, arch)
    try:
        package_kind = PackageKind(kind)
    except ValueError as error:
        raise BadRequest(f"{kind!r} is not a kind of repository; the kinds are {', '.join(PackageKind)}") from error
    is_for_all = package_kind is PackageKind.SOURCE
    return RepositoryName(
        project=project,
        target=target,
        kind=package_kind.of_back_end,
        arch=None if is_for_all else found_arch,
        format=found.format,
    )


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
