"""What a person needs to install from one of the farm's repositories."""

import shlex
from dataclasses import dataclass

from farm.config import Settings
from farm.model.arch import Arch
from farm.repositories import RepositoryKind, RepositoryName, open_repositories


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


def describe(settings: Settings, target: str, arch: Arch) -> Repository:
    """Raises RepositoryTrouble when the back end does not answer."""
    backend = open_repositories(settings)
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
