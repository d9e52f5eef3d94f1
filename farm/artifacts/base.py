"""The artifact store's protocol: files by sha256. The store never shows a part of a file."""

import threading
from pathlib import Path
from typing import Protocol

from farm.model.artifact import Artifact, ArtifactKind


class ArtifactStore(Protocol):
    def put(
        self,
        path: Path,
        *,
        name: str,
        kind: ArtifactKind,
        nevra: str | None = None,
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
        """A read-only file with the artifact's content at `into` (its full path). The file may be a hard link: never
        write to it. Raises NotFound for an unknown digest, LeaseLost, soon after `stop` is set, however large the file,
        and StoreTrouble otherwise.
        """

    def open_path(self, sha256: str) -> Path:
        """A path from which this machine can read the content. Raises NotFound."""
