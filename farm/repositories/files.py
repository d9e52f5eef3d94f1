"""Logs and records of the directory back end: plain files under the names they were given, without versions.

Owns the files below one `logs` folder. A file appears whole or not at all, under a name that was checked before.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from farm.errors import RepositoryTrouble
from farm.repositories.base import RepositoryFile
from farm.repositories.staging import bring, check_stop, pieces, staging, sweep

_UNFINISHED = ".unfinished"  # no added file can have this name


class FileFolder:
    """One folder of files. Safe to use from many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        return f"file://{quote(str(self._root))}/"

    def add(self, files: Sequence[RepositoryFile], *, stop: threading.Event | None = None) -> None:
        """Raises OSError; RepositoryTrouble for a file that is not there, or not what its digest says."""
        unfinished = self._root / _UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        sweep(unfinished, lambda _: None)
        with staging(unfinished) as folder:
            for number, file in enumerate(files):
                check_stop(stop)
                place = self._root / file.name
                if place.exists() and _sha256(place, stop) == file.sha256:
                    continue
                staged = folder / str(number)
                bring(file.path, staged, stop)
                found = _sha256(staged, stop)
                if found != file.sha256:
                    raise RepositoryTrouble(f"{file.name!r} has sha256 {found}, not {file.sha256}; store it again")
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(place)


def _sha256(path: Path, stop: threading.Event | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in pieces(file, stop):
            digest.update(piece)
    return digest.hexdigest()
