"""Which engine builds for a target, and the sweep of what dead workers of any engine left."""

from functools import partial

from farm.config import Settings
from farm.model.target import EngineName, Target
from workers.formats.rpm.engine import BuildEngine
from workers.formats.rpm.native import NativeEngine
from workers.formats.rpm.roots import sweep_roots
from workers.isolation import cgroups
from workers.isolation.confine import confinement
from workers.isolation.room import PREFIX
from workers.isolation.scratch import alive_folder, attempted, sweep_orphans


def engine_for(target: Target, settings: Settings) -> BuildEngine:
    match target.engine:
        case EngineName.NATIVE:
            return NativeEngine(settings)
        case EngineName.MOCK:
            from workers.formats.rpm.mock.engine import MockEngine

            confinement(settings, target)
            return MockEngine(settings)


def sweep(settings: Settings) -> int:
    """Remove the cgroups, rooms and half-made roots of workers that are dead; how many. For when a worker starts.

    Mounts and processes need no sweep: both end with the worker, however it ends. What cannot be swept is logged, and
    keeps nothing else from being swept.
    """

    def rooms(depth: str) -> int:
        return sweep_orphans(settings.work.glob(f"{depth}/{PREFIX}-*"), PREFIX, alive_folder(settings))

    return (
        attempted("cgroups", lambda: cgroups.sweep(cgroups.place()))
        + attempted(str(settings.templates), lambda: sweep_roots(settings))
        + sum(attempted("rooms", partial(rooms, depth)) for depth in ("*", "*/*", "*/*/*"))
    )
