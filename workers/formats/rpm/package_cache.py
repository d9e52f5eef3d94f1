"""dnf's package cache of one target and arch, which the slots of a host share.

Owns the folder, its lock and its snapshots. One dnf at a time downloads into the folder, under an exclusive lock. An
installation takes long, and reads a snapshot: a folder of hard links, which is made while no download runs. A download
that waited for PATIENCE_S goes into its own empty folder: the requirements of one build can keep dnf busy for an hour,
and must not delay the builds of others. A later download adds packages and replaces metadata, and does not change a
snapshot. librepo writes into a file in one case: a repository has another package under an old name. The digest in the
snapshot's metadata refuses that package, and the farm tries the step again.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from farm.config import Settings
from farm.errors import RootTrouble, disk_errors, given
from farm.model.arch import Arch
from workers.core.locks import LockKind, locked, until
from workers.isolation.scratch import remove_tree, scratch_name, sweep_orphans

#: Longer than a first download of a target's metadata and packages.
PATIENCE_S = 180.0
_SNAPSHOT = "snapshot"
_STOPPED = "stopped while another attempt downloaded packages for the same target"
_NO_TIME = "the step's time was over while other steps downloaded packages for the same target"
_numbers = count(1)


class PackageCache:
    """Safe to use from several processes and threads."""

    def __init__(self, settings: Settings, target: str, arch: Arch, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._folders = _folders(settings)
        self.path = self._folders / f"{target}-{arch}"
        # A target's name may have a dot in it, so the suffix is appended and replaces nothing.
        self.lock_path = self._folders / f"{target}-{arch}.lock"

    @contextmanager
    def write(self, stop: threading.Event, deadline: float) -> Iterator[Path]:
        """A folder for one dnf that downloads into it: the cache, or an empty one that is deleted afterwards.

        Raises LeaseLost once `stop` is set, RootTrouble at the deadline.
        """
        with self._locked(LockKind.EXCLUSIVE, stop, deadline) as folder:
            if folder == self.path:
                self._prepare()
            yield folder

    @contextmanager
    def read(self, stop: threading.Event, deadline: float) -> Iterator[Path]:
        """The cache while no download runs, or an empty folder. Others may read it too. Raises as `write` does."""
        with self._locked(LockKind.SHARED, stop, deadline) as folder:
            yield folder

    @contextmanager
    def snapshot(self, folder: Path) -> Iterator[Path]:
        """The content of the folder at this moment, for as long as the block lasts. Enter it inside the `write` or
        `read` that yielded the folder."""
        with self._own_folder() as made:
            with disk_errors(RootTrouble, f"{folder} cannot be read"):
                _link_tree(folder, made)
            yield made

    def _prepare(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        os.utime(self.path)  # `farm gc` removes the cache that was not used for longest
        # dnf's own locks have a pid, which has no meaning in another pid namespace: dnf would wait without end for the
        # lock of a killed dnf.
        for left in self.path.glob("*_lock.pid"):
            left.unlink(missing_ok=True)

    @contextmanager
    def _own_folder(self) -> Iterator[Path]:
        folder = self._folders / scratch_name(_SNAPSHOT, next(_numbers))
        try:
            yield folder
        finally:
            remove_tree(folder)

    @contextmanager
    def _locked(self, kind: LockKind, stop: threading.Event, deadline: float) -> Iterator[Path]:
        self._folders.mkdir(parents=True, exist_ok=True)
        patience_at = time.monotonic() + self._patience_s
        pause = until(stop, _STOPPED, deadline=min(deadline, patience_at))
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.lock_path, kind, pause, trouble=RootTrouble))
                folder = self.path
            except TimeoutError:
                if deadline <= patience_at:
                    raise given(RootTrouble(_NO_TIME)) from None
                folder = stack.enter_context(self._own_folder())
                folder.mkdir(mode=0o755)
            yield folder


def sweep_snapshots(settings: Settings, alive: Path) -> int:
    """Remove the snapshots of dead workers. Returns their number. `alive` as with `is_orphan`."""
    folders = _folders(settings)
    return sweep_orphans(folders.iterdir(), _SNAPSHOT, alive) if folders.is_dir() else 0


def _folders(settings: Settings) -> Path:
    return settings.cache / "dnf"


def _link_tree(source: Path, made: Path) -> None:
    """Link the folders and regular files alone, each folder with its owner and mode. Without a source, an empty
    folder."""
    made.mkdir(mode=0o755, parents=True)
    if not source.is_dir():
        return
    _copy_rights(source, made)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _link_tree(Path(entry.path), made / entry.name)
            elif entry.is_file(follow_symlinks=False) and not entry.name.endswith("_lock.pid"):
                _link(Path(entry.path), made / entry.name)


def _link(source: Path, made: Path) -> None:
    """Link the file, or copy it if it has as many links as its file system allows."""
    with suppress(OSError):
        os.link(source, made, follow_symlinks=False)
        return
    shutil.copy2(source, made, follow_symlinks=False)
    _copy_rights(source, made)


def _copy_rights(source: Path, made: Path) -> None:
    found = source.stat()
    os.chown(made, found.st_uid, found.st_gid)
    made.chmod(found.st_mode & 0o7777)
