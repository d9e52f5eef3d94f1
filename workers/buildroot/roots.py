"""Templates and layers: what a room is stacked on, made by the host's dnf, kept and found again by what defines them.

Owns their keys, their folders and their lists of packages. A template's folder holds `root`, `list` and `layers`; a
layer's holds `upper` and `list`. What a list says is hostile: the packages in the root may have been built here.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from farm.config import Settings
from farm.errors import NetworkTrouble, RootTrouble
from farm.model.arch import Arch
from farm.model.nevra import Nevra
from farm.model.target import Target
from workers.buildroot.base import RootPackage
from workers.buildroot.capabilities import Capability, Provided
from workers.buildroot.dnf import DnfRepository, pinned_repositories, target_repositories
from workers.buildroot.filling import Filling
from workers.buildroot.hostile import read_list
from workers.buildroot.scratch import alive_folder, attempted
from workers.buildroot.shelf import Shelf
from workers.steps.context import StepContext

#: Raise it when what is done to a new root changes, so that older ones are not used any more.
_VERSION = 3
_KEY_CHARS = 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TEMPLATES_KEPT = 3
_LAYERS_KEPT = 64
_LIST_BYTES = 256 * 2**20
_REPOMD_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a root is made of. `is_sealed` when the build user could write nowhere in it but to /tmp and /var/tmp."""

    packages: tuple[RootPackage, ...]
    provided: Provided
    is_sealed: bool


@dataclass(frozen=True, kw_only=True)
class Root:
    """What a room is stacked on, from the top down, and what is in it."""

    lowers: tuple[Path, ...]
    listing: Listing

    @property
    def as_it_is(self) -> Path | None:
        """The folder that can serve many rooms at once, read-only, without an overlay of their own."""
        return self.lowers[0] if len(self.lowers) == 1 and self.listing.is_sealed else None


def root_of(template: Path) -> Root:
    return Root(lowers=(template / "root",), listing=read_listing(template / "list"))


class Roots:
    """The templates of one target and arch, and their layers."""

    def __init__(self, settings: Settings, target: Target, arch: Arch) -> None:
        self._settings = settings
        self._target = target
        self._arch = arch
        self._shelf = Shelf(shelf_folder(settings, target, arch), keep=_TEMPLATES_KEPT)

    @contextmanager
    def template(self, context: StepContext) -> Iterator[Path]:
        """The template's folder, which stays while it is used. Raises trouble when it cannot be made."""
        repositories = target_repositories(self._target, self._arch)
        key = template_key(self._target, self._arch, repositories)

        def make(folder: Path) -> None:
            root = folder / "root"
            root.mkdir(mode=0o755)
            self._filling(context).install(self._target.packages, repositories, root=root, into=folder)
            if not read_listing(folder / "list").packages:
                raise RootTrouble(f"the new root of {self._target.name} {self._arch} has no package in it")

        with self._shelf.use(key, make, stop=context.stop) as folder:
            yield folder

    @contextmanager
    def layered(
        self, template: Path, wanted: Sequence[str], pinned: Sequence[tuple[str, str]], context: StepContext
    ) -> Iterator[Root]:
        """The template with what the build needs beyond it. Raises `Unresolvable` when nothing provides it."""
        base = root_of(template)
        if not wanted:
            yield base
            return
        own = pinned_repositories(pinned, without=[Nevra.parse(one.nevra).name for one in base.listing.packages])
        repositories = (*own, *target_repositories(self._target, self._arch))
        key = _digest([_VERSION, sorted(wanted), [_identity(one) for one in own]])

        def make(folder: Path) -> None:
            upper = folder / "upper"
            upper.mkdir(mode=0o755)
            self._filling(context).add(wanted, repositories, lower=template / "root", upper=upper, into=folder)

        shelf = Shelf(template / "layers", keep=_LAYERS_KEPT)
        with shelf.use(key, make, stop=context.stop) as folder:
            yield Root(lowers=(folder / "upper", *base.lowers), listing=read_listing(folder / "list"))

    def _filling(self, context: StepContext) -> Filling:
        return Filling(self._settings, self._target, self._arch, context)


def shelf_folder(settings: Settings, target: Target, arch: Arch) -> Path:
    return settings.templates / target.name / arch.rpm


def sweep_roots(settings: Settings) -> int:
    """Remove what dead workers left half made; how many folders. For when a worker starts."""
    alive = alive_folder(settings)

    def swept(folder: Path, keep: int) -> int:
        return attempted(str(folder), lambda: Shelf(folder, keep=keep).sweep(alive))

    # Beside the targets' folders there is mock's, which has files in it.
    folders = [folder for folder in settings.templates.glob("*/*") if folder.is_dir()]
    count = sum(swept(folder, _TEMPLATES_KEPT) for folder in folders)
    return count + sum(swept(layers, _LAYERS_KEPT) for folder in folders for layers in folder.glob("*/layers"))


def template_key(target: Target, arch: Arch, repositories: Sequence[DnfRepository]) -> str:
    """Everything that decides what is in the template. A local repository counts with its content, so a rebuilt one
    gives a new template; one behind a server counts with the day, so that its updates arrive within one. Nothing of a
    template is synced to the disk, so after a boot, which a crash may have come before, it is made anew."""
    day = "" if all(one.is_local for one in repositories) else datetime.now(UTC).date().isoformat()
    return _digest(
        [
            _VERSION,
            arch.rpm,
            sorted(target.packages),
            target.rpmdb,
            target.module_platform,
            [_identity(one) for one in repositories],
            day,
            _BOOT.read_text(),
        ]
    )


def read_listing(path: Path) -> Listing:
    """From the file that fill.sh wrote. Read once for each file, since these never change."""
    found = path.stat()
    return _read_listing(path, found.st_ino, found.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _read_listing(path: Path, _inode: int, _changed_ns: int) -> Listing:
    return parse_listing(read_list(path, limit_bytes=_LIST_BYTES))


def parse_listing(text: str) -> Listing:
    """Lines `P nevra digest`, `C name op evr`, `F path`, `W folder that all may write`; others are passed over."""
    packages: list[RootPackage] = []
    capabilities: dict[str, list[Capability]] = {}
    files: list[str] = []
    is_sealed = True
    for line in text.split("\n"):
        kind, _, rest = line.partition(" ")
        if kind == "F":
            files.append(rest)
        elif kind == "C":
            name, _, version = rest.partition(" ")
            op, _, evr = version.strip().partition(" ")
            capabilities.setdefault(name, []).append(Capability(name=name, op=op, evr=evr))
        elif kind == "W":
            is_sealed = False
        elif kind == "P" and not rest.startswith("gpg-pubkey-"):
            packages += _package(rest)
    packages.sort(key=lambda package: package.nevra)
    by_name = {name: tuple(given) for name, given in capabilities.items()}
    provided = Provided(capabilities=by_name, files=frozenset(files))
    return Listing(packages=tuple(packages), provided=provided, is_sealed=is_sealed)


def _package(text: str) -> tuple[RootPackage, ...]:
    nevra, _, digest = text.partition(" ")
    try:
        return (RootPackage(nevra=str(Nevra.parse(nevra)), digest=digest),)
    except ValueError:
        return ()


def _identity(repository: DnfRepository) -> object:
    if repository.folder is None:
        return asdict(repository)
    try:
        repomd = (repository.folder / "repodata/repomd.xml").read_bytes()[:_REPOMD_BYTES]
    except OSError as error:
        message = (
            f"repository {repository.name} has no {error.filename}: {error.strerror}; is it made, and mounted here?"
        )
        raise NetworkTrouble(message) from error
    return [asdict(repository), hashlib.sha256(repomd).hexdigest()]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_KEY_CHARS]
