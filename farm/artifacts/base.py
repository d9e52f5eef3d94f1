"""The artifact store's protocol: files by sha256. The store never shows a part of a file."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from farm.model.artifact import Artifact, ArtifactKind


@dataclass(frozen=True, kw_only=True)
class Access:
    """The credential with which a worker opens the store: the attempt that it runs, and that attempt's token. A store
    on this machine asks for none.
    """

    attempt: str
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of the store. `stored_at` is the time when it was last stored, or linked to a path outside the store."""

    sha256: str
    size_bytes: int
    stored_at: datetime


class ArtifactStore(Protocol):
    def put(
        self,
        path: Path,
        *,
        name: str,
        kind: ArtifactKind,
        identity: str | None = None,
        move: bool = False,
        stop: threading.Event | None = None,
    ) -> Artifact:
        """Store a regular file under its digest; storing the same content again is a no-op.

        With `move` the caller gives the file up, which lets a store on the same file system take it without a
        copy. Raises StoreTrouble, BadSource for anything but a regular file (symlinks are not followed), and
        ValueError for a name that is not a plain printable base name; LeaseLost, soon after `stop` is set, however
        large the file.
        """

    def get(self, artifact: Artifact, into: Path, *, stop: threading.Event | None = None) -> Path:
        """Make a read-only file with the artifact's content at the full path `into`. It may be a hard link: never
        write to it. Raises NotFound for an unknown digest, LeaseLost, soon after `stop` is set, however large the file,
        and StoreTrouble otherwise.
        """

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        """The content from the byte at `offset` on, empty if the file ends before it. The caller closes it.

        Raises NotFound for an unknown digest, ValueError for a negative offset, StoreTrouble otherwise; reading raises
        OSError.
        """

    def local(self, sha256: str, *, stop: threading.Event | None = None) -> AbstractContextManager[Path]:
        """A read-only file of this machine with the content, for programs and libraries that take a path. It may be the
        store's own file, or a copy that is deleted when the context ends: never write to it, and never keep the path.

        Raises NotFound for an unknown digest, LeaseLost, soon after `stop` is set, StoreTrouble otherwise.
        """

    def listed(self) -> Iterator[StoredFile]:
        """All files, in no order. Raises StoreTrouble."""

    def remove(
        self, files: Sequence[StoredFile], *, unless: Callable[[Collection[str]], Collection[str]]
    ) -> Sequence[StoredFile]:
        """Remove the files, and return the files that were removed. A file stays if it was stored again meanwhile, or
        if `unless` returns its digest. `unless` is called when no process can find the files any more.

        Raises StoreTrouble, and errors of `unless`; after an error all files are back in their places.
        """
