"""The farm from Python: `from farm import Farm`. The command line is a thin layer on top of it."""

from typing import TYPE_CHECKING, Any

from farm.client.api import FarmApi
from farm.client.handle import BatchHandle, BuildHandle
from farm.service.files import StoredFile
from farm.service.repository import PackageKind, Repository, Rollback
from farm.service.watch import Event

if TYPE_CHECKING:
    from farm.client.farm import Farm


def __getattr__(name: str) -> Any:
    """`Farm` on first use: a client of a farm's server needs no database, whose library takes long to import."""
    if name != "Farm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from farm.client.farm import Farm

    return Farm


__all__ = [
    "BatchHandle",
    "BuildHandle",
    "Event",
    "Farm",
    "FarmApi",
    "PackageKind",
    "Repository",
    "Rollback",
    "StoredFile",
]
