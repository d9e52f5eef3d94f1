"""RPM as a `Format`."""

from collections.abc import Mapping, Sequence
from typing import Any

from farm.formats.base import ArchRules, Clients, Identity
from farm.formats.index import Index
from farm.formats.rpm import arches, clients, options, rpmfile, settings
from farm.formats.rpm.rpmfile import Lead
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.nevra import Nevra
from farm.model.target import EngineName

_DEBUG = ("-debuginfo", "-debugsource")
_SOURCE = ("src", "nosrc")


class RpmFormat:
    """A `Format`. An identity is a NEVRA, a recipe a spec, a source package a src.rpm."""

    name = "rpm"
    independent = "noarch"
    suffix = ".rpm"
    head_bytes = rpmfile.LEAD_BYTES
    top_keys = settings.OLD_KEYS

    @property
    def index(self) -> Index:
        # createrepo_c takes long to import, and only what publishes needs it.
        from farm.formats.rpm.index import RpmIndex

        return RpmIndex()

    def spell(self, arch: Arch) -> str:
        return arch.rpm

    def parse_identity(self, text: str) -> Identity:
        return identity_of(Nevra.parse(text))

    def recipe_problem(self, name: str) -> str | None:
        return None if name.endswith(".spec") else "does not end in .spec; name the spec file, relative to the tree"

    def excluded(self, arch: Arch, rules: ArchRules) -> str | None:
        return arches.excluded(arch, rules)

    def source_problem(self, head: bytes, size_bytes: int) -> str | None:
        match rpmfile.read_lead(head):
            case Lead.SOURCE:
                return None
            case Lead.BINARY:
                return "is a binary RPM, not a src.rpm; give the src.rpm that it was built from"
            case Lead.TRUNCATED:
                return f"is truncated: it has {size_bytes} bytes; get it again"
            case Lead.OLD | Lead.FOREIGN:
                return "is not an RPM package; give a src.rpm, such as `rpmbuild -bs` makes"

    def check_options(self, given: BuildOptions) -> None:
        options.check_options(given)

    def read_table(self, table: Mapping[str, Any], engine: EngineName, fill: Mapping[str, str]) -> Mapping[str, Any]:
        return settings.read_table(table, engine, fill)

    def client_file(self, repositories: Clients) -> str:
        return clients.repo_file(repositories)

    def install_command(self, repositories: Clients, package: str) -> Sequence[str]:
        return clients.install_command(repositories, package)


def identity_of(nevra: Nevra) -> Identity:
    return Identity(
        text=str(nevra),
        name=nevra.name,
        arch=nevra.arch,
        filename=nevra.filename,
        is_source=nevra.arch in _SOURCE,
        is_debug=_is_debug(nevra.name),
    )


def _is_debug(name: str) -> bool:
    """By name, as pungi and koji tell them. The middle forms are the kernel's `-debuginfo-common-<arch>` and such."""
    return name.endswith(_DEBUG) or any(f"{word}-" in name for word in _DEBUG)
