"""The artifact store that the settings name."""

from farm.artifacts.base import Access, ArtifactStore
from farm.config import Settings

__all__ = ["Access", "ArtifactStore", "open_store"]


def open_store(settings: Settings, *, access: Access | None = None) -> ArtifactStore:  # noqa: ARG001 - see below
    """The store that the settings name. A worker gives the `access` of the attempt that it runs; the farm's own
    processes and its clients on this machine give none.

    The call is cheap: the store makes no connection and reads nothing until it is used.
    """
    from farm.artifacts.directory import DirectoryStore

    # The directory asks for no credential: the rights of the files decide who reads them.
    return DirectoryStore(settings.artifacts)
