"""Repositories as directories that dnf reads through file:// or any web server that follows symbolic links.

Owns everything below its root, for publishers on one machine (SQLite's WAL and flock need that; several machines
share a Pulp). Below `<root>/<target>/<arch>/os`, and the like for debug and source:

    packages/<2 hex>/<sha256>/<filename>    the RPMs of all versions, read-only
    versions/<N>/repodata/                  version N, never changed again; `packages` beside it is a link to the pool
    current/repodata/                       the metadata files of all kept versions, by digest, and
    current/repodata/repomd.xml             a link to that of the newest version, replaced atomically
    state/                                  the ledger, the lock, unfinished files: not for clients

A client that read `repomd.xml` just before a switch still finds the files it names, because those of old versions
stay until `retain` removes their version. A package of the same file name with other content replaces the old one
in the new version; old versions keep theirs, since the digest is part of the path.

Publishing is a group commit. An `add` reads its RPMs and writes them to the ledger as waiting, without the lock;
then whoever gets the lock publishes all that waits as one version, and the others find theirs done. The ledger
is written first and files are made from it, so a process killed at any point leaves what the next one completes:
waiting packages are published by the next `add` to that repository, whoever asks.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from farm.errors import BadRequest, BadSource, RepositoryTrouble, disk_errors
from farm.repositories.base import RepositoryName, RepositoryPackage
from farm.repositories.ledger import Ledger, Row, Writing
from farm.repositories.metadata import PackageXml, read_package, write_version
from farm.repositories.staging import locked, staging, sweep

_LOCK_TIMEOUT_S = 300.0
_KEEP_VERSIONS = 20
_GRACE_S = 8 * 3600.0  # longer than a client reads, and than a build, which is pinned to a version, may wait and run
_RETAIN_AT_ONCE = 64  # versions that one `add` removes at most, so that no add pays for long neglect
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]*\.rpm")
_FILENAME_MAX = 255  # what Linux file systems take
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DirectoryRepositories:
    """Safe to use from many threads and processes at once, on one machine."""

    def __init__(self, root: Path, *, keep: int = _KEEP_VERSIONS, grace_s: float = _GRACE_S) -> None:
        """Every publication also retains: `keep` versions and all that are younger than `grace_s`."""
        self._root = root.absolute()
        self._keep = keep
        self._grace_s = grace_s

    def add(self, name: RepositoryName, packages: Sequence[RepositoryPackage]) -> int:
        """See the protocol."""
        wanted = _checked(packages)
        with self._open(name, "packages were not added") as repository:
            if not wanted:
                return repository.current()
            return repository.publish(repository.submit(wanted), keep=self._keep, grace_s=self._grace_s)

    def current(self, name: RepositoryName) -> int:
        """See the protocol."""
        with self._open(name, "the newest version is not known") as repository:
            return repository.current()

    def url(self, name: RepositoryName, version: int | None = None) -> str:
        """See the protocol. Of a version that retention removed, the URL leads nowhere."""
        with self._open(name, "it cannot be made") as repository:
            folder = repository.view if version is None else repository.versions / str(version)
        return f"file://{quote(str(folder))}/"

    def retain(self, name: RepositoryName, keep: int, *, grace_s: float = _GRACE_S) -> None:
        """Remove all versions but the newest `keep` (at least one) and those younger than `grace_s`, with the
        packages that only they had."""
        with (
            self._open(name, "old versions were not removed") as repository,
            locked(repository.lock, timeout_s=_LOCK_TIMEOUT_S),
        ):
            while repository.remove_old(keep=keep, grace_s=grace_s):
                pass

    @contextmanager
    def _open(self, name: RepositoryName, failure: str) -> Iterator["_Repository"]:
        if not _TARGET.fullmatch(name.target):
            raise BadRequest(f"{name.target[:80]!a} cannot be part of a repository's path; rename the target")
        with disk_errors(RepositoryTrouble, f"repository {name.path}: {failure}"):
            repository = _Repository(self._root / name.path)
            try:
                repository.ensure()
                yield repository
            finally:
                repository.close()


class _Repository:
    """One repository's folder."""

    def __init__(self, root: Path) -> None:
        self.versions = root / "versions"
        self.view = root / "current"
        self.lock = root / "state/lock"
        self._pool = root / "packages"
        self._unfinished = root / "state/unfinished"
        self._ledger = Ledger(root / "state/ledger.db")

    def close(self) -> None:
        self._ledger.close()

    @property
    def _switch(self) -> Path:
        return self.view / "repodata/repomd.xml"

    def ensure(self) -> None:
        """Version 0 is published before anyone sees the repository."""
        if self._switch.is_symlink():
            return
        for folder in (self.versions, self._switch.parent, self._pool, self._unfinished):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(self.lock, timeout_s=_LOCK_TIMEOUT_S):
            if not self._switch.is_symlink():
                with suppress(FileExistsError):
                    (self.view / "packages").symlink_to("../packages")
                self._ledger.create(_now_s())
                self._show_newest()

    def current(self) -> int:
        # ../../versions/<N>/repodata/repomd.xml
        return int(self._switch.readlink().parent.parent.name)

    def submit(self, wanted: dict[Row, Path]) -> list[int]:
        """Write what is missing to the ledger as waiting; returns the ids of all. Takes no lock for long."""
        rows = list(wanted)
        known = self._ledger.here(rows)
        if len(known) == len(rows):
            return list(known.values())
        with staging(self._unfinished) as folder:
            staged: dict[Row, PackageXml] = {}
            for row in rows:
                if row not in known:
                    path = folder / row.sha256 / row.filename
                    path.parent.mkdir(exist_ok=True)
                    _bring(wanted[row], path)
                    staged[row] = read_package(
                        path, sha256=row.sha256, location=f"packages/{_place(row)}", shown=repr(row.filename)
                    )
            try:
                # Putting packages into the pool and into the ledger is one transaction, so that whoever removes
                # packages that nothing needs, in a transaction too, never sees one in between.
                with self._ledger.writing(durable=False) as writing:
                    return [self._submit_one(writing, row, folder, staged.get(row)) for row in rows]
            except BaseException:
                self._drop_unknown(folder)
                raise

    def publish(self, ids: Sequence[int], *, keep: int, grace_s: float) -> int:
        """Wait until all are in a version that clients see, publishing if nobody else does; returns its number."""
        seen = self.current()

        def done() -> int | None:
            number = self._ledger.added_in(ids)
            return number if number is not None and number <= self.current() else None

        def is_done_by_another() -> bool:
            return self.current() != seen and done() is not None

        number = done()
        if number is not None:
            return number
        with locked(self.lock, timeout_s=_LOCK_TIMEOUT_S, unless=is_done_by_another) as is_mine:
            if is_mine and done() is None:
                sweep(self._unfinished, self._drop_unknown)
                if self._ledger.newest().number != self.current():
                    self._show_newest()  # of a process that was killed here: every version in the ledger has its files
                with self._ledger.writing(durable=True) as writing:
                    writing.publish(_now_s())
                self._show_newest()
                self.remove_old(keep=keep, grace_s=grace_s)
            number = done()
        if number is None:
            raise RepositoryTrouble(f"{self.view} does not show what was just published; try again")
        return number

    def remove_old(self, *, keep: int, grace_s: float) -> bool:
        """Remove some old versions, under the lock; False when there are none left to remove."""
        before_s = _now_s() - grace_s
        with self._ledger.writing(durable=False) as writing:
            numbers = writing.old_versions(keep=keep, before_s=before_s, limit=_RETAIN_AT_ONCE)
            for number in numbers:
                self._remove_files(number)
                writing.forget_version(number)
            if numbers:
                for row in writing.forget_packages():
                    (self._pool / _place(row)).unlink(missing_ok=True)
        return bool(numbers)

    def _submit_one(self, writing: Writing, row: Row, folder: Path, xml: PackageXml | None) -> int:
        id_ = writing.here(row)
        if id_ is not None:
            return id_
        if xml is None:
            raise RepositoryTrouble(f"{row.filename!r} was replaced by another build's just now; try again")
        place = self._pool / _place(row)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # of an older version, or of a killed process: the same content, and whole
            place.hardlink_to(folder / row.sha256 / row.filename)
        return writing.add(row, xml)

    def _drop_unknown(self, folder: Path) -> None:
        """Take out of the pool what an unfinished `submit` put there and the ledger does not know."""
        with self._ledger.writing(durable=False) as writing:
            for path in folder.glob("*/*.rpm"):
                row = Row(filename=path.name, sha256=path.parent.name)
                if not writing.knows(row):
                    (self._pool / _place(row)).unlink(missing_ok=True)

    def _show_newest(self) -> None:
        """Make the files of the ledger's newest version, and switch clients to it. Safe to repeat."""
        newest = self._ledger.newest()
        version = self.versions / str(newest.number)
        with staging(self._unfinished) as folder:
            if not version.exists():
                made = folder / "version"
                (made / "repodata").mkdir(parents=True)
                (made / "packages").symlink_to("../../packages")
                with self._ledger.groups() as groups:
                    write_version(
                        made / "repodata",
                        groups,
                        count=newest.packages,
                        revision=newest.number,
                        timestamp_s=int(newest.published_at_s),
                    )
                self._share(made / "repodata")
                made.rename(version)
            link = folder / "repomd.xml"
            link.symlink_to(f"../../versions/{version.name}/repodata/repomd.xml")
            link.rename(self._switch)

    def _share(self, repodata: Path) -> None:
        """Give every metadata file its second name in `current`. What another version has already is used again."""
        for path in repodata.iterdir():
            shared = self._switch.parent / path.name
            if path.name != self._switch.name and shared.exists():
                path.unlink()
                path.hardlink_to(shared)
                continue
            _synchronise(path)
            if path.name != self._switch.name:
                shared.hardlink_to(path)

    def _remove_files(self, number: int) -> None:
        repodata = self.versions / str(number) / "repodata"
        if not repodata.exists():
            return
        names = [path.name for path in repodata.iterdir() if path.name != self._switch.name]
        shutil.rmtree(repodata.parent)
        for name in names:
            shared = self._switch.parent / name
            with suppress(FileNotFoundError):
                # One link left means that no other version has this file.
                if shared.stat().st_nlink == 1:
                    shared.unlink()


def _checked(packages: Sequence[RepositoryPackage]) -> dict[Row, Path]:
    """By place, each once. Raises BadSource for names and digests that cannot be part of a path or a URL."""
    wanted: dict[Row, Path] = {}
    by_name: dict[str, str] = {}
    for package in packages:
        filename = package.filename
        if not _FILENAME.fullmatch(filename) or len(filename) > _FILENAME_MAX:
            raise BadSource(
                f"{filename[:80]!a} is not an RPM's file name: at most {_FILENAME_MAX} letters, digits, ._+~^- and .rpm"
            )
        if not _SHA256.fullmatch(package.sha256):
            raise BadSource(f"{filename!r} is given with {package.sha256[:80]!a}, which is not a sha256")
        if by_name.setdefault(filename, package.sha256) != package.sha256:
            raise BadSource(f"{filename!r} is given twice with different content; a repository has one of a name")
        wanted[Row(filename=filename, sha256=package.sha256)] = package.path
    return wanted


def _place(row: Row) -> str:
    """A package's path in the pool. It is unique to the content, so a place is never written twice."""
    return f"{row.sha256[:2]}/{row.sha256}/{row.filename}"


def _bring(source: Path, path: Path) -> None:
    """A read-only copy of a package, on the disk; a hard link where nobody can write to the original."""
    if not source.exists():
        raise RepositoryTrouble(f"{source} is not there; bring it again")
    found = source.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise BadSource(f"{str(source)!a} is not a regular file")
    if found.st_mode & 0o222 == 0 and found.st_uid in (0, os.geteuid()):
        with suppress(OSError):  # another file system, or as many links as this one allows: a copy is as good
            os.link(source, path, follow_symlinks=False)
    if not path.exists():
        shutil.copyfile(source, path)
        path.chmod(0o444)
    _synchronise(path)


def _synchronise(path: Path) -> None:
    """Bring the file to the disk first: what a ledger or a link speaks of must survive a power cut with it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
