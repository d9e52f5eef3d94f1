"""Which engine builds for a target, and the sweep of what dead workers of any engine left."""

from farm.config import Settings
from farm.model.target import EngineName, Target
from workers.buildroot import cgroups
from workers.buildroot.base import BuildEngine
from workers.buildroot.native import NativeEngine
from workers.buildroot.room import PREFIX
from workers.buildroot.roots import sweep_roots
from workers.buildroot.scratch import is_orphan, remove_tree


def engine_for(target: Target, settings: Settings) -> BuildEngine:
    match target.engine:
        case EngineName.NATIVE:
            return NativeEngine(settings)
        case EngineName.MOCK:
            from workers.buildroot.mock import MockEngine

            return MockEngine(settings)


def sweep(settings: Settings) -> int:
    """Remove the cgroups, rooms and half-made roots of workers that are dead; how many. For when a worker starts.

    Mounts and processes need no sweep: both end with the worker, however it ends.
    """
    swept = cgroups.sweep(cgroups.place()) + sweep_roots(settings)
    for depth in ("*", "*/*", "*/*/*"):
        for folder in settings.work.glob(f"{depth}/{PREFIX}-*"):
            if is_orphan(folder.name, PREFIX):
                remove_tree(folder)
                swept += 1
    return swept
