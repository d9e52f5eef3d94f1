"""The list of a root's packages: kept in a file of the farm beside the root, and read again.

Nothing in it comes from inside a root: scriptlets of packages that the farm built run there, and may falsify every
answer.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from farm.errors import RootTrouble
from workers.core.run import CommandFailed, capture
from workers.core.untrusted import read_list
from workers.roots.root import RootPackage

_LIST_BYTES = 64 * 2**20
_SEAL_TIMEOUT_S = 120.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The packages of a root; `is_sealed` as in Root."""

    packages: tuple[RootPackage, ...]
    is_sealed: bool


def write_once(path: Path, value: object) -> None:
    """Write the value as a new file of JSON, into a folder that no sandbox shows."""
    data = msgspec.json.encode(value)
    if len(data) > _LIST_BYTES:
        raise RootTrouble(f"the list of the new root takes more than {_LIST_BYTES} bytes; install fewer packages")
    with path.open("xb") as file:
        file.write(data)


def read_once(path: Path, kind: Callable[..., T]) -> T:
    """The content of a file that `write_once` made. Each file is read once, since it never changes.

    `kind` is the class of the value. Raises RootTrouble.
    """
    found = path.stat()
    value: T = _read(path, kind, found.st_ino, found.st_mtime_ns)
    return value


@functools.lru_cache(maxsize=16)
def _read(path: Path, kind: Any, _inode: int, _changed_ns: int) -> Any:
    try:
        return msgspec.json.decode(read_list(path, limit_bytes=_LIST_BYTES), type=kind)
    except msgspec.MsgspecError as error:
        raise RootTrouble(f"{path} is not a list of packages ({error}); remove its folder") from error


def is_sealed(root: Path) -> bool:
    """Whether no folder but /tmp and /var/tmp is writable for all. The host's find searches after the sandbox has
    ended; it follows no link, and stops at the first such folder. A doubt counts as a no."""
    words = ["find", ".", "-xdev", "-type", "d", "-perm", "-0002", "!", "-path", "./tmp", "!", "-path", "./var/tmp"]
    try:
        return not capture([*words, "-print", "-quit"], cwd=root, timeout_s=_SEAL_TIMEOUT_S, limit_bytes=2**16)
    except CommandFailed:
        return False
