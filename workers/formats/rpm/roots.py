"""Templates and layers: what a room is stacked on, made by the host's dnf, kept and found again by what defines them.

Owns their keys and their folders. A template's folder holds `root`, `list` and `layers`; a layer's holds `upper` and
`list`. The lists are made from dnf's plans, not from what is in the root: see `workers.formats.rpm.listing`.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from farm.config import Settings
from farm.errors import NetworkTrouble, RootTrouble
from farm.model.arch import Arch
from farm.model.nevra import Nevra
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import Ended, StepContext
from workers.core.untrusted import replaced_folder
from workers.formats.rpm.dnf import DnfRepository, pinned_repositories, target_repositories
from workers.formats.rpm.install import Filling
from workers.formats.rpm.listing import Listing, is_sealed, of_layer, of_template, read_listing, write_listing
from workers.formats.rpm.package_cache import sweep_snapshots
from workers.isolation.sandbox import ROOM_FOLDERS, Confinement
from workers.isolation.scratch import alive_folder, attempted
from workers.roots.cache import Shelf

#: Raise it when what is done to a new root changes, so that older ones are not used any more.
_VERSION = 4
_KEY_CHARS = 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TEMPLATES_KEPT = 3
_LAYERS_KEPT = 64
_REPOMD_BYTES = 16 * 2**20


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

    def __init__(self, settings: Settings, target: Target, arch: Arch, confinement: Confinement) -> None:
        self._settings = settings
        self._target = target
        self._arch = arch
        self._confinement = confinement
        self._shelf = Shelf(shelf_folder(settings, target, arch), keep=_TEMPLATES_KEPT)

    @contextmanager
    def template(self, context: StepContext) -> Iterator[Path]:
        """The template's folder, which stays while it is used. Raises trouble when it cannot be made."""
        repositories = target_repositories(self._target, self._arch)
        key = template_key(self._target, self._arch, repositories, first_id=self._confinement.first_id)

        def make(folder: Path) -> None:
            root = folder / "root"
            root.mkdir(mode=0o755)
            os.chown(root, self._confinement.root_id, self._confinement.root_id)
            plan = self._filling(context).install(self._target.packages, repositories, root=root, into=folder)
            if not plan.added:
                raise RootTrouble(f"the new root of {self._target.name} {self._arch} has no package in it")
            write_listing(folder / "list", of_template(plan, is_sealed=is_sealed(root)))

        with self._shelf.use(key, make, stop=context.stop, deadline=context.deadline) as folder:
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
            os.chown(upper, self._confinement.root_id, self._confinement.root_id)
            filling = self._filling(context)
            plan = filling.add(wanted, repositories, lower=template / "root", upper=upper, into=folder)
            if replaced := replaced_folder(upper, ROOM_FOLDERS):
                words = f"installing what it requires failed: a package makes {replaced} something else than a folder"
                raise Ended(Outcome.FAILED, words)
            # What no filling made a sound list of never gets to the shelf.
            write_listing(folder / "list", of_layer(base.listing, plan))

        shelf = Shelf(template / "layers", keep=_LAYERS_KEPT)
        with shelf.use(key, make, stop=context.stop, deadline=context.deadline) as folder:
            yield Root(lowers=(folder / "upper", *base.lowers), listing=read_listing(folder / "list"))

    def _filling(self, context: StepContext) -> Filling:
        return Filling(self._settings, self._target, self._arch, context, self._confinement)


def shelf_folder(settings: Settings, target: Target, arch: Arch) -> Path:
    return settings.templates / target.name / arch.rpm


def sweep_roots(settings: Settings) -> int:
    """Remove what dead workers left half made; how many folders. For when a worker starts."""
    alive = alive_folder(settings)
    snapshots = attempted("snapshots of package caches", lambda: sweep_snapshots(settings, alive))

    def swept(folder: Path, keep: int) -> int:
        return attempted(str(folder), lambda: Shelf(folder, keep=keep).sweep(alive))

    # Beside the targets' folders there is mock's, which has files in it.
    folders = [folder for folder in settings.templates.glob("*/*") if folder.is_dir()]
    count = snapshots + sum(swept(folder, _TEMPLATES_KEPT) for folder in folders)
    return count + sum(swept(layers, _LAYERS_KEPT) for folder in folders for layers in folder.glob("*/layers"))


def template_key(
    target: Target, arch: Arch, repositories: Sequence[DnfRepository], *, first_id: int | None = None
) -> str:
    """Everything that decides what is in the template. A local repository counts with its content, so a rebuilt one
    gives a new template; one behind a server counts with the day, so that its updates arrive within one. Nothing of a
    template is synced to the disk, so after a boot, which a crash may have come before, it is made anew."""
    day = "" if all(one.is_local for one in repositories) else datetime.now(UTC).date().isoformat()
    return _digest(
        [
            _VERSION,
            arch.rpm,
            first_id,
            sorted(target.packages),
            target.rpmdb,
            target.module_platform,
            [_identity(one) for one in repositories],
            day,
            _BOOT.read_text(),
        ]
    )


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
