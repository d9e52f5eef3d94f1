"""The artifact store, and which one the settings name."""

from farm.artifacts.base import ArtifactStore
from farm.config import Settings

__all__ = ["ArtifactStore", "open_store"]


def open_store(settings: Settings) -> ArtifactStore:
    """Cheap: makes no connection and reads nothing until the store is used."""
    from farm.artifacts.directory import DirectoryStore

    return DirectoryStore(settings.artifacts)
