"""What a root is made of: made from dnf's plans, kept in a file of the farm's own, and read again.

Nothing in it comes from inside a root: scriptlets of packages that the farm built run there, and may change its rpm
database and everything else that could be asked.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farm.errors import RootTrouble
from workers.core.run import CommandFailed, capture
from workers.core.untrusted import read_list
from workers.formats.rpm.capabilities import Capability, Provided
from workers.formats.rpm.engine import RootPackage
from workers.formats.rpm.plan import Plan

_LIST_BYTES = 64 * 2**20
_SEAL_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a root is made of. `is_sealed` when the build user could write nowhere in it but to /tmp and /var/tmp."""

    packages: tuple[RootPackage, ...]
    provided: Provided
    is_sealed: bool


def of_template(plan: Plan, *, is_sealed: bool) -> Listing:
    capabilities: dict[str, list[Capability]] = {}
    for one in plan.added:
        for given in one.provides:
            capabilities.setdefault(given.name, []).append(given)
    provided = Provided(
        capabilities={name: tuple(given) for name, given in capabilities.items()},
        files=frozenset(name for one in plan.added for name in one.files),
    )
    return Listing(packages=_sorted(plan.packages), provided=provided, is_sealed=is_sealed)


def of_layer(base: Listing, plan: Plan) -> Listing:
    """What the layer provides is left out: only the template's is asked for."""
    removed = set(plan.removed)
    kept = [package for package in base.packages if package.nevra not in removed]
    packages = _sorted((*kept, *plan.packages))
    return Listing(packages=packages, provided=Provided(capabilities={}, files=frozenset()), is_sealed=False)


def write_listing(path: Path, listing: Listing) -> None:
    """A new file in a folder that no sandbox sees."""
    data = msgspec.json.encode(listing)
    if len(data) > _LIST_BYTES:
        raise RootTrouble(f"the list of the new root takes more than {_LIST_BYTES} bytes; install fewer packages")
    with path.open("xb") as file:
        file.write(data)


def read_listing(path: Path) -> Listing:
    """Read once for each file, since these never change. Raises RootTrouble."""
    found = path.stat()
    return _read_listing(path, found.st_ino, found.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read_listing(path: Path, _inode: int, _changed_ns: int) -> Listing:
    try:
        return msgspec.json.decode(read_list(path, limit_bytes=_LIST_BYTES), type=Listing)
    except msgspec.MsgspecError as error:
        raise RootTrouble(f"{path} is not a list of packages ({error}); remove its folder") from error


def is_sealed(root: Path) -> bool:
    """Whether no folder but /tmp and /var/tmp is writable for all. The host's find looks, once the sandbox is gone; it
    follows no link, and stops at the first one. A doubt counts as a no."""
    words = ["find", ".", "-xdev", "-type", "d", "-perm", "-0002", "!", "-path", "./tmp", "!", "-path", "./var/tmp"]
    try:
        return not capture([*words, "-print", "-quit"], cwd=root, timeout_s=_SEAL_TIMEOUT_S, limit_bytes=2**16)
    except CommandFailed:
        return False


def _sorted(packages: tuple[RootPackage, ...]) -> tuple[RootPackage, ...]:
    return tuple(sorted(packages, key=lambda package: (package.nevra, package.digest)))
