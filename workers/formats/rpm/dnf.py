"""The configuration of the host's dnf for a target, as text.

Owns: the configuration file, the macro file, and the spec that names the requirements. Does not own the sandbox in
which dnf runs (`workers.formats.rpm.install`), nor the meaning of its output (`workers.formats.rpm.blame`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from farm.errors import BadRequest, RootTrouble
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.target import RepositorySource, Target

#: The folder of the farm's own dnf plugins in the sandbox.
PLUGINS = "/run/dnf-plugins"
#: A package's name without characters that dnf interprets as a pattern or a separator.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~^-]*")
#: A NEVRA that dnf takes for nothing else, such as an option, a group, a file or a URL.
_EXACT = re.compile(rf"{_PLAIN.pattern}-(?:[0-9]{{1,10}}:)?[A-Za-z0-9._+~^]+-[A-Za-z0-9._+~^]+\.(?!rpm$)[a-z0-9_]+")
_EXACT_CHARS = 1000
_FIRST_PRIORITY = 10
_WORDS_CHARS = 2**20  # half of the length that Linux allows for a command line


@dataclass(frozen=True, kw_only=True)
class DnfRepository:
    """One section of the configuration, its URLs filled in."""

    name: str
    options: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path | None:
        """The folder behind a file:// repository."""
        return _local_path(dict(self.options).get("baseurl"))

    @property
    def key_file(self) -> Path | None:
        """The file behind a file:// key."""
        return _local_path(dict(self.options).get("gpgkey"))

    @property
    def is_local(self) -> bool:
        """Whether its packages and its key are files of this host."""
        key = dict(self.options).get("gpgkey")
        return self.folder is not None and (key is None or self.key_file is not None)


def _local_path(url: str | None) -> Path | None:
    parts = urlsplit(url or "")
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def target_repositories(target: Target, arch: Arch) -> tuple[DnfRepository, ...]:
    return tuple(_repository(source, arch) for source in target.repositories_for(arch))


def pinned_repositories(
    repositories: Sequence[tuple[str, str]], *, without: Sequence[str] = ()
) -> tuple[DnfRepository, ...]:
    """The farm's own repositories, from pairs of name and URL. They have priority over the target's, so that builds use
    packages that the farm built, and each over the later ones.

    The packages of the template, named in `without`, are excluded: otherwise each person who may publish a package
    could replace the shell in all build roots.
    """
    names = sorted({name for name in without if _PLAIN.fullmatch(name)})
    excluded = (("excludepkgs", ",".join(names)),) if names else ()
    return tuple(
        DnfRepository(
            name=_word(name),
            options=(
                *(("baseurl", _line(url)), ("gpgcheck", "0"), ("priority", str(_FIRST_PRIORITY + place))),
                ("metadata_expire", "-1"),
                *excluded,
            ),
        )
        for place, (name, url) in enumerate(repositories)
    )


def exact_words(identities: Sequence[str]) -> list[str]:
    """The words of dnf's command line that name these packages and nothing else. The identities may be of any origin.

    Raises BadRequest for one that is no NEVRA, and for more than a command line takes.
    """
    if sum(map(len, identities)) > _WORDS_CHARS:
        raise BadRequest(
            f"the record of the root names {len(identities)} packages, too many to install; retry the build"
        )
    for text in identities:
        if len(text) > _EXACT_CHARS or not _EXACT.fullmatch(text):
            raise BadRequest(
                f"the record of the root names {text[:_EXACT_CHARS]!a}, which is no package; retry the build"
            )
    return [*identities]


def configuration(
    target: Target, repositories: Sequence[DnfRepository], network: Mapping[str, str] = MappingProxyType({})
) -> str:
    """A complete dnf.conf, so that dnf does not read the host's own configuration. `network` are the options of its
    network, if it has one."""
    main = {
        "assumeyes": "1",
        "best": "1",
        "install_weak_deps": "0",
        "tsflags": "nodocs",
        "keepcache": "1",
        "plugins": "1",
        "pluginpath": ",".join((PLUGINS, *_host_plugins())),
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
        **network,
    }
    if platform := settings_of(target).module_platform:
        main["module_platform_id"] = _line(platform)
    sections = [("main", tuple(main.items())), *((one.name, one.options) for one in repositories)]
    return "\n".join(
        f"[{name}]\nname={name}\n" + "".join(f"{key}={value}\n" for key, value in keys) for name, keys in sections
    )


def host_macros(target: Target) -> str:
    """Macros for the host's rpm while it installs into a root. Debian's rpm has its database in the home folder."""
    return f"%_dbpath {_line(settings_of(target).rpmdb)}\n%_netsharedpath /sys:/proc:/dev\n"


#: The solver expands every combination, and each pair of operators doubles their number.
_RICH = re.compile(r"\b(?:and|or|if|unless|else|with|without)\b")
_RICH_MAX = 12


def wanted_spec(requirements: Sequence[str]) -> str:
    """A spec with these BuildRequires, for `dnf builddep`, the only command that accepts rich dependencies.

    Raises ValueError for a requirement that is not a single printable line. Nothing in them is expanded.
    """
    lines = ["Name: wanted", "Version: 1", "Release: 1", "Summary: wanted", "License: none"]
    for requirement in requirements:
        if not requirement.isprintable() or not requirement.strip():
            raise ValueError(f"BuildRequires {requirement!r} is not a printable line")
        if len(_RICH.findall(requirement)) > _RICH_MAX:
            raise ValueError(f"BuildRequires {requirement[:100]!r}… has more than {_RICH_MAX} operators")
        lines.append("BuildRequires: " + requirement.replace("%", "%%"))
    return "\n".join([*lines, "%description", ""])


def _host_plugins() -> list[str]:
    """The folders of dnf's plugins on Debian and Fedora; builddep is a plugin."""
    found = Path("/usr/lib").glob("python3*/*-packages/dnf-plugins")
    return sorted(_line(str(folder)) for folder in found)


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
    if source.includes:
        options.append(("includepkgs", ",".join(name for name in source.includes if _PLAIN.fullmatch(name))))
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
