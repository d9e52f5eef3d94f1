"""The package formats that this host builds, by name, and the work that is done for all of them together.

A new format is a folder beside this file and a line here, or a module that FARM_EXTENSIONS names and that calls
`register`.
"""

from collections.abc import Mapping
from functools import partial

from farm.config import Settings
from farm.errors import HostUnfit
from farm.extensions import load_extensions
from farm.model.target import Target
from workers.formats.base import Fitness, WorkerFormat
from workers.formats.rpm.format import RpmWorkerFormat
from workers.isolation import cgroups
from workers.isolation.scratch import alive_folder, attempted, sweep_orphans
from workers.roots.session import PREFIX
from workers.roots.stacked import sweep_roots

_formats: dict[str, WorkerFormat] = {}


def register(one: WorkerFormat) -> None:
    """Make a format known to this process. Raises ValueError for a name that is taken."""
    if one.name in _formats:
        raise ValueError(f"there is a package format {one.name!r} already")
    _formats[one.name] = one


def format_of(target: Target) -> WorkerFormat:
    """Raises HostUnfit for a target of a format that this host does not know."""
    load_extensions()
    if target.format not in _formats:
        raise HostUnfit(f"this host does not know packages of the format {target.format[:64]!a}")
    return _formats[target.format]


def fitness(settings: Settings, tools: Mapping[str, str]) -> Fitness:
    """The engines of all formats. A host is unfit if it can make roots of no format; the answer has all reasons."""
    found = [one.fitness(settings, tools) for one in _all()]
    problems = [one.unfit for one in found]
    unfit = None if None in problems else "; ".join(dict.fromkeys(filter(None, problems)))
    return Fitness(engines=tuple(dict.fromkeys(name for one in found for name in one.engines)), unfit=unfit)


def sweep(settings: Settings) -> int:
    """Remove the cgroups, sessions and half-made roots of dead workers. Returns their number. Called when a worker
    starts.

    Mounts and processes need no sweep: both end with the worker, however it ends. A failure is logged, and the sweep
    goes on with the rest.
    """

    def sessions(depth: str) -> int:
        return sweep_orphans(settings.work.glob(f"{depth}/{PREFIX}-*"), PREFIX, alive_folder(settings))

    return (
        attempted("cgroups", lambda: cgroups.sweep(cgroups.place()))
        + attempted(str(settings.templates), lambda: sweep_roots(settings))
        + sum(attempted("sessions", partial(sessions, depth)) for depth in ("*", "*/*", "*/*/*"))
        + sum(attempted(f"{one.name} packages", partial(one.sweep, settings)) for one in _all())
    )


def _all() -> tuple[WorkerFormat, ...]:
    load_extensions()
    return tuple(_formats.values())


register(RpmWorkerFormat())
