"""The format `tar` as a `Format`."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from farm.errors import BadRequest
from farm.formats.base import ArchRules, Clients, Identity
from farm.formats.tables import Invalid
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.target import EngineName
from tests.toy_tar.index import TarIndex

MANIFEST = "manifest.json"
_IDENTITY = re.compile(r"(?P<name>[a-z0-9-]+)_(?P<version>[A-Za-z0-9.]+)_(?P<arch>src|any|x86_64|aarch64|ppc64le)")
_MAGIC_AT = 257


class TarFormat:
    """A `Format`. An identity is `name_version_arch`."""

    name = "tar"
    independent = "any"
    suffix = ".tar"
    index = TarIndex()
    head_bytes = 512
    top_keys: Sequence[str] = ()

    def spell(self, arch: Arch) -> str:
        return arch.value

    def parse_identity(self, text: str) -> Identity:
        found = _IDENTITY.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not name_version_arch")
        return Identity(
            text=text,
            name=found["name"],
            arch=found["arch"],
            filename=f"{text}.tar",
            is_source=found["arch"] == "src",
        )

    def recipe_problem(self, name: str) -> str | None:
        return None if name == MANIFEST else f"is not {MANIFEST}"

    def excluded(self, arch: Arch, rules: ArchRules) -> str | None:
        return f"only for {', '.join(rules.exclusive)}" if rules.exclusive and arch not in rules.exclusive else None

    def source_problem(self, head: bytes, size_bytes: int) -> str | None:
        return None if head[_MAGIC_AT : _MAGIC_AT + 5] == b"ustar" else "is not a tar"

    def check_options(self, options: BuildOptions) -> None:
        if options.with_ or options.without or options.defines:
            raise BadRequest("a tar package has neither --with, --without nor --define; leave them out")

    def read_table(self, table: Mapping[str, Any], engine: EngineName, fill: Mapping[str, str]) -> Mapping[str, Any]:
        if table:
            raise Invalid("", "a tar target has no keys of its own")
        return {}

    def client_file(self, clients: Clients) -> str:
        return "".join(f"{one.url}\n" for one in clients.sections if one.is_enabled)

    def install_command(self, clients: Clients, package: str) -> Sequence[str]:
        return [sys.executable, "-m", "tests.toy_tar.untar", clients.sections[0].url, package]
