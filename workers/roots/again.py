"""Finds the root of a record among the templates and layers that this host has: same packages, same digests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farm.config import Settings
from farm.errors import RootTrouble
from farm.model.arch import Arch
from farm.model.target import Target
from workers.core.context import StepContext
from workers.isolation.sandbox import Confinement
from workers.roots.cache import DirectoryCache
from workers.roots.listing import Listing, read_once
from workers.roots.root import Root, RootPackage
from workers.roots.stacked import root_of

_KEPT = 2**31  # nothing is removed from a cache that is only read
_BOOTED = Path("/proc/stat")


@contextmanager
def cached_root(
    settings: Settings,
    target: Target,
    arch: Arch,
    packages: Sequence[RootPackage],
    context: StepContext,
    confined: Confinement,
) -> Iterator[Root | None]:
    """The root with exactly these packages, kept from removal meanwhile; None if this host has no such root."""
    for template in sorted((settings.templates / target.name / arch).glob("[0-9a-f]*")):
        if not template.is_dir() or not _is_usable(template / "root", confined):
            continue
        if _has(template, packages):
            with _used(template, context):
                yield root_of(template)
                return
        for layer in sorted((template / "layers").glob("[0-9a-f]*")):
            if layer.is_dir() and _has(layer, packages):
                with _used(template, context), _used(layer, context):
                    yield Root(lowers=(layer / "upper", template / "root"), packages=tuple(packages))
                    return
    yield None


def _has(folder: Path, packages: Sequence[RootPackage]) -> bool:
    try:
        return set(read_once(folder / "list", Listing).packages) == set(packages)
    except (OSError, RootTrouble):  # removed in this moment
        return False


@contextmanager
def _used(folder: Path, context: StepContext) -> Iterator[None]:
    def gone(_: Path) -> None:
        raise RootTrouble(f"{folder} was removed in this moment; try again")

    cache = DirectoryCache(folder.parent, keep=_KEPT)
    with cache.use(folder.name, gone, stop=context.stop, deadline=context.deadline):
        yield


def _is_usable(root: Path, confined: Confinement) -> bool:
    """Whether the ids of this host's roots own it, and it was made since the boot: a crash may have damaged it."""
    try:
        found = root.parent.stat()
        owner = root.stat().st_uid
    except OSError:
        return False
    booted = next(line for line in _BOOTED.read_text().splitlines() if line.startswith("btime "))
    return owner == confined.root_id and found.st_ctime >= int(booted.split()[1])
