"""The content of stored artifacts, for tests that check it."""

from pathlib import Path

from farm.artifacts.base import ArtifactStore


def content_of(store: ArtifactStore, sha256: str) -> bytes:
    """Raises NotFound."""
    with store.open(sha256) as file:
        return file.read()


def path_of(store: ArtifactStore, sha256: str) -> Path:
    """The file of a store that is a directory on this machine. Raises NotFound."""
    with store.local(sha256) as path:
        return path
