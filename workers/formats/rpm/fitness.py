"""The engines that work on this host, and the reason if the native one does not."""

import os
from collections.abc import Mapping

from farm.config import Settings
from farm.model.target import EngineName
from workers.formats.base import Fitness
from workers.isolation import confine

_NATIVE_TOOLS = ("bwrap", "cc", "dnf", "rpm")


def fitness(settings: Settings, tools: Mapping[str, str]) -> Fitness:
    """`tools` are those of this host (HostFacts)."""
    unfit = _native_problem(tools) or confine.host_problem(settings)
    engines = [EngineName.NATIVE] if unfit is None else []
    engines += [EngineName.MOCK] if "mock" in tools else []
    return Fitness(engines=tuple(str(engine) for engine in engines), unfit=unfit)


def _native_problem(tools: Mapping[str, str]) -> str | None:
    if os.geteuid() != 0:
        return "the worker is not root; start it with sudo"
    if missing := [tool for tool in _NATIVE_TOOLS if tool not in tools]:
        return f"{', '.join(missing)} is not installed; run deploy/bootstrap"
    return None
