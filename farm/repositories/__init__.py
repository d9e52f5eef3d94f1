"""Package repositories, and which back end the settings name."""

from farm.config import Settings
from farm.repositories.base import RepositoryBackend, RepositoryKind, RepositoryName, RepositoryPackage

__all__ = ["RepositoryBackend", "RepositoryKind", "RepositoryName", "RepositoryPackage", "open_repositories"]


def open_repositories(settings: Settings) -> RepositoryBackend:
    """Cheap: reads nothing until a repository is used."""
    from farm.repositories.directory import DirectoryRepositories

    return DirectoryRepositories(settings.repositories)
