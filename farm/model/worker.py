"""What a worker says of itself."""

from dataclasses import dataclass
from datetime import datetime

from farm.model.arch import Arch


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """`name` is Celery's node name; `slots` how many steps it runs at once; `arches` those it can build for."""

    name: str
    host: str
    queues: tuple[str, ...]
    slots: int
    arches: tuple[Arch, ...]
    started_at: datetime
    version: str
    cpus: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    engines: tuple[str, ...] = ()
    unfit: str | None = None
