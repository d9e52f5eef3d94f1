"""One repository of the directory back end: its folder, its pool of packages, and their publication.

Owns the files below the folder and the order in which they change; the ledger knows the packages of each version,
the format's index the form of the metadata. directory.py describes the layout.
"""

import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

from farm.errors import NotFound, RepositoryTrouble
from farm.formats.base import Format
from farm.formats.index import Edition, Entry, Given, IndexedPackage
from farm.repositories.base import RepositoryVersion
from farm.repositories.checks import check_metadata
from farm.repositories.ledger import Ledger, Row, Version, Writing
from farm.repositories.staging import bring_all, check_stop, locked, staging, sweep, synchronise

_LOCK_TIMEOUT_S = 300.0
#: Whoever may read a lock file may hold its lock, users of the machine and programs in a build root among them.
_STATE_MODE = 0o700
_RETAIN_AT_ONCE = 64  # versions that one `add` removes at most, so that no add pays for long neglect
#: Adds of so many seconds after a version share the next one. An upload waits twice for this at most, and many builds
#: that end in each second cost a few versions and not one each.
PAUSE_S = 0.5
_LOOK_S = 0.01


class RepositoryFolder:
    """One repository's folder."""

    def __init__(self, root: Path, form: Format, *, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._index = form.index
        self._suffix = form.suffix
        # Below a version and below `current`.
        self._index_folder, _, self._top = self._index.top.partition("/")
        self.versions = root / "versions"
        self.view = root / "current"
        self._lock = root / "state/lock"
        self._pool = root / "packages"
        self._unfinished = root / "state/unfinished"
        self._ledger = Ledger(root / "state/ledger.db", self._index)

    def close(self) -> None:
        self._ledger.close()

    @property
    def _switch(self) -> Path:
        return self.view / self._index.top

    def ensure(self) -> None:
        """Version 0 is published before anyone sees the repository."""
        if self._switch.is_symlink() and stat.S_IMODE(self._lock.parent.stat().st_mode) == _STATE_MODE:
            return
        for folder in (self.versions, self._switch.parent, self._pool, self._unfinished):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock.parent.chmod(_STATE_MODE)
        with locked(self._lock, timeout_s=_LOCK_TIMEOUT_S):
            if not self._switch.is_symlink():
                with suppress(FileExistsError):
                    (self.view / "packages").symlink_to("../packages")
                self._ledger.create(_now_s())
                self._show_newest()

    def current(self) -> int:
        # ../../versions/<N>/<folder>/<top file>
        return int(self._switch.readlink().parent.parent.name)

    def url(self, version: int | None) -> str:
        folder = self.view if version is None else self.versions / str(version)
        return f"file://{quote(str(folder))}/"

    def listed(self) -> tuple[RepositoryVersion, ...]:
        """The versions that are kept, newest first."""
        shown = self.current()
        return tuple(
            RepositoryVersion(
                number=version.number,
                published_at=datetime.fromtimestamp(version.published_at_s, UTC),
                packages=version.packages,
                url=self.url(version.number),
                is_current=version.number == shown,
            )
            for version in self._whole()
            if version.number <= shown  # a killed process may have left one that no client sees yet
        )

    def _whole(self) -> list[Version]:
        """The versions in the ledger, without one whose removal was interrupted: a removal deletes a version's files
        first, then its own packages, and its record last.
        """
        newest, *others = self._ledger.versions()
        return [newest, *(one for one in others if self._index_of(one.number).exists())]

    def index(self, number: int) -> tuple[IndexedPackage, ...]:
        """The packages of a kept version. Raises NotFound."""
        if number == 0:
            return ()
        self._check_kept(number)
        try:
            return self._index.packages(self._index_of(number))
        except RepositoryTrouble as error:
            self._check_kept(number)  # its removal may have come in between
            raise RepositoryTrouble(f"the metadata of version {number} is damaged: {error}") from error

    def _index_of(self, number: int) -> Path:
        return self.versions / str(number) / self._index_folder

    def contents(self, number: int, sha256s: Collection[str]) -> dict[Row, tuple[Path, Entry]]:
        """The packages of these digests that the kept version has, with file and entry. Raises NotFound."""
        if number == 0:
            return {}
        self._check_kept(number)
        found = self._ledger.packages(number, sha256s)
        return {row: (self._pool / _place(row), entry) for row, entry in found.items()}

    def _check_kept(self, number: int) -> None:
        kept = [version.number for version in self.listed()]
        if number not in kept:
            raise _not_kept(number, kept)

    def submit(
        self,
        wanted: Mapping[Row, Path],
        *,
        entries: Mapping[Row, Entry] | None = None,
        stop: threading.Event | None,
    ) -> dict[int, bool]:
        """Write missing packages to the ledger as waiting; returns the ids of all, and whether each is new. Takes no
        lock for long. `entries` has those of packages that another repository has: their files are not read."""
        rows = list(wanted)
        known = self._ledger.here(rows)
        if len(known) == len(rows):
            return dict.fromkeys(known.values(), False)
        with staging(self._unfinished) as folder:
            staged: dict[Row, Entry] = {}
            size_bytes = 0
            paths = {row: folder / row.sha256 / row.filename for row in rows if row not in known}
            for path in paths.values():
                path.parent.mkdir(exist_ok=True)
            bring_all([(wanted[row], path) for row, path in paths.items()], stop)
            for row, path in paths.items():
                check_stop(stop)
                staged[row] = entries[row] if entries else self._read(path, row, stop)
                if not entries:
                    size_bytes += sum(map(len, staged[row]))
                    check_metadata(size_bytes)
            try:
                # One transaction puts packages into the pool and into the ledger. The removal of unneeded packages is a
                # transaction too, so it never sees a package in only one of them.
                with self._ledger.writing(durable=False) as writing:
                    return dict(self._submit_one(writing, row, folder, staged.get(row)) for row in rows)
            except BaseException:
                self._drop_unknown(folder)
                raise

    def inspect(self, wanted: Mapping[Row, Path], *, stop: threading.Event | None) -> None:
        """Read the missing packages as `submit` does, and write nothing."""
        known = self._ledger.here(list(wanted))
        size_bytes = 0
        for row, path in wanted.items():
            if row not in known:
                check_stop(stop)
                if not path.exists():
                    raise RepositoryTrouble(f"{path} is not there; bring it again")
                size_bytes += sum(map(len, self._read(path, row, stop)))
                check_metadata(size_bytes)

    def withdraw(self, ids: Sequence[int]) -> None:
        """Withdraw those of these packages that still wait."""
        folder = None
        with ExitStack() as stack:
            with suppress(OSError):  # a full disk must not prevent a withdrawal
                folder = stack.enter_context(staging(self._unfinished))
            with self._ledger.writing(durable=True) as writing:
                rows = writing.withdraw(ids)
                if folder is not None:
                    _note(folder, rows)
            # This comes last, so that a killed process leaves no row in the ledger without its file.
            self._drop(rows)

    def publish(self, ids: Sequence[int], *, keep: int, grace_s: float, stop: threading.Event | None) -> int:
        """Wait until all are in a version that clients see, publishing if no other process does; returns its number.

        Adds that come soon after the last version wait a little, and are published together.
        """
        seen = self.current()

        def done() -> int | None:
            return self._ledger.version_with(ids, shown=self.current())

        def is_done_by_another() -> bool:
            return self.current() != seen and done() is not None

        for is_last in (False, True):
            number = done()
            if number is not None:
                return number
            self._pause(unless=is_done_by_another, stop=stop)
            with locked(self._lock, timeout_s=_LOCK_TIMEOUT_S, unless=is_done_by_another, stop=stop) as is_mine:
                # If another has published while this one waited for the lock, it is too early for the next version.
                if is_mine and done() is None and (is_last or not self._is_young()):
                    self._publish_waiting(keep=keep, grace_s=grace_s)
        number = done()
        if number is None:
            # Or another upload with some of the same packages was cancelled, and has withdrawn them.
            raise RepositoryTrouble(f"{self.view} does not show what was just published; try again")
        return number

    def _publish_waiting(self, *, keep: int, grace_s: float) -> None:
        """Under the lock."""
        self._complete()
        with self._ledger.writing(durable=True) as writing:
            writing.publish(_now_s())
        self._show_newest()
        self.remove_old(keep=keep, grace_s=grace_s)

    def _pause(self, *, unless: Callable[[], bool], stop: threading.Event | None) -> None:
        """Wait, without the lock, while the newest version is too young for the next."""
        deadline = time.monotonic() + self._pause_s  # a clock that is put back must not make the wait longer
        while self._is_young() and not unless() and time.monotonic() < deadline:
            check_stop(stop)
            time.sleep(_LOOK_S)

    def _is_young(self) -> bool:
        return self.current() > 0 and _now_s() < self._switch.lstat().st_mtime + self._pause_s

    def rollback(self, to: int) -> int:
        """A new version with the content of version `to`; the current one's number where that has the same.

        Waiting packages are not affected. Raises NotFound for a version that is not kept.
        """
        with locked(self._lock, timeout_s=_LOCK_TIMEOUT_S):
            self._complete()
            kept = [version.number for version in self._whole()]
            if to not in kept:
                raise _not_kept(to, kept)
            with self._ledger.writing(durable=True) as writing:
                writing.restore(to, _now_s())
            self._show_newest()
            return self.current()

    def remove(self, sha256s: Collection[str], *, keep: int, grace_s: float, stop: threading.Event | None) -> int:
        """A new version without these packages; the current one's number where that has none of them."""
        with locked(self._lock, timeout_s=_LOCK_TIMEOUT_S, stop=stop):
            check_stop(stop)
            self._complete()
            with self._ledger.writing(durable=True) as writing:
                writing.remove(sha256s, _now_s())
            self._show_newest()
            self.remove_old(keep=keep, grace_s=grace_s)
            return self.current()

    def retain(self, *, keep: int, grace_s: float) -> None:
        """`remove_old` until nothing is left to remove."""
        with locked(self._lock, timeout_s=_LOCK_TIMEOUT_S):
            while self.remove_old(keep=keep, grace_s=grace_s):
                pass

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

    def _complete(self) -> None:
        """Under the lock: finish and clean up after processes that were killed."""
        sweep(self._unfinished, self._drop_unknown)
        if self._ledger.newest().number != self.current():
            self._show_newest()  # every version in the ledger has its files

    def _read(self, path: Path, row: Row, stop: threading.Event | None) -> Entry:
        location, shown = f"packages/{_place(row)}", repr(row.filename)
        given = Given(
            path=path, sha256=row.sha256, location=location, shown=shown, check_stop=partial(check_stop, stop)
        )
        return self._index.read(given)

    def _submit_one(self, writing: Writing, row: Row, folder: Path, entry: Entry | None) -> tuple[int, bool]:
        id_ = writing.here(row)
        if id_ is not None:
            return id_, False
        if entry is None:
            raise RepositoryTrouble(f"{row.filename!r} was replaced by another build's just now; try again")
        place = self._pool / _place(row)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # from an older version, or a killed process: the same content, and complete
            place.hardlink_to(folder / row.sha256 / row.filename)
        return writing.add(row, entry), True

    def _drop_unknown(self, folder: Path) -> None:
        """Delete packages in the pool that the ledger does not know, from an unfinished `submit` or `withdraw`."""
        self._drop([Row(filename=path.name, sha256=path.parent.name) for path in folder.glob(f"*/*{self._suffix}")])

    def _drop(self, rows: Sequence[Row]) -> None:
        with self._ledger.writing(durable=False) as writing:
            for row in rows:
                if not writing.knows(row):
                    (self._pool / _place(row)).unlink(missing_ok=True)

    def _show_newest(self) -> None:
        """Make the files of the ledger's newest version, and switch clients to it. Safe to repeat."""
        newest = self._ledger.newest()
        version = self.versions / str(newest.number)
        with staging(self._unfinished) as folder:
            if not version.exists():
                made = folder / "version"
                (made / self._index_folder).mkdir(parents=True)
                (made / "packages").symlink_to("../../packages")
                with self._ledger.groups() as groups:
                    self._index.write(made / self._index_folder, groups, _edition(newest))
                self._share(made / self._index_folder)
                made.rename(version)
            link = folder / "link"
            link.symlink_to(f"../../versions/{version.name}/{self._index.top}")
            link.rename(self._switch)

    def _share(self, index: Path) -> None:
        """Give every file but the top one its second name in `current`. Files that another version has are reused."""
        for path in index.iterdir():
            shared = self._switch.parent / path.name
            if path.name != self._top and shared.exists():
                path.unlink()
                path.hardlink_to(shared)
                continue
            synchronise(path)
            if path.name != self._top:
                shared.hardlink_to(path)

    def _remove_files(self, number: int) -> None:
        index = self._index_of(number)
        if not index.exists():
            return
        names = [path.name for path in index.iterdir() if path.name != self._top]
        shutil.rmtree(index.parent)
        for name in names:
            shared = self._switch.parent / name
            with suppress(FileNotFoundError):
                # One link left means that no other version has this file.
                if shared.stat().st_nlink == 1:
                    shared.unlink()


def _note(folder: Path, rows: Sequence[Row]) -> None:
    """It is for the clean-up after a killed process."""
    for row in rows:
        with suppress(OSError):
            (folder / row.sha256).mkdir(exist_ok=True)
            (folder / row.sha256 / row.filename).touch()


def _not_kept(number: int, kept: Sequence[int]) -> NotFound:
    return NotFound(f"there is no version {number}; there are {', '.join(map(str, kept))}")


def _edition(version: Version) -> Edition:
    return Edition(number=version.number, packages=version.packages, published_at_s=int(version.published_at_s))


def _place(row: Row) -> str:
    """A package's path in the pool. It is unique to the content, so a place is never written twice."""
    return f"{row.sha256[:2]}/{row.sha256}/{row.filename}"


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
