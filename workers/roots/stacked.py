"""Templates and layers: the folders below a session, cached by a key of everything that decides their content.

Owns the common part of the keys, and the folders. A template's folder holds `root`, `list`, `layers` and files of its
filler; a layer's holds `upper` and `list`. Does not install packages, which the filler of the package format does.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from farm.config import Settings
from farm.errors import HostUnfit, RootTrouble
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import Ended, StepContext
from workers.core.untrusted import replaced_folder
from workers.isolation.confine import confinement
from workers.isolation.emulator import require_arch
from workers.isolation.sandbox import RESERVED_FOLDERS, Confinement
from workers.isolation.scratch import alive_folder, attempted
from workers.roots.base import Filler, PinnedUrl
from workers.roots.cache import DirectoryCache
from workers.roots.listing import Listing, is_sealed, read_once, write_once
from workers.roots.root import Root
from workers.roots.session import RootSession

#: Raise it when the way to make a root changes, so that older roots are not used any more.
_VERSION = 6
_KEY_CHARS = 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TEMPLATES_KEPT = 3
_LAYERS_KEPT = 64

#: Makes the filler of a target and arch for one attempt.
NewFiller = Callable[[Settings, Target, Arch, StepContext, Confinement], Filler]


@dataclass(frozen=True, kw_only=True)
class Template:
    """The root of a target and arch with the target's own packages, as one attempt uses it. `folder` is kept from
    removal meanwhile."""

    folder: Path
    root: Root
    _filler: Filler
    _context: StepContext
    _confinement: Confinement

    def session(self, *, timeout_s: float = math.inf) -> RootSession:
        """A session in the template as it is. Its commands end after `timeout_s`, or at the step's own deadline."""
        deadline = min(self._context.deadline, time.monotonic() + timeout_s)
        limits = self._context.limits
        if timeout_s < limits.wall_s:
            limits = replace(limits, wall_s=int(timeout_s))
        return RootSession(self.root, replace(self._context, deadline=deadline, limits=limits), self._confinement)

    def missing(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The requirements that the template does not meet."""
        return self._filler.missing(wanted, self.folder)

    @contextmanager
    def with_packages(self, wanted: Sequence[str], repositories: Sequence[PinnedUrl]) -> Iterator[RootSession]:
        """A session in the template with packages that meet the requirements. Raises as RootMaker.root."""
        with ExitStack() as stack:
            with self._context.phase("layer"):
                root = stack.enter_context(self.layered(wanted, repositories))
            yield stack.enter_context(RootSession(root, self._context, self._confinement))

    @contextmanager
    def layered(self, wanted: Sequence[str], repositories: Sequence[PinnedUrl]) -> Iterator[Root]:
        """The root with packages that meet the requirements, kept from removal meanwhile."""
        lacking = self.missing(wanted)
        if not lacking:
            yield self.root
            return
        key = _digest([_VERSION, self._filler.layer_key(lacking, repositories, self.root)])

        def make(folder: Path) -> None:
            upper = owned(folder / "upper", self._confinement)
            packages = self._filler.add(lacking, repositories, base=self.root, upper=upper, into=folder)
            if replaced := replaced_folder(upper, RESERVED_FOLDERS):
                words = f"installing its requirements failed: a package replaces the folder {replaced}"
                raise Ended(Outcome.FAILED, words)
            # A layer without a sound list never gets into the cache.
            write_once(folder / "list", Listing(packages=tuple(packages), is_sealed=False))

        cache = DirectoryCache(self.folder / "layers", keep=_LAYERS_KEPT)
        with cache.use(key, make, stop=self._context.stop, deadline=self._context.deadline) as folder:
            packages = read_once(folder / "list", Listing).packages
            yield Root(lowers=(folder / "upper", *self.root.lowers), packages=packages)

    def comes_up(self, root: Root | None = None) -> bool:
        """Whether a session comes up in the root, or in the template if `root` is None."""
        try:
            with RootSession(root or self.root, self._context, self._confinement) as session:
                session.run(["true"])
        except RootTrouble:
            return False
        return True


class StackedRoots:
    """A `RootMaker` of roots that are stacked from folders with overlayfs, on hosts where this process is root."""

    def __init__(self, settings: Settings, new_filler: NewFiller) -> None:
        self._settings = settings
        self._new_filler = new_filler

    @contextmanager
    def root(
        self,
        target: Target,
        arch: Arch,
        wanted: Sequence[str],
        context: StepContext,
        *,
        repositories: Sequence[PinnedUrl] = (),
    ) -> Iterator[RootSession]:
        """As RootMaker.root."""
        with (
            self.template(target, arch, context) as template,
            template.with_packages(wanted, repositories) as session,
        ):
            yield session

    @contextmanager
    def template(self, target: Target, arch: Arch, context: StepContext) -> Iterator[Template]:
        """The target's template, from which several roots can be made. Raises trouble when it cannot be made, HostUnfit
        on a host that cannot make it, and LeaseLost."""
        if os.geteuid() != 0:
            raise HostUnfit("build roots are overlays, which only root mounts; start the worker with sudo")
        require_arch(arch)
        confined = confinement(self._settings, target)
        filler = self._new_filler(self._settings, target, arch, context, confined)

        def make(folder: Path) -> None:
            root = owned(folder / "root", confined)
            packages = tuple(filler.install(root, into=folder))
            if not packages:
                raise RootTrouble(f"the new root of {target.name} {arch} has no package in it")
            write_once(folder / "list", Listing(packages=packages, is_sealed=is_sealed(root)))

        with ExitStack() as stack:
            with context.phase("template"):
                key = _template_key(arch, filler, confined)
                cache = DirectoryCache(self._settings.templates / target.name / arch, keep=_TEMPLATES_KEPT)
                folder = stack.enter_context(cache.use(key, make, stop=context.stop, deadline=context.deadline))
            yield Template(folder=folder, root=root_of(folder), _filler=filler, _context=context, _confinement=confined)


def root_of(template: Path) -> Root:
    """The root of a template's folder."""
    listing = read_once(template / "list", Listing)
    return Root(lowers=(template / "root",), packages=listing.packages, is_sealed=listing.is_sealed)


def sweep_roots(settings: Settings) -> int:
    """Remove the half-made templates and layers of dead workers. Returns their number. Called when a worker starts."""
    alive = alive_folder(settings)

    def swept(folder: Path, keep: int) -> int:
        return attempted(str(folder), lambda: DirectoryCache(folder, keep=keep).sweep(alive))

    # Mock's folder, which has files in it, is beside those of the targets.
    folders = [folder for folder in settings.templates.glob("*/*") if folder.is_dir()]
    count = sum(swept(folder, _TEMPLATES_KEPT) for folder in folders)
    return count + sum(swept(layers, _LAYERS_KEPT) for folder in folders for layers in folder.glob("*/layers"))


def shed_layers(settings: Settings, is_enough: Callable[[], bool]) -> int:
    """Remove layers that no step uses, until the answer is yes. Returns their number. A layer is made again in seconds,
    and each build may bring a new one; templates stay."""
    return sum(
        DirectoryCache(layers, keep=0).shed(is_enough) for layers in sorted(settings.templates.glob("*/*/*/layers"))
    )


def _template_key(arch: Arch, filler: Filler, confined: Confinement) -> str:
    """The key has the boot: a template is not synced to the disk, and is made again after a boot, since a crash may
    have damaged it."""
    return _digest([_VERSION, arch, confined.first_id, filler.template_key(), _BOOT.read_text()])


def owned(folder: Path, confined: Confinement) -> Path:
    """Make the folder, owned by uid 0 of the root."""
    folder.mkdir(mode=0o755)
    os.chown(folder, confined.root_id, confined.root_id)
    return folder


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_KEY_CHARS]
