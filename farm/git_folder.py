"""Looks through a git repository on this machine before git reads it: no file may be one at which git would wait.

Git opens whatever has the name of one of its files, also a named pipe or a device, and then waits without end. Only the
kinds of files are looked at, with the rights of this process; their contents are git's matter.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from farm.errors import BadSource

#: No repository for packages has so many loose files; git packs them.
_ENTRIES_MAX = 1_000_000
_POINTER_BYTES = 8192
_ALTERNATES_MAX = 16
_CONFIG_BYTES = 2**18
_CONFIGS_MAX = 100
_NULL = os.makedev(1, 3)
_VALUE = re.compile(r'^[^=#;\n]*=\s*"?([^"#;\n]+)', re.MULTILINE)
_READ_IN_TREES = frozenset((".gitignore", ".gitattributes", ".gitmodules"))
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def check_repository(folder: Path) -> None:
    """Raises BadSource for a repository, bare or with a work tree at its top, whose folder of git has a file that is
    none. Says nothing of folders that cannot be read: git has words for them."""
    places, left = [_git_folder(folder)], _ALTERNATES_MAX
    seen: set[tuple[int, int]] = set()
    while places:
        place = places.pop()
        for path in _special(place, seen):
            raise _refused(path)
        for config in ("config", "config.worktree"):
            _check_config(place / config)
        if common := _named(place / "commondir"):
            places.append(place / common)
        for line in _lines(place / "objects/info/alternates")[:left]:
            left -= 1
            places.append(_parent_of(place / "objects" / line))


def check_work_tree(top: Path) -> None:
    """The same for a work tree, which need not be in a repository, and for the files in it that git reads: its rules,
    and submodules."""
    if os.path.lexists(top / ".git"):
        check_repository(top)
    for number, (entry, is_folder) in enumerate(_entries(top)):
        if number > _ENTRIES_MAX:
            raise BadSource(f"{str(top)!r} has more than {_ENTRIES_MAX} files; give the folder of a package")
        if entry.name == ".git" and entry.path != str(top / ".git"):
            check_repository(Path(entry.path).parent)
        elif entry.name in _READ_IN_TREES and not is_folder and _kind(entry.stat(follow_symlinks=False)):
            raise _refused(Path(entry.path))


def check_file(path: Path) -> None:
    """The same for one file that a configuration of git names."""
    try:
        is_special = _kind(path.stat())
    except (OSError, ValueError):
        return
    if is_special:
        raise _refused(path)


def check_own(folder: Path) -> None:
    """For a folder that only the farm writes to. Raises BadSource if anything in it is a link, or is no file: a tree
    that came from elsewhere may have brought the folder, and writing through a link would change other files."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadSource(f"{str(folder)!r} is no folder of the farm's own; remove it")
    for entry, is_folder in _entries(folder, into_git=True):
        if not is_folder and not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            raise BadSource(f"{entry.path!r} is not a file of the farm's own; remove {str(folder)!r}")


def _check_config(config: Path) -> None:
    """Look at each file that a configuration may name, in whatever setting, and into those that it may include."""
    seen, left = {config}, [config]
    while left and len(seen) <= _CONFIGS_MAX:
        file = left.pop()
        for value in _VALUE.findall("\n".join(_lines(file, _CONFIG_BYTES))):
            with suppress(RuntimeError):  # there is no such user
                named = file.parent / Path(value.strip()).expanduser()
                check_file(named)
                if named not in seen:
                    seen.add(named)
                    left.append(named)


def _refused(path: Path) -> BadSource:
    kind = _kind(path.stat()) or "no file"
    return BadSource(f"{str(path)!r} is {kind}, at which git would wait; remove it, or clone the repository again")


def _kind(found: os.stat_result) -> str | None:
    """The name of a kind of file at which a reader may wait; None for others. A socket cannot be opened, and
    configurations name /dev/null."""
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL
    return None if is_null else _KINDS.get(stat.S_IFMT(found.st_mode))


def _git_folder(folder: Path) -> Path:
    own = folder / ".git"
    try:
        found = own.stat()
    except OSError:
        return folder
    if _kind(found):
        raise _refused(own)
    if stat.S_ISDIR(found.st_mode):
        return own
    return folder / (_named(own).removeprefix("gitdir:").strip() or ".git")


def _special(place: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The special files below a folder, and behind its links."""
    folders = [str(place)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat()
                    except OSError:
                        continue
                    if _kind(found):
                        yield Path(entry.path)
                    if not stat.S_ISDIR(found.st_mode):
                        continue
                    identity = (found.st_dev, found.st_ino)
                    if identity not in seen:
                        seen.add(identity)
                        folders.append(entry.path)
        except OSError:
            continue
        if len(seen) > _ENTRIES_MAX:
            raise BadSource(f"{str(place)!r} has more than {_ENTRIES_MAX} folders; no repository has so many")


def _entries(top: Path, *, into_git: bool = False) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Everything below a folder, with whether it is a folder; no link is followed."""
    folders = [str(top)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    yield entry, is_folder
                    if is_folder and (into_git or entry.name != ".git"):
                        folders.append(entry.path)
        except OSError:
            continue


def _named(file: Path) -> str:
    return next(iter(_lines(file)), "")


def _lines(file: Path, limit_bytes: int = _POINTER_BYTES) -> list[str]:
    try:
        if not file.is_file():
            return []
        with file.open("rb") as stream:
            return os.fsdecode(stream.read(limit_bytes)).splitlines()
    except (OSError, ValueError):  # ValueError: a NUL in a path
        return []


def _parent_of(objects: Path) -> Path:
    """An alternate is the folder of objects itself, and git reads its `info/alternates` too."""
    return objects.parent if objects.name == "objects" else objects
