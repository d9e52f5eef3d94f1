"""A private apt: its own state, cache and configuration in one directory, the host's Debian mirror and keyrings.

Owns the resolution and the download; apt itself verifies signatures and checksums. The host's apt is not changed.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.aptsources import COMPONENT, host_codename, host_sources, render
from deploy.demo.commands import lines, run
from deploy.demo.errors import DemoError
from farm.model.arch import Arch

# `apt-get --print-uris` prints: 'uri' file-name size hash
URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+)")
FETCHED = re.compile(r"^Get:\d+ \S+ .*? (?P<name>\S+) \S+ \S+ \[.*\]$")
# Only the options that reach a mirror are taken from the host's configuration; its hooks may delete the host's caches.
HOST_OPTIONS = re.compile(r'^Acquire::(?:https?|ftp|Retries|AllowReleaseInfoChange)\b.*"[^"]*";$', re.IGNORECASE)
PROBLEM = re.compile(r"^(?:E:|Err:|W: (?:Failed to fetch|GPG error|.*could not be verified))")
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that apt would fetch."""

    file_name: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Apt:
    """apt with everything it owns below `root`, for one architecture."""

    root: Path
    arch: Arch
    present: tuple[str, ...] = ()

    @property
    def archives(self) -> Path:
        return self.root / "archives"

    def update(self, progress: Progress) -> None:
        """Write the configuration and update the indexes. Raises DemoError if there is no index at all.

        If only some indexes are unreachable, apt goes on with the others, with their signatures checked as always.
        """
        self._configure()
        progress(f"apt: package indexes of {self.arch.value}")
        try:
            said = "\n".join(line for line in lines(self._argv("update"), env=self._env) if PROBLEM.match(line))
        except DemoError as error:
            said = str(error)
        if not any((self.root / "state" / "lists").glob(f"*_dists_{host_codename()}_{COMPONENT}_*")):
            raise DemoError(f"apt got no package index; check the network and the mirrors in /etc/apt:\n{said}")
        if said:
            progress(f"apt: not every index is today's, going on with the rest:\n{said}")

    def closure(self, names: Sequence[str]) -> tuple[Download, ...]:
        """The packages apt would install for these names on an empty system, sorted by file name."""
        nowhere = self.root / "nothing"
        (nowhere / "partial").mkdir(parents=True, exist_ok=True)
        argv = self._argv("install", "--print-uris", "-o", f"Dir::Cache::archives={nowhere}", *names)
        printed = run(argv, env=self._env)
        found = (URI_LINE.match(line) for line in printed.splitlines())
        files = {each["name"]: Download(file_name=each["name"], size_bytes=int(each["size"])) for each in found if each}
        return tuple(files[name] for name in sorted(files))

    def download(self, names: Sequence[str], progress: Progress) -> None:
        """Fetch the closure into `archives`; complete files there are kept."""
        for line in lines(self._argv("install", "--download-only", *names), env=self._env):
            if found := FETCHED.match(line):
                progress(found["name"])

    def download_source(self, name: str, destination: Path) -> tuple[Path, ...]:
        """Fetch a source package's files, checked by apt; returns the upstream tarballs among them."""
        destination.mkdir(parents=True, exist_ok=True)
        run(self._argv("source", "--download-only", "--only-source", name), cwd=destination, env=self._env)
        tarballs = tuple(path for path in sorted(destination.glob(f"{name}_*.orig.tar.*")) if path.suffix != ".asc")
        if not tarballs:
            raise DemoError(f"Debian's source package {name} has no .orig tarball: choose another package")
        return tarballs

    def _configure(self) -> None:
        codename = host_codename()
        state = self.root / "state"
        for path in (state / "lists" / "partial", self.archives / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        (self.root / "sources.sources").write_text(render(host_sources(codename), arch=self.arch.debian))
        (state / "status").write_text("".join(_installed(name, self.arch) for name in self.present))
        (self.root / "apt.conf").write_text("\n".join((*self._options(), *_host_options(), "")))

    def _options(self) -> Iterable[str]:
        # The file is read before the host's own configuration directory, so pointing that elsewhere keeps it out.
        values = {
            "APT::Architecture": self.arch.debian,
            "APT::Architectures": self.arch.debian,
            "APT::Get::Assume-Yes": "true",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Dir::Cache": str(self.root),
            "Dir::Cache::archives": str(self.archives),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": str(self.root / "sources.sources"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": str(self.root / "state"),
            "Dir::State::status": str(self.root / "state" / "status"),
            "pkgCacheGen::ForceEssential": "none",
        }
        return (f'{key} "{value}";' for key, value in values.items())

    def _argv(self, *arguments: str) -> tuple[str, ...]:
        return ("apt-get", "--quiet=1", *arguments)

    @property
    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.root / "apt.conf")}


def _installed(name: str, arch: Arch) -> str:
    fields = ("Status: install ok installed", "Version: 9999", f"Architecture: {arch.debian}", "Multi-Arch: foreign")
    return "\n".join((f"Package: {name}", *fields, "Maintainer: none", "Description: none", "", ""))


def _host_options() -> tuple[str, ...]:
    return tuple(line for line in run(["apt-config", "dump"]).splitlines() if HOST_OPTIONS.match(line))
