"""Package repositories, and the back end that the settings name."""

from functools import lru_cache

from farm.config import PULP, Settings
from farm.formats.index import IndexedPackage
from farm.model.place import DEFAULT_PROJECT
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
    "DEFAULT_PROJECT",
    "IndexedPackage",
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
    """The call is cheap: the back end reads nothing and makes no connection until a repository is used."""
    if settings.repositories == PULP:
        return _pulp(settings)
    from farm.repositories.directory import DirectoryRepositories

    return DirectoryRepositories(settings.repositories_dir)


@lru_cache(maxsize=4)
def _pulp(settings: Settings) -> RepositoryBackend:
    """A process has one back end: signing in and reading the description of the API take half a second."""
    from farm.repositories.pulp import PulpRepositories

    return PulpRepositories(settings)
