"""A session in a root: runs commands of a recipe, one after the other, within limits, and removes their files.

Owns the scratch folder of the session, and the cgroup and the watch of each command. Does not own the root below it,
nor the commands, nor the judgement of their end, which is in workers/isolation/outcomes.py.
"""

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType

from farm.errors import RootTrouble
from farm.model.outcome import Outcome
from farm.model.text import clip, printable
from workers.core.context import Ended, StepContext
from workers.core.run import Completed, Ending, run
from workers.core.untrusted import is_removal, replaced_folder
from workers.isolation import cgroups, sandbox
from workers.isolation.cgroups import Cgroup, CgroupKind
from workers.isolation.disk import DiskWatch
from workers.isolation.file_locks import LockWatch
from workers.isolation.outcomes import LimitsMet, judge, limits_met
from workers.isolation.sandbox import RESERVED_FOLDERS, Bind, Confinement, Overlay
from workers.isolation.scratch import remove_tree, scratch_name
from workers.isolation.sockets import SocketWatch
from workers.roots.root import Root

PREFIX = "room"
_HOME = "/builddir"
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
#: The name of the kept /builddir in the work folder of a step.
KEPT_BUILD = "builddir"
#: `workers.core.run.run`, or a function that takes and returns the same.
Runner = Callable[..., Completed]
_numbers = count(1)
_ERROR = re.compile(rb"^(?:error|fatal|bwrap|enter|mount): [^\n]+", re.MULTILINE)
_REASON_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The end of one command. `reason` is set if the end itself is the reason, and not something in the log."""

    completed: Completed
    outcome: Outcome
    reason: str | None
    peak_memory_bytes: int | None


class RootSession:
    """A context manager, entered once, in which any number of commands run, one at a time.

    Each command has its own namespaces, cgroup and limits, and no network. The commands share the files of the root,
    /builddir, /tmp and /var/tmp. `results` (/builddir/results) and `out` (/builddir/out) are folders of the host with
    hostile content. `root` is the root below the session.
    """

    def __init__(self, root: Root, context: StepContext, confinement: Confinement) -> None:
        self._context = context
        # A given build user is that of files which were kept.
        self._confinement = confinement if confinement.build_user_id is not None else confinement.for_session()
        self.root = root
        self._cleanup = ExitStack()
        self._runs = count(1)
        self.scratch = context.workdir / scratch_name(PREFIX, next(_numbers))
        self.results = self.scratch / "results"
        self.out = self.scratch / "out"
        self._merged = self.scratch / "merged"
        self._changes = self.scratch / "changes"
        self._build = self.scratch / "build"

    def __enter__(self) -> "RootSession":
        self._cleanup.callback(remove_tree, self.scratch)
        self._cleanup.callback(self._keep_build)
        try:
            root_id, build_id = self._confinement.root_id, self._confinement.build_id
            self.scratch.mkdir(mode=0o700)
            for name in ("changes", "changes/upper", "tmp", "var-tmp"):
                _make(self.scratch / name, root_id)
            for name in ("tmp", "var-tmp"):
                (self.scratch / name).chmod(0o1777)
            for folder in (self._build, self.results, self.out):
                _make(folder, build_id)
            # Otherwise bubblewrap makes the folder, readable by root alone.
            _make(self._build / "in", root_id)
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _keep_build(self) -> None:
        """With `keep_failed`, keep /builddir of the step's last session in the step's work folder. The work folder of a
        step that succeeds is removed."""
        if not self._context.settings.keep_failed or not self._build.is_dir():
            return
        kept = self._context.workdir / KEPT_BUILD
        if kept.exists():
            remove_tree(kept)
        self._build.rename(kept)

    @property
    def build(self) -> Path:
        """/builddir, a folder of the host with hostile content once a command has run."""
        return self._build

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a named part of the step that uses this root. Hooks attach before and after a phase, and run in the
        same root."""
        with self._context.phase(name):
            yield

    def run(
        self,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] = _NO_ENVIRONMENT,
        shown: Sequence[str] | None = None,
        how: Runner = run,
        has_network: bool = False,
    ) -> Ran:
        """Run a command as the build user. The log shows it as `shown`. `how` starts the process and watches it. Only a
        person's own command may have the network of this process.

        Raises RootTrouble when the sandbox does not come up, DiskFull when the host's disk is full, Ended when an
        earlier command replaced a folder that this one needs, LeaseLost when the context is stopped.
        """
        limits = self._context.limits
        mark, work = self._new_folders(binds)
        where = cgroups.place()
        with ExitStack() as stack:
            has_cgroup = where.kind is not CgroupKind.NONE
            group = stack.enter_context(Cgroup(where, limits)) if has_cgroup else None
            watch = stack.enter_context(
                DiskWatch(self.scratch, limit_bytes=limits.disk_bytes, limit_files=limits.files)
            )
            sockets, locks = SocketWatch(group, limits), LockWatch(group, limits)
            completed = how(
                self._argv(argv, (*self._own_binds(mark), *binds), group, work, has_network=has_network),
                cwd=Path("/"),
                env={"HOME": _HOME, "SHELL": "/bin/sh", "USER": "farm", "LOGNAME": "farm", **env},
                timeout_s=None,
                deadline=self._context.deadline,
                log=self._context.log,
                ok_codes=None,
                stop=self._context.stop,
                silence_s=limits.silence_s,
                tree=group,
                watch=lambda: watch.verdict() or sockets.verdict() or locks.verdict(),
                shown=argv if shown is None else shown,
            )
            met = limits_met(completed, group, watch)
            peak = group.peak_memory_bytes() if group else None
        if not (mark / "entered").exists() and completed.ending is Ending.EXITED and met == LimitsMet():
            raise RootTrouble(f"the sandbox did not come up: {last_error(completed.tail) or completed.shown}")
        outcome, reason = judge(completed, limits, met)
        return Ran(completed=completed, outcome=outcome, reason=reason, peak_memory_bytes=peak)

    def _new_folders(self, binds: Sequence[Bind]) -> tuple[Path, Path]:
        """Two folders of one command: the helper's, for the mark that the sandbox came up, and overlayfs's work folder,
        which the kernel refuses to use again after a `volatile` mount."""
        number = next(self._runs)
        if number > 1:
            self._check_places(binds)
        mark, work = self.scratch / f"mark{number}", self._changes / f"work{number}"
        for folder in (mark, work):
            _make(folder, self._confinement.root_id)
        return mark, work

    def _check_places(self, binds: Sequence[Bind]) -> None:
        """Refuse links at the places of binds: bubblewrap follows them, and an earlier command may have made one. All
        processes of earlier commands have ended, so none can make one later."""
        for folder in (self._build, self.results, self.out):
            folder.chmod(0o755)  # the build user owns it, and may have closed it to the next command
        upper = self._changes / "upper"
        replaced = replaced_folder(upper, RESERVED_FOLDERS)
        for bind in (*self._own_binds(self.scratch), *binds):
            home = _HOME if bind.inside.startswith(f"{_HOME}/") else ""
            found = _replaced(self._build if home else upper, bind, bind.inside.removeprefix(home))
            replaced = replaced or (home + found if found else None)
        if replaced:
            raise Ended(Outcome.FAILED, f"an earlier command replaced {replaced} in the build root")

    def _own_binds(self, mark: Path) -> tuple[Bind, ...]:
        return (
            Bind(path=self._build, inside=_HOME, is_writable=True),
            Bind(path=self.results, inside=f"{_HOME}/results", is_writable=True),
            Bind(path=self.out, inside=f"{_HOME}/out", is_writable=True),
            Bind(path=mark, inside="/run/farm", is_writable=True),
            Bind(path=self.scratch / "tmp", inside="/tmp", is_writable=True),  # noqa: S108 - the session's own
            Bind(path=self.scratch / "var-tmp", inside="/var/tmp", is_writable=True),  # noqa: S108
        )

    def _argv(
        self, command: Sequence[str], binds: Sequence[Bind], group: Cgroup | None, work: Path, *, has_network: bool
    ) -> list[str]:
        """A root that the build user cannot write to needs no overlay: its files then stay in the kernel's caches from
        one session to the next, which saves more time than the mount costs."""
        as_it_is = self.root.as_it_is
        overlay = None
        if as_it_is is None:
            overlay = Overlay(lowers=self.root.lowers, upper=self._changes / "upper", work=work)
        root = Bind(path=as_it_is or self._merged, inside="/", is_writable=as_it_is is None)
        return sandbox.enter(
            sandbox.recipe(command, self._confinement, root=root, binds=binds, has_network=has_network),
            self._confinement,
            overlays=[(overlay, self._merged)] if overlay else (),
            joins=group.joins if group else (),
            limits=self._context.limits,
            has_shm=True,
        )


def _replaced(layer: Path, bind: Bind, place: str) -> str | None:
    """The part of a bind's place that has the wrong type; None if the bind can be mounted there."""
    if replaced := replaced_folder(layer, [posixpath.dirname(place)]):
        return replaced
    path = layer / place.lstrip("/")
    if not path.is_symlink() and not path.exists():
        return None
    found = path.lstat()
    is_as_needed = stat.S_ISDIR(found.st_mode) if bind.path.is_dir() else stat.S_ISREG(found.st_mode)
    return None if is_as_needed or is_removal(found) else place


def _make(folder: Path, owner: int) -> None:
    folder.mkdir(mode=0o755)
    os.chown(folder, owner, owner)


def last_error(tail: bytes) -> str | None:
    """The last line that a tool marked as an error, printable and short."""
    found = _ERROR.findall(tail)
    if not found:
        return None
    return clip(printable(" ".join(found[-1].decode(errors="backslashreplace").split())), _REASON_CHARS)
