"""A room: one command of a recipe in a clean root, within limits, with nothing left afterwards.

Owns the scratch, the cgroup and the watch of one entry. Does not own the root it is stacked on, nor what the command
is, nor what its end means, which is workers/isolation/outcomes.py's.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from farm.errors import RootTrouble
from farm.model.outcome import Outcome
from farm.model.text import clip, printable
from workers.core.context import StepContext
from workers.core.run import Completed, Ending, run
from workers.isolation import cgroups, sandbox
from workers.isolation.cgroups import Cgroup, CgroupKind
from workers.isolation.disk import DiskWatch
from workers.isolation.outcomes import LimitsMet, judge, limits_met
from workers.isolation.sandbox import Bind, Confinement, Overlay
from workers.isolation.scratch import remove_tree, room_name

PREFIX = "room"
_numbers = count(1)
_ERROR = re.compile(rb"^(?:error|fatal|bwrap|enter|mount): [^\n]+", re.MULTILINE)
_REASON_CHARS = 300


class Root(Protocol):
    """What a room is stacked on: folders from the top down, and the one folder that can serve many rooms at once,
    read-only, without an overlay of their own; None where there is none."""

    @property
    def lowers(self) -> tuple[Path, ...]: ...

    @property
    def as_it_is(self) -> Path | None: ...


@dataclass(frozen=True, kw_only=True)
class RoomRun:
    """How it ended. `reason` is set where the end itself is the reason, and not something in the log."""

    completed: Completed
    outcome: Outcome
    reason: str | None
    peak_memory_bytes: int | None


class Room:
    """A context manager for one command. `build`, `results` and `out` are folders that it sees in /builddir."""

    def __init__(self, root: Root, context: StepContext, confinement: Confinement) -> None:
        self._context = context
        self._confinement = confinement.of_room()
        self._root = root
        self._cleanup = ExitStack()
        self.scratch = context.workdir / room_name(PREFIX, next(_numbers))
        self.results = self.scratch / "results"
        self.out = self.scratch / "out"
        self._merged = self.scratch / "merged"
        self._mark = self.scratch / "mark"
        self._build = self.scratch / "build"

    def __enter__(self) -> "Room":
        self._cleanup.callback(remove_tree, self.scratch)
        try:
            root_id, build_id = self._confinement.root_id, self._confinement.build_id
            self.scratch.mkdir(mode=0o700)
            for name in ("changes", "changes/upper", "changes/work", "mark", "tmp", "var-tmp"):
                _make(self.scratch / name, root_id)
            for name in ("tmp", "var-tmp"):
                (self.scratch / name).chmod(0o1777)
            for folder in (self._build, self.results, self.out):
                _make(folder, build_id)
            # bubblewrap would make it itself, readable by root alone.
            _make(self._build / "in", root_id)
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def run(
        self, command: Sequence[str], *, inputs: Sequence[Bind], env: Mapping[str, str], shown: Sequence[str]
    ) -> RoomRun:
        """Enter, once. Raises RootTrouble when the sandbox does not come up, DiskFull when the host's disk does not
        hold, LeaseLost when the context is stopped."""
        limits = self._context.limits
        binds = (
            Bind(path=self._build, inside="/builddir", is_writable=True),
            Bind(path=self.results, inside="/builddir/results", is_writable=True),
            Bind(path=self.out, inside="/builddir/out", is_writable=True),
            Bind(path=self._mark, inside="/run/farm", is_writable=True),
            Bind(path=self.scratch / "tmp", inside="/tmp", is_writable=True),  # noqa: S108 - the room's own
            Bind(path=self.scratch / "var-tmp", inside="/var/tmp", is_writable=True),  # noqa: S108
            *inputs,
        )
        where = cgroups.place()
        with ExitStack() as stack:
            has_cgroup = where.kind is not CgroupKind.NONE
            group = stack.enter_context(Cgroup(where, limits)) if has_cgroup else None
            watch = stack.enter_context(
                DiskWatch(self.scratch, limit_bytes=limits.disk_bytes, limit_files=limits.files)
            )
            completed = run(
                self._argv(command, binds, group),
                cwd=Path("/"),
                env={"HOME": "/builddir", "SHELL": "/bin/sh", "USER": "farm", "LOGNAME": "farm", **env},
                timeout_s=None,
                deadline=self._context.deadline,
                log=self._context.log,
                ok_codes=None,
                stop=self._context.stop,
                silence_s=limits.silence_s,
                tree=group,
                watch=watch.verdict,
                shown=shown,
            )
            met = limits_met(completed, group, watch)
            peak = group.peak_memory_bytes() if group else None
        if not (self._mark / "entered").exists() and completed.ending is Ending.EXITED and met == LimitsMet():
            raise RootTrouble(f"the sandbox did not come up: {last_error(completed.tail) or completed.shown}")
        outcome, reason = judge(completed, limits, met)
        return RoomRun(completed=completed, outcome=outcome, reason=reason, peak_memory_bytes=peak)

    def _argv(self, command: Sequence[str], binds: Sequence[Bind], group: Cgroup | None) -> list[str]:
        """A root that the build user cannot write to needs no overlay: what the kernel knows of its files then stays
        known from one room to the next, which is worth more than the mount itself."""
        as_it_is = self._root.as_it_is
        overlay = None
        if as_it_is is None:
            changes = self.scratch / "changes"
            overlay = Overlay(lowers=self._root.lowers, upper=changes / "upper", work=changes / "work")
        root = Bind(path=as_it_is or self._merged, inside="/", is_writable=as_it_is is None)
        return sandbox.enter(
            sandbox.room(command, self._confinement, root=root, binds=binds),
            self._confinement,
            overlays=[(overlay, self._merged)] if overlay else (),
            joins=group.joins if group else (),
            limits=self._context.limits,
        )


def _make(folder: Path, owner: int) -> None:
    folder.mkdir(mode=0o755)
    os.chown(folder, owner, owner)


def last_error(tail: bytes) -> str | None:
    """The last line that a tool marked as an error, printable and short."""
    found = _ERROR.findall(tail)
    if not found:
        return None
    return clip(printable(" ".join(found[-1].decode(errors="backslashreplace").split())), _REASON_CHARS)
