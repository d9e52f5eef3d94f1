"""dnf on the host: its configuration for a target, and what its words mean. Text in, text and verdicts out.

Owns: the configuration file, the macro file, the spec that names what is wanted, and telling a missing package from a
missing mirror. Does not own the sandbox in which dnf runs, which is `workers.buildroot.filling`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.errors import DiskFull, NetworkTrouble, RootTrouble, Trouble
from farm.model.arch import Arch
from farm.model.target import RepositorySource, Target

_REASON_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class DnfRepository:
    """One section of the configuration, its URLs filled in."""

    name: str
    options: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path | None:
        """The folder behind a file:// repository."""
        for key, value in self.options:
            if key == "baseurl" and urlsplit(value).scheme == "file":
                return Path(unquote(urlsplit(value).path))
        return None

    @property
    def is_local(self) -> bool:
        return self.folder is not None


class Missing(StrEnum):
    """What dnf said when it did not install."""

    PACKAGE = "package"
    NETWORK = "network"
    DISK = "disk"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    missing: Missing
    reason: str

    def trouble(self) -> Trouble:
        """For when the package that is built has no part in it."""
        match self.missing:
            case Missing.NETWORK:
                return NetworkTrouble(f"dnf cannot reach a repository: {self.reason}")
            case Missing.DISK:
                return DiskFull(f"no space left to fill a build root: {self.reason}")
            case Missing.PACKAGE | Missing.OTHER:
                return RootTrouble(f"dnf cannot fill the build root: {self.reason}")


def target_repositories(target: Target, arch: Arch) -> tuple[DnfRepository, ...]:
    return tuple(
        _repository(source, arch) for source in target.repositories if not source.arches or arch in source.arches
    )


def pinned_repositories(repositories: Sequence[tuple[str, str]]) -> tuple[DnfRepository, ...]:
    """The farm's own, by (name, URL). They win over the target's: what was built here is what is to be built with."""
    return tuple(
        DnfRepository(
            name=_word(name),
            options=(("baseurl", _line(url)), ("gpgcheck", "0"), ("priority", "10"), ("metadata_expire", "-1")),
        )
        for name, url in repositories
    )


def configuration(target: Target, repositories: Sequence[DnfRepository]) -> str:
    """A whole dnf.conf: nothing of the host's own configuration is read."""
    main = {
        "assumeyes": "1",
        "best": "1",
        "install_weak_deps": "0",
        "tsflags": "nodocs",
        "keepcache": "1",
        "plugins": "1",
        "reposdir": "/dev/null",
        "varsdir": "/dev/null",
        "gpgcheck": "1",
        "skip_if_unavailable": "0",
        "protected_packages": "",
        "history_record": "0",
        "retries": "3",
        "timeout": "30",
        "max_parallel_downloads": "8",
        "metadata_expire": "3600",
        "cachedir": "/var/cache/dnf",
        "system_cachedir": "/var/cache/dnf",
    }
    if target.module_platform:
        main["module_platform_id"] = _line(target.module_platform)
    sections = [("main", tuple(main.items())), *((one.name, one.options) for one in repositories)]
    return "\n".join(
        f"[{name}]\nname={name}\n" + "".join(f"{key}={value}\n" for key, value in keys) for name, keys in sections
    )


def host_macros(target: Target) -> str:
    """Macros for the host's rpm while it fills a root. Debian's own puts the database into the home folder."""
    return f"%_dbpath {_line(target.rpmdb)}\n%_netsharedpath /sys:/proc:/dev\n"


def wanted_spec(requirements: Sequence[str]) -> str:
    """A spec whose BuildRequires are these, for `dnf builddep`: the one command that takes rich dependencies, too.

    Raises ValueError for one that is not a single printable line. Nothing in them is expanded.
    """
    lines = ["Name: wanted", "Version: 1", "Release: 1", "Summary: wanted", "License: none"]
    for requirement in requirements:
        if not requirement.isprintable() or not requirement.strip():
            raise ValueError(f"BuildRequires {requirement!r} is not a printable line")
        lines.append("BuildRequires: " + requirement.replace("%", "%%"))
    return "\n".join([*lines, "%description", ""])


_NOTHING = (
    re.compile(r"No matching package to install: '(?P<what>[^\n]{1,300})'"),
    re.compile(r"nothing provides (?P<what>[^\n]{1,300}?) needed by [^\n]{1,300}"),
    re.compile(r"No match for argument: (?P<what>[^\n]{1,300})"),
)
_PROBLEM = re.compile(r"^ *(?:Problem(?: \d+)?: |- )(?P<what>[^\n]{1,300})", re.MULTILINE)
_NETWORK = re.compile(
    r"Failed to download metadata|Cannot download|Error downloading packages|No more mirrors to try|Curl error"
    r"|Status code: [45]\d\d|All mirrors were tried|Cannot prepare internal mirrorlist|repomd\.xml"
)
_DISK = re.compile(r"No space left on device|more space needed on the|needs? \d+[KMGT]?B? (?:more )?(?:space )?on the")
_ERROR = re.compile(r"^(?:Error|error)[:(]? ?(?P<what>[^\n]{1,300})", re.MULTILINE)


def verdict(output: bytes) -> Verdict:
    """What the last of dnf's output says, dnf 4.14's words and dnf 5's. The disk and the network come first, since
    without them dnf finds nothing either."""
    text = output.decode(errors="backslashreplace")
    if found := _DISK.search(text):
        return Verdict(missing=Missing.DISK, reason=_shown(_line_of(text, found)))
    if found := _NETWORK.search(text):
        return Verdict(missing=Missing.NETWORK, reason=_shown(_line_of(text, found)))
    nothing = list(dict.fromkeys(found["what"] for pattern in _NOTHING for found in pattern.finditer(text)))
    if nothing:
        return Verdict(missing=Missing.PACKAGE, reason=_shown("nothing provides " + ", ".join(nothing)))
    if found := _PROBLEM.search(text):
        return Verdict(missing=Missing.PACKAGE, reason=_shown(found["what"]))
    errors = [found["what"] for found in _ERROR.finditer(text)]
    return Verdict(missing=Missing.OTHER, reason=_shown(errors[-1] if errors else "it did not say why"))


def _repository(source: RepositorySource, arch: Arch) -> DnfRepository:
    options = [
        (key, _line(value.replace("{arch}", arch.rpm)))
        for key, value in (
            ("baseurl", source.baseurl),
            ("metalink", source.metalink),
            ("mirrorlist", source.mirrorlist),
            ("gpgkey", source.gpgkey),
        )
        if value
    ]
    options += [("gpgcheck", str(int(source.gpgcheck))), ("priority", str(source.priority))]
    if source.module_hotfixes:
        options.append(("module_hotfixes", "1"))
    if urlsplit(dict(options).get("baseurl", "")).scheme == "file":
        options.append(("metadata_expire", "0"))
    return DnfRepository(name=_word(source.name), options=tuple(options))


def _line(value: str) -> str:
    if not value.isprintable():
        raise RootTrouble(f"{value!r} cannot stand in dnf's configuration; correct the target")
    return value


def _word(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", name) or name == "main":
        raise RootTrouble(f"{name!r} is not a name for a repository; use letters, digits and _.:-")
    return name


def _line_of(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[start : end if end >= 0 else len(text)]


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)[:_REASON_CHARS]
