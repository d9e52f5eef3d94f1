"""Runs one tool of the host on a root that is being made, in a sandbox: a package manager, or an archiver.

Owns the cgroup, the watch and the sandbox of one run. Does not own the tool's arguments, nor the judgement of its end,
which are the package format's.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from farm.model.target import Limits
from workers.core.context import StepContext
from workers.core.run import Completed, Ending, run
from workers.isolation import cgroups, sandbox
from workers.isolation.cgroups import Cgroup, CgroupKind
from workers.isolation.disk import DiskWatch
from workers.isolation.file_locks import LockWatch
from workers.isolation.outcomes import LimitsMet, limits_met
from workers.isolation.sandbox import Bind, Confinement, Overlay
from workers.isolation.sockets import SocketWatch

#: The limits of a tool that fills a root.
FILL_LIMITS = Limits(memory_bytes=8 * 2**30, processes=4096, disk_bytes=64 * 2**30, silence_s=600)
FILL_TIMEOUT_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """The end of the tool, and the place in the log where its output begins."""

    done: Completed
    met: LimitsMet
    log_from_bytes: int


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A command that sees the host's programs, read-only, and the root at /mnt/root. The log shows it as `shown`.
    `other_overlays` are shown wherever a bind has the path that each is paired with. `network` is the beginning of a
    command line whose command has the network that the tool is to see. `is_patient`: the tool itself gives up on a
    silent server."""

    argv: Sequence[str]
    shown: Sequence[str]
    root: Overlay
    binds: Sequence[Bind] = ()
    other_overlays: Sequence[tuple[Overlay, Path]] = ()
    env: Mapping[str, str]
    network: Sequence[str] | None = None
    is_patient: bool = False


def run_tool(
    tool: Tool,
    context: StepContext,
    confinement: Confinement,
    *,
    scratch: Path,
    limits: Limits = FILL_LIMITS,
    timeout_s: float = FILL_TIMEOUT_S,
    look: Callable[[], None] = lambda: None,
) -> ToolRun:
    """Run the tool within limits. `scratch` is an empty folder of this run, in the folder whose growth is watched;
    `look` is called repeatedly while the tool runs.

    Every end of the tool is in the answer. Raises LeaseLost when the context is stopped.
    """
    log_from_bytes, where = context.log.size_bytes, cgroups.place()
    with ExitStack() as stack:
        group = stack.enter_context(Cgroup(where, limits)) if where.kind is not CgroupKind.NONE else None
        watch = stack.enter_context(DiskWatch(scratch.parent, limit_bytes=limits.disk_bytes, limit_files=limits.files))
        sockets, locks = SocketWatch(group, limits), LockWatch(group, limits)

        def verdict() -> Ending | None:
            look()
            return watch.verdict() or sockets.verdict() or locks.verdict()

        done = run(
            _argv(tool, confinement, scratch, group.joins if group else (), limits),
            cwd=Path("/"),
            env=tool.env,
            timeout_s=timeout_s,
            deadline=context.deadline,
            log=context.log,
            ok_codes=None,
            stop=context.stop,
            silence_s=None if tool.is_patient else limits.silence_s,
            tree=group,
            watch=verdict,
            shown=tool.shown,
        )
        return ToolRun(done=done, met=limits_met(done, group), log_from_bytes=log_from_bytes)


def own(confinement: Confinement, *paths: Path) -> None:
    """Give paths to uid 0 of the root, which must be able to change or reach them."""
    for path in paths:
        os.chown(path, confinement.root_id, confinement.root_id)


def _argv(tool: Tool, confinement: Confinement, scratch: Path, joins: Sequence[Path], limits: Limits) -> list[str]:
    merged = scratch / "merged"
    overlays = [(tool.root, merged), *tool.other_overlays]
    for overlay, _ in overlays:
        for folder in (overlay.upper.parent, overlay.upper, overlay.work):
            folder.mkdir(exist_ok=True)
            own(confinement, folder)
    argv = sandbox.host_tool(
        tool.argv, confinement, root=merged, binds=tool.binds, has_network=tool.network is not None
    )
    return [*(tool.network or ()), *sandbox.enter(argv, confinement, overlays=overlays, joins=joins, limits=limits)]
