"""The mock runs of one attempt, within its limits, in a folder that mock's account may use and that is removed at the
end.

Owns the folder and the judgement of each run. Does not own the runs that a request takes
(`workers.formats.rpm.mock.engine`).
"""

import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from farm.errors import DiskFull, FarmError, RootTrouble
from farm.model.outcome import Outcome
from workers.core.context import StepContext, open_watched
from workers.core.run import Completed, Ending, run
from workers.formats.rpm.blame import disk_problem
from workers.formats.rpm.mock import results
from workers.formats.rpm.mock.command import LISTING, MockCall, unique_ext
from workers.formats.rpm.mock.exit_codes import Said, Verdict, judge
from workers.formats.rpm.mock.host import Isolation, MockHost
from workers.isolation import cgroups, sandbox
from workers.isolation.cgroups import Cgroup, CgroupKind
from workers.isolation.confine import host_confinement
from workers.isolation.disk import DiskWatch
from workers.isolation.file_locks import LockWatch
from workers.isolation.outcomes import LimitsMet, limits_met, over_limit
from workers.isolation.outcomes import judge as judge_ending
from workers.isolation.scratch import remove_tree, scratch_name
from workers.isolation.sockets import SocketWatch
from workers.roots.session import PREFIX

GIVEN = "given.src.rpm"
_MAKES_ROOT = ("--init", "--update")
_LOG_BYTES = 2**20  # the part of each of mock's logs that is read, from its end
_COPIED_BYTES = 64 * 1024
_PIECE_BYTES = 2**20
_CLEAN_TIMEOUT_S = 300.0
_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One mock run: the end of its process, its output, and the limits that it met. `is_making_root` if it only made
    the root of the target, so that the package cannot be the cause of a failure."""

    completed: Completed
    is_making_root: bool = False
    said: Said
    met: LimitsMet


class MockSession:
    """A context manager. `given` is the folder of mock's input, `left` the folder of its results.

    The session's folder is beside the attempts' work folders: these are closed to all but the worker, and mock has its
    own account.
    """

    def __init__(self, call: MockCall, folder: Path, context: StepContext) -> None:
        self._call = call
        self._context = context
        self._folder = folder
        self.given = folder / "given"
        self.left = call.results
        self.listing = call.root / LISTING
        self.peak_memory_bytes: int | None = None
        self._needs_cleaning = False

    @property
    def isolation(self) -> Isolation:
        return self._call.isolation

    def __enter__(self) -> "MockSession":
        account = self._call.host.account
        try:
            self._folder.mkdir(parents=True, mode=0o711)
            self.given.mkdir()
            self.left.mkdir()
            if account:
                os.chown(self.left, account.uid, account.gid)
        except OSError as error:
            with suppress(RootTrouble):
                remove_tree(self._folder)
            raise RootTrouble(f"mock's folder {error.filename} cannot be made: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._needs_cleaning:
                self._clean()
        finally:
            remove_tree(self._folder)

    def give(self, path: Path, name: str) -> Path:
        """A copy of a file or folder that mock's account can read. Raises LeaseLost when the context is stopped."""
        into = self.given / name
        self._copy(path, into)
        for found in (into, *into.rglob("*")):
            if not found.is_symlink():
                found.chmod(0o755 if found.is_dir() else 0o644)
        return into

    def run(self, *command: str, offline: bool = False, cleans_up: bool = False) -> Ran:
        """Run mock once; `cleans_up` if this command itself removes the root, however it ends.

        Raises LeaseLost when the context is stopped; the answer has every other end.
        """
        logs = [self.left / name for name in ("root.log", "build.log")]
        before = [results.size_of(path) for path in logs]
        self._needs_cleaning = True
        where = cgroups.place()
        with ExitStack() as stack:
            group = (
                stack.enter_context(Cgroup(where, self._context.limits)) if where.kind is not CgroupKind.NONE else None
            )
            limits = self._context.limits
            watch = stack.enter_context(
                DiskWatch(self._folder, limit_bytes=limits.disk_bytes, limit_files=limits.files)
            )
            completed = self._start(self._call.argv(*command, offline=offline), command, group, watch)
            met = limits_met(completed, group)
            if group:
                self.peak_memory_bytes = max(self.peak_memory_bytes or 0, group.peak_memory_bytes() or 0) or None
        self._needs_cleaning = not cleans_up or completed.ending is not Ending.EXITED or completed.code is None
        root_log, build_log = (
            results.read_from(path, size, limit_bytes=_LOG_BYTES) for path, size in zip(logs, before, strict=True)
        )
        if completed.code != 0 and root_log:
            # root.log has the output of the package manager, of which mock shows little.
            self._context.log.note("the end of mock's root.log:")
            self._context.log.write(root_log[-_COPIED_BYTES:].rstrip(b"\n") + b"\n")
        said = Said(output=completed.tail, root_log=root_log, build_log=results.without_greeting(build_log))
        return Ran(completed=completed, is_making_root=command[0] in _MAKES_ROOT, said=said, met=met)

    def judge(self, ran: Ran) -> Verdict:
        """The verdict on a run. Raises trouble."""
        completed, limits = ran.completed, self._context.limits
        if completed.ending is not Ending.EXITED or over_limit(completed, limits, ran.met):
            outcome, reason = judge_ending(completed, limits, ran.met)
            return Verdict(outcome=outcome, reason=reason)
        if completed.code is None:
            raise RootTrouble(f"mock was killed by signal {completed.signal}, and not by this worker")
        verdict = judge(completed.code, ran.said)
        if verdict.outcome is Outcome.FAILED and (full := disk_problem(self._folder)):
            raise DiskFull(f"mock failed, and the package may not be the cause: {full}")
        if ran.is_making_root and verdict.outcome in (Outcome.FAILED, Outcome.UNRESOLVABLE):
            raise RootTrouble(f"mock cannot make the target's root: {verdict.reason or ran.completed.shown}")
        return verdict

    def _copy(self, path: Path, into: Path) -> None:
        """Copy a file, a symlink or a folder with all its content."""
        # Not shutil.copytree, which goes on after an error, and then does not report a full disk.
        if path.is_symlink():
            into.symlink_to(path.readlink())
            return
        if path.is_dir():
            into.mkdir()
            for one in path.iterdir():
                self._copy(one, into / one.name)
        else:
            with open_watched(path, self._context.stop) as source, into.open("xb") as copy:
                shutil.copyfileobj(source, copy, _PIECE_BYTES)
        shutil.copystat(path, into)

    def _start(self, argv: list[str], command: tuple[str, ...], group: Cgroup | None, watch: DiskWatch) -> Completed:
        joins, limits = group.joins if group else (), self._context.limits
        sockets, locks = SocketWatch(group, limits), LockWatch(group, limits)
        return run(
            sandbox.enter(argv, host_confinement(self._context.settings), joins=joins, limits=limits),
            cwd=Path("/"),
            env={"HOME": "/nonexistent"},
            timeout_s=None,
            deadline=self._context.deadline,
            log=self._context.log,
            ok_codes=None,
            stop=self._context.stop,
            silence_s=limits.silence_s,
            tree=group,
            watch=lambda: watch.verdict() or sockets.verdict() or locks.verdict(),
            shown=["mock", *command],
        )

    def _clean(self) -> None:
        """Let mock remove its root, however the run ended, also when the attempt was stopped. The rest of the root is
        removed here with the folder."""
        try:
            run(
                self._call.argv("--clean"),
                cwd=Path("/"),
                env={"HOME": "/nonexistent"},
                timeout_s=_CLEAN_TIMEOUT_S,
                log=self._context.log,
                shown=["mock", "--clean"],
            )
        except FarmError as error:
            self._context.log.note(f"mock could not clean up after itself: {error}")


def open_session(
    host: MockHost, config: Path, isolation: Isolation, build: tuple[str, ...], context: StepContext
) -> MockSession:
    """A session in a folder that `workers.formats.registry.sweep` finds when this worker dies."""
    parent = context.settings.work / "mock"
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / scratch_name(PREFIX, next(_numbers))
    call = MockCall(
        host=host,
        config=config,
        isolation=isolation,
        unique=unique_ext(context.attempt),
        results=folder / "left",
        root=folder / "root",
        build=build,
    )
    return MockSession(call, folder, context)
