"""The farm from Python: `from farm import Farm`. The command line is a thin layer on top of it."""

from farm.client.api import FarmApi
from farm.client.farm import Farm
from farm.client.handle import BatchHandle, BuildHandle
from farm.service.files import StoredFile
from farm.service.repository import PackageKind, Repository, Rollback
from farm.service.watch import Event

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
