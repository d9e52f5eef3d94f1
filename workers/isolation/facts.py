"""Facts about this machine: its arches, resources and tools. Reads them, and changes nothing.

Does not decide which steps the machine can run: each engine says so.
"""

import functools
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.config import Settings
from farm.model.arch import Arch
from workers.core.run import CommandFailed, capture
from workers.isolation import cgroups
from workers.isolation.cgroups import CgroupKind
from workers.isolation.emulator import arches, native_arch

_TOOLS = ("bwrap", "cc", "dnf", "rpm", "git", "mock")
_VERSION_BYTES = 4096
_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """`arches` has the native arch first, then each arch whose emulator ran a probe. `cgroups` is "none" where resource
    limits replace them. `tools` has each tool that was found, with its version."""

    name: str
    kernel: str
    is_root: bool
    arches: tuple[Arch, ...]
    native_arch: Arch | None
    cpus: int
    memory_bytes: int
    disk_free_bytes: int
    cgroups: CgroupKind
    tools: Mapping[str, str]


def host_facts(settings: Settings) -> HostFacts:
    """Cheap to call again: facts that do not change are read once."""
    return HostFacts(
        name=platform.node(),
        kernel=platform.release(),
        is_root=os.geteuid() == 0,
        arches=arches(),
        native_arch=native_arch(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free_bytes=shutil.disk_usage(_existing(settings.work)).free,
        cgroups=cgroups.place().kind,
        tools=_tools(),
    )


@functools.lru_cache(maxsize=1)
def _tools() -> Mapping[str, str]:
    """The first line of each installed tool's `--version`."""
    found = {}
    for tool in _TOOLS:
        if shutil.which(tool):
            found[tool] = _version(tool)
    return found


def _version(tool: str) -> str:
    try:
        text = capture([tool, "--version"], cwd=Path("/"), timeout_s=_TIMEOUT_S, limit_bytes=_VERSION_BYTES)
    except CommandFailed as error:
        return f"does not say: {error}"
    return text.decode(errors="backslashreplace").split("\n", 1)[0][:100]


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
