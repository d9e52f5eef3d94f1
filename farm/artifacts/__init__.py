"""The artifact store that the settings name."""

from farm.artifacts.base import ArtifactStore
from farm.config import Settings

__all__ = ["ArtifactStore", "open_store"]


def open_store(settings: Settings) -> ArtifactStore:
    """The call is cheap: the store makes no connection and reads nothing until it is used."""
    from farm.artifacts.directory import DirectoryStore

    return DirectoryStore(settings.artifacts)
