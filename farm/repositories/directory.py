"""Repositories as directories that package managers read through file:// or any web server that follows symbolic
links.

Owns everything below its root, for publishers on one machine (SQLite's WAL and flock need that; several machines
share a Pulp). Below `<root>/<target>/<arch>/os`, and in the same way for debug and source:

    packages/<2 hex>/<sha256>/<filename>    the packages of all versions, read-only
    versions/<N>/<index>/                   version N, never changed again; `packages` beside it is a link to the pool
    current/<index>/                        the index files of all kept versions, by digest, and
    current/<index>/<top file>              a link to that of the newest version, replaced atomically
    state/                                  the ledger, the lock, unfinished files: not for clients

and below `<root>/<target>/logs`, logs and records under the names they were given, without versions. The
repositories of projects other than the default one are in the same way below `<root>/~<project>/<target>`.

The package format owns the index: its folder, its top file, and the form of all its files (farm/formats/index.py).

A client that read the top file just before a switch still finds the files it names, because those of old versions
stay until `retain` removes their version. A package of the same file name with other content replaces the old one
in the new version; old versions keep theirs, since the digest is part of the path.

Publishing is a group commit. An `add` reads its packages and writes them to the ledger as waiting, without the lock;
then the `add` that gets the lock publishes all waiting packages as one version, and the others find theirs published.
For adds to meet, a version is made half a second after the last one at the earliest; an `add` to a repository that was
quiet for that long does not wait.
The ledger is written first and files are made from it, so the next process completes the work of one that was killed at
any point: the next `add` to that repository, of any caller, publishes the waiting packages.
"""

import os
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farm.errors import BadRequest, LeaseLost, NotFound, RepositoryTrouble, disk_errors
from farm.formats.base import Format
from farm.formats.index import IndexedPackage
from farm.formats.registry import format_of, names
from farm.repositories.base import (
    KEEP_VERSIONS,
    RepositoryCheck,
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
    RepositoryVersion,
)
from farm.repositories.checks import (
    check_copy,
    check_files,
    check_has_packages,
    check_name,
    check_packages,
    check_removal,
    form_of,
    missing_from,
)
from farm.repositories.files import FileFolder
from farm.repositories.folder import PAUSE_S, RepositoryFolder
from farm.repositories.ledger import Row

_GRACE_S = 8 * 3600.0  # longer than a client reads, and than a build pinned to a version may wait and run
_KEEP_LEAST = 2  # a client may be between reading the old version's top file and its other files
_SPARE_BYTES = 2**30
#: Repositories of sources and those of an arch, of the default project and of others.
_POOLS = ("*/*/packages", "*/*/*/packages", "~*/*/*/*/packages")


class DirectoryRepositories:
    """Safe to use from many threads and processes at once, on one machine."""

    def __init__(self, root: Path, *, grace_s: float = _GRACE_S, pause_s: float = PAUSE_S) -> None:
        """Versions that are younger than `grace_s` are kept, however many. An `add` makes a version at least `pause_s`
        after the last one; with 0 none waits for others."""
        self._root = root.absolute()
        self._grace_s = grace_s
        self._pause_s = pause_s

    def prepare(
        self, name: RepositoryName, packages: Sequence[RepositoryPackage], *, stop: threading.Event | None = None
    ) -> None:
        """See the protocol."""
        check_packages(name, packages)
        wanted = {Row(filename=one.filename, sha256=one.sha256): one.path for one in packages}
        with self._open(name, "packages were not read") as repository:
            repository.inspect(wanted, stop=stop)

    def add(
        self,
        name: RepositoryName,
        packages: Sequence[RepositoryPackage],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol."""
        check_packages(name, packages)
        wanted = {Row(filename=one.filename, sha256=one.sha256): one.path for one in packages}
        with self._open(name, "packages were not added") as repository:
            if not wanted:
                return repository.current()
            ids = repository.submit(wanted, stop=stop)
            return self._publish(repository, ids, keep, stop)

    def copy(
        self,
        source: RepositoryName,
        version: int,
        into: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol. Files of the pool get a second name in the other pool, where that is possible."""
        check_copy(source, into, sha256s)
        with self._open_kept(source, "packages were not copied") as origin:
            found = origin.contents(version, sha256s)
        if missing := set(sha256s) - {row.sha256 for row in found}:
            raise missing_from(source, version, missing)
        with self._open(into, "packages were not copied") as repository:
            if not found:
                return repository.current()
            files = {row: path for row, (path, _) in found.items()}
            ids = repository.submit(files, entries={row: entry for row, (_, entry) in found.items()}, stop=stop)
            return self._publish(repository, ids, keep, stop)

    def _publish(
        self, repository: RepositoryFolder, ids: dict[int, bool], keep: int, stop: threading.Event | None
    ) -> int:
        try:
            return repository.publish(list(ids), keep=max(keep, _KEEP_LEAST), grace_s=self._grace_s, stop=stop)
        except LeaseLost:
            repository.withdraw([id_ for id_, is_new in ids.items() if is_new])
            raise

    def remove(
        self,
        name: RepositoryName,
        sha256s: Collection[str],
        *,
        keep: int = KEEP_VERSIONS,
        stop: threading.Event | None = None,
    ) -> int:
        """See the protocol."""
        check_removal(name, sha256s)
        with self._open(name, "packages were not removed") as repository:
            return repository.remove(sha256s, keep=max(keep, _KEEP_LEAST), grace_s=self._grace_s, stop=stop)

    def index(self, name: RepositoryName, version: int) -> tuple[IndexedPackage, ...]:
        """See the protocol."""
        check_has_packages(name)
        with self._open_kept(name, f"version {version} was not read") as repository:
            return repository.index(version)

    def add_files(
        self, name: RepositoryName, files: Sequence[RepositoryFile], *, stop: threading.Event | None = None
    ) -> str:
        """See the protocol."""
        check_files(name, files)
        with disk_errors(RepositoryTrouble, f"repository {name.path}: files were not added"):
            folder = FileFolder(self._root / name.path)
            folder.add(files, stop=stop)
        return folder.url

    def current(self, name: RepositoryName) -> int:
        """See the protocol. Logs and records have no versions."""
        if name.kind is RepositoryKind.LOGS:
            check_name(name)
            return 0
        with self._open(name, "the newest version is not known") as repository:
            return repository.current()

    def url(self, name: RepositoryName, version: int | None = None) -> str:
        """See the protocol. The URL of a version that retention removed leads nowhere."""
        if name.kind is RepositoryKind.LOGS:
            check_name(name)
            return FileFolder(self._root / name.path).url
        with self._open(name, "it cannot be made") as repository:
            return repository.url(version)

    def versions(self, name: RepositoryName) -> tuple[RepositoryVersion, ...]:
        """See the protocol. Logs and records have none."""
        if name.kind is RepositoryKind.LOGS:
            check_name(name)
            return ()
        with self._open(name, "its versions are not known") as repository:
            return repository.listed()

    def rollback(self, name: RepositoryName, to: int) -> int:
        """See the protocol."""
        if name.kind is RepositoryKind.LOGS:
            check_name(name)
            raise BadRequest(f"{name.path} is a folder of files without versions; nothing can be rolled back there")
        with self._open_kept(name, "it was not rolled back") as repository:
            return repository.rollback(to)

    def keeps(self, sha256s: Collection[str]) -> frozenset[str]:
        """See the protocol. A repository's packages are those of its kept versions."""
        with disk_errors(RepositoryTrouble, f"the packages in {self._root} are not known"):
            pools = [pool for pattern in _POOLS for pool in self._root.glob(pattern)]
            return frozenset(
                sha256 for sha256 in sha256s if any(any((pool / sha256[:2] / sha256).glob("*")) for pool in pools)
            )

    def check(self) -> tuple[RepositoryCheck, ...]:
        """See the protocol."""
        formats = [format_of(name) for name in names()]
        return (_check_folder(self._root), _check_space(self._root), *(_check_index(form) for form in formats))

    def retain(self, name: RepositoryName, keep: int, *, grace_s: float = _GRACE_S) -> None:
        """Remove all versions but the newest `keep` (at least one) and those younger than `grace_s`, with the
        packages that only they had."""
        with self._open(name, "old versions were not removed") as repository:
            repository.retain(keep=keep, grace_s=grace_s)

    @contextmanager
    def _open_kept(self, name: RepositoryName, failure: str) -> Iterator[RepositoryFolder]:
        """As `_open`, to work on a version that may not be kept."""
        try:
            with self._open(name, failure) as repository:
                yield repository
        except NotFound as error:
            raise NotFound(f"repository {name.path}: {error}") from error

    @contextmanager
    def _open(self, name: RepositoryName, failure: str) -> Iterator[RepositoryFolder]:
        check_name(name)
        with disk_errors(RepositoryTrouble, f"repository {name.path}: {failure}"):
            repository = RepositoryFolder(self._root / name.path, form_of(name), pause_s=self._pause_s)
            try:
                repository.ensure()
                yield repository
            finally:
                repository.close()


def _check_folder(root: Path) -> RepositoryCheck:
    what = f"folder {root}"
    place = _nearest(root)
    if not place.is_dir():
        remedy = "move it away, or give FARM_DATA another folder"
        return RepositoryCheck(what=what, is_ok=False, found=f"cannot be: {place} is not a folder", remedy=remedy)
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = "give it to the user that the publish worker runs as, or run this as that user"
        return RepositoryCheck(what=what, is_ok=False, found=f"{place} is not writable by this user", remedy=remedy)
    found = "is there, and writable" if place == root else "is made by the first publication"
    return RepositoryCheck(what=what, is_ok=True, found=found)


def _check_space(root: Path) -> RepositoryCheck:
    what = "free space"
    free_bytes = shutil.disk_usage(_nearest(root)).free
    found = f"{free_bytes / 2**30:.1f} GiB"
    if free_bytes < _SPARE_BYTES:
        return RepositoryCheck(
            what=what, is_ok=False, found=found, remedy="free some; publishing stops when it is full"
        )
    return RepositoryCheck(what=what, is_ok=True, found=found)


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _check_index(form: Format) -> RepositoryCheck:
    what = f"index of {form.name} packages"
    try:
        tool = form.index.tool
    except ImportError as error:
        return RepositoryCheck(what=what, is_ok=False, found=f"cannot be made: {error}", remedy="reinstall the farm")
    return RepositoryCheck(what=what, is_ok=True, found=f"made with {tool}" if tool else "needs no library")
