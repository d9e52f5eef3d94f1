"""The readers of a git mirror: a mark in the mirror for each URL with credentials that its server has accepted.

All builds from one repository share a mirror, whatever credentials they use. The server must accept a reader's
credentials before the mirror gives the reader anything; a mark says that it has.
"""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_FOLDER = "farm-readers"
_KEPT_S = 30 * 86400  # the mark of a token that lives for minutes is useless afterwards


class Readers:
    """The marks in the mirror at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path / _FOLDER

    def used(self) -> None:
        """Record that the mirror is used now: `farm gc` removes the least recently used mirrors."""
        with suppress(OSError):
            os.utime(self._path)

    def knows(self, access: str) -> bool:
        return (self._folder / access).exists()

    def remember(self, access: str) -> None:
        """Make or renew the mark, and remove old ones. Without a mark the server is only asked again."""
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            (self._folder / access).touch()
            oldest = datetime.now(UTC).timestamp() - _KEPT_S
            for mark in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    if mark.stat().st_mtime < oldest:
                        mark.unlink()
