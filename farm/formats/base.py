"""The protocol of a package format on the farm's side: values and pure functions, which need no build tool.

A format is a folder beside this file and a line in `farm.formats.registry`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from farm.formats.index import Index
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.target import EngineName


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One package: name, version and arch in the format's spelling. `text` is the whole, unique in a repository.

    `arch` is the format's word for all arches where the package is for all. `is_source` marks a source package, whose
    `arch` is the format's word for that; `is_debug` a package that only debuggers need.
    """

    text: str
    name: str
    arch: str
    filename: str
    is_source: bool = False
    is_debug: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class ArchRules:
    """The arches that a source package is for, in the format's spelling. `is_independent` when one arch builds for
    all."""

    exclusive: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    is_independent: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """One of a target's repositories, for a client's configuration. `suffix` tells it from the others in names, and
    `words` do for people; both are empty for that of the packages to be installed, which alone is enabled."""

    suffix: str
    words: str
    url: str

    @property
    def is_enabled(self) -> bool:
        return not self.suffix


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The repositories of one target and arch, as clients use them. `id` is their name in a configuration."""

    id: str
    target: str
    arch: Arch
    sections: tuple[Section, ...]


class Format(Protocol):
    """One package format."""

    @property
    def name(self) -> str:
        """As Target.format has it."""
        ...

    @property
    def independent(self) -> str:
        """The word for all arches."""
        ...

    @property
    def suffix(self) -> str:
        """The end of the file names of all packages, source packages too."""
        ...

    @property
    def index(self) -> Index:
        """The form of a repository's index. Raises ImportError where a library that it needs cannot be loaded."""
        ...

    @property
    def head_bytes(self) -> int:
        """How much of a source package `source_problem` looks at."""
        ...

    def spell(self, arch: Arch) -> str:
        """The format's word for an arch."""
        ...

    def parse_identity(self, text: str) -> Identity:
        """Raises ValueError for a text that is no identity."""
        ...

    def recipe_problem(self, name: str) -> str | None:
        """Why a file of this name is no recipe, as the end of a sentence that begins with the name; None when it may be
        one."""
        ...

    def excluded(self, arch: Arch, rules: ArchRules) -> str | None:
        """Why a package with these rules is not built on an arch; None when it is."""
        ...

    def source_problem(self, head: bytes, size_bytes: int) -> str | None:
        """Why a file that begins so is no source package, as the end of a sentence that begins with its name; None when
        it may be one."""
        ...

    def check_options(self, options: BuildOptions) -> None:
        """Raises BadRequest for options of a build that the format does not have, naming the option and a remedy."""
        ...

    @property
    def top_keys(self) -> Sequence[str]:
        """The keys of the format's table that older target files have at the top; none for a newer format."""
        ...

    def read_table(self, table: Mapping[str, Any], engine: EngineName, fill: Mapping[str, str]) -> Mapping[str, Any]:
        """`Target.table` from the table of a target's file that bears the format's name, with `{…}` filled in from
        `fill`. Raises Invalid (farm.formats.tables) for the first mistake, whose key begins below the table."""
        ...

    def client_file(self, clients: Clients) -> str:
        """A file with which the package manager knows the repositories."""
        ...

    def install_command(self, clients: Clients, package: str) -> Sequence[str]:
        """The words of a command that installs from the repository without such a file."""
        ...
