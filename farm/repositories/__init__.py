"""Package repositories, and which back end the settings name."""

from farm.config import PULP, Settings
from farm.repositories.base import (
    RepositoryBackend,
    RepositoryCheck,
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
    RepositoryVersion,
)

__all__ = [
    "RepositoryBackend",
    "RepositoryCheck",
    "RepositoryFile",
    "RepositoryKind",
    "RepositoryName",
    "RepositoryPackage",
    "RepositoryVersion",
    "open_repositories",
]


def open_repositories(settings: Settings) -> RepositoryBackend:
    """Cheap: reads nothing and makes no connection until a repository is used."""
    if settings.repositories == PULP:
        from farm.repositories.pulp import PulpRepositories

        return PulpRepositories(settings)
    from farm.repositories.directory import DirectoryRepositories

    return DirectoryRepositories(settings.repositories_dir)
