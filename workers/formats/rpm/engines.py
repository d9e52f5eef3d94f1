"""The engine that builds for a target."""

from farm.config import Settings
from farm.model.target import EngineName, Target
from workers.formats.rpm.engine import BuildEngine
from workers.formats.rpm.native import NativeEngine
from workers.isolation.confine import confinement


def engine_for(target: Target, settings: Settings) -> BuildEngine:
    match target.engine:
        case EngineName.NATIVE:
            return NativeEngine(settings)
        case EngineName.MOCK:
            from workers.formats.rpm.mock.engine import MockEngine

            confinement(settings, target)
            return MockEngine(settings)
