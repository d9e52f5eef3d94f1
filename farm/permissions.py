"""Closes the data folder to other users of the machine: recipes made its content, or the content is secret.

Owns the modes of `FARM_DATA` and of the folders directly below it. Repositories stay readable: people's dnf reads them.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from farm.config import Settings
from farm.errors import BadSettings

_THROUGH = 0o711  # others get to what they have a name and a right for: repositories
_PRIVATE = 0o700
_FILE = 0o600
_PRIVATE_FOLDERS = ("artifacts", "cache", "log", "alive")
_MOCK_FOLDERS = ("work", "templates")
_FILES = ("farm.db", "farm.db-wal", "farm.db-shm", "farm.db-journal", "farm.lock")


def close_data(settings: Settings) -> tuple[str, ...]:
    """Make the folders of a farm's data, and close those that others can read; returns a line for each that was open,
    as in farms of older versions.

    Raises BadSettings if they cannot be made. Files of another user are left as they are.
    """
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        said = [_closed(settings.data, _THROUGH)]
        for folder, mode in _folders(settings):
            if not folder.is_dir():
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
            said.append(_closed(folder, mode))
        said += [_closed(settings.data / name, _FILE) for name in _FILES]
    except OSError as error:
        raise BadSettings(
            f"FARM_DATA {str(settings.data)!r} cannot be used: {error.filename}: {error.strerror}; choose another, or "
            "run as its owner"
        ) from error
    return tuple(line for line in said if line)


def _folders(settings: Settings) -> Iterator[tuple[Path, int]]:
    for name in _PRIVATE_FOLDERS:
        yield settings.data / name, _PRIVATE
    # mock works as a user of its own, in a folder that it has to get to.
    for folder in (settings.work, *(settings.data / name for name in _MOCK_FOLDERS)):
        has_mock = (folder / "mock").is_dir() or shutil.which("mock") is not None
        yield folder, _THROUGH if has_mock else _PRIVATE
    if settings.targets is not None and settings.targets.is_relative_to(settings.data):
        yield settings.targets, _PRIVATE


def _closed(path: Path, mode: int) -> str | None:
    """A folder that all may write to, with the sticky bit, is the system's, whatever FARM_DATA says."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    before = stat.S_IMODE(found.st_mode)
    after = before & (mode | ~0o777)
    if before == after or found.st_uid != os.geteuid() or before & stat.S_ISVTX:
        return None
    path.chmod(after)
    return f"closed {path} to other users: its mode was {before:04o}, and is {after:04o}"
