"""The native engine: template, layer and room put together for RPM. What comes of a recipe is an EngineRun."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from farm.config import Settings
from farm.errors import HostUnfit, RootTrouble
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.untrusted import read_left
from workers.formats.rpm import blame, rpmbuild
from workers.formats.rpm.blame import Blame, End, host_state
from workers.formats.rpm.capabilities import unmet
from workers.formats.rpm.engine import EngineRun, RpmsRequest, SrpmRequest
from workers.formats.rpm.header import read_header
from workers.formats.rpm.roots import Root, Roots, root_of
from workers.isolation.confine import confinement
from workers.isolation.emulator import require_arch
from workers.isolation.room import Room, RoomRun, last_error
from workers.isolation.sandbox import Bind, Confinement
from workers.isolation.scratch import remove_tree

_INSIDE = "/run/farm/recipe.sh"
_GIVEN = "source.src.rpm"
#: mock's number, too: a recipe whose questions depend on the answers for longer than this does not end.
_ROUNDS = 10


class NativeEngine:
    """A `BuildEngine` for hosts where this process is root."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make_srpm(self, request: SrpmRequest, context: StepContext) -> EngineRun:
        results = _require(request.arch, context)
        confined = confinement(self._settings, request.target)
        env = {}
        if request.source_date_epoch is not None:
            env["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
        options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/results")
        command = _pack(request, options)
        with ExitStack() as stack:
            with context.phase("template"):
                roots = Roots(self._settings, request.target, request.arch, confined)
                template = stack.enter_context(roots.template(context))
            root = root_of(template)
            room = stack.enter_context(Room(root, context, confined))
            with context.phase("rpmbuild"):
                done = _run(room, request.arch, command, inputs=(_sources(request, confined),), env=env, shown=command)
            if done.outcome is Outcome.SUCCEEDED:
                room.results.rename(results)
            return _srpm_run(done, root, results)

    def make_rpms(self, request: RpmsRequest, context: StepContext) -> EngineRun:
        results = _require(request.arch, context)
        confined = confinement(self._settings, request.target)
        roots = Roots(self._settings, request.target, request.arch, confined)
        with ExitStack() as stack:
            with context.phase("template"):
                template = stack.enter_context(roots.template(context))
            base = root_of(template)
            wanted = tuple(request.build_requires)
            for _ in range(_ROUNDS):
                with ExitStack() as round_stack:
                    try:
                        with context.phase("layer"):
                            layer = roots.layered(
                                template, unmet(wanted, base.listing.provided), request.repositories, context
                            )
                            root = round_stack.enter_context(layer)
                    except Ended as ended:
                        return _nothing(ended.outcome, ended.reason, base, results)
                    room = round_stack.enter_context(Room(root, context, confined))
                    try:
                        done = _rebuild(request, room, context)
                    except RootTrouble as trouble:
                        if _comes_up(root, context, confined) or not _comes_up(base, context, confined):
                            raise
                        reason = f"with what it requires the build root cannot be entered: {trouble}"
                        return _nothing(Outcome.FAILED, reason, root, results)
                    asked = _asked(done, room)
                    if not set(asked) - set(wanted):
                        return _rpms_run(done, room, root, results)
                    wanted = (*wanted, *asked)
            reason = f"%generate_buildrequires still asks for more after {_ROUNDS} rounds"
            return _nothing(Outcome.FAILED, reason, base, results)


def _pack(request: SrpmRequest, options: list[str]) -> list[str]:
    """Both take any arch: whether the spec wants this one is a question for the build."""
    if request.srpm is not None:
        return ["rpmbuild", "-rs", "--nodeps", "--nosignature", *options, f"/builddir/in/{_GIVEN}"]
    return [
        "rpmbuild",
        "-bs",
        "--nodeps",
        *options,
        "--define",
        "_sourcedir /builddir/in",
        f"/builddir/in/{request.spec}",
    ]


def _srpm_run(done: RoomRun, root: Root, results: Path) -> EngineRun:
    outcome, reason, header = done.outcome, done.reason, None
    if outcome is Outcome.SUCCEEDED:
        header, reason = read_header(results)
        if header is None:
            outcome = Outcome.FAILED
            remove_tree(results)
    return EngineRun(
        outcome=outcome,
        results=results if outcome is Outcome.SUCCEEDED else _empty(results),
        reason=None if outcome is Outcome.SUCCEEDED else reason or last_error(done.completed.tail),
        root=root.listing.packages,
        peak_memory_bytes=done.peak_memory_bytes,
        header=header,
    )


def _rebuild(request: RpmsRequest, room: Room, context: StepContext) -> RoomRun:
    options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/out")
    with context.phase("rpmbuild"):
        return _run(
            room,
            request.arch,
            ["sh", _INSIDE, *options, f"/builddir/in/{_GIVEN}"],
            inputs=(_recipe("rpms.sh"), Bind(path=request.srpm, inside=f"/builddir/in/{_GIVEN}")),
            env={},
            shown=["rpmbuild", "--rebuild", *options, request.srpm.name],
        )


def _run(
    room: Room,
    arch: Arch,
    command: Sequence[str],
    *,
    inputs: Sequence[Bind],
    env: Mapping[str, str],
    shown: Sequence[str],
) -> RoomRun:
    """What rpmbuild's end means is in the answer. Raises trouble when it is not the package's doing."""
    try:
        done = room.run(command, inputs=inputs, env=env, shown=shown)
    except RootTrouble:
        require_arch(arch)  # without an emulator no sandbox comes up
        raise
    if done.outcome is not Outcome.FAILED or done.reason is not None:
        return done
    completed = done.completed
    host = host_state((room.scratch,), arch)
    verdict = blame.of_rpmbuild(End(code=completed.code, signal=completed.signal, said=completed.tail, host=host))
    assert verdict is not None  # noqa: S101 - the last row of rpmbuild's table is for whatever no other one is for
    if verdict.case.blame is not Blame.PACKAGE:
        raise verdict.error("rpmbuild failed, which may not be the package's doing")
    return replace(done, outcome=verdict.case.outcome, reason=verdict.reason or None)


def _comes_up(root: Root, context: StepContext, confined: Confinement) -> bool:
    try:
        with Room(root, context, confined) as room:
            room.run(["true"], inputs=(), env={}, shown=["true"])
    except RootTrouble:
        return False
    return True


def _asked(done: RoomRun, room: Room) -> tuple[str, ...]:
    """What %generate_buildrequires wants and the root does not have; nothing for a build that ended any other way."""
    if done.completed.code != rpmbuild.MISSING_REQUIRES:
        return ()
    text = read_left(room.out / "requires", limit_bytes=rpmbuild.HEADER_BYTES)
    try:
        return rpmbuild.parse_requirements(text or b"")
    except rpmbuild.BadHeader:
        return ()


def _rpms_run(done: RoomRun, room: Room, root: Root, results: Path) -> EngineRun:
    outcome, reason = done.outcome, done.reason
    if outcome is Outcome.SUCCEEDED:
        room.results.rename(results)
    return EngineRun(
        outcome=outcome,
        results=results if outcome is Outcome.SUCCEEDED else _empty(results),
        reason=reason,
        root=root.listing.packages,
        peak_memory_bytes=done.peak_memory_bytes,
    )


def _nothing(outcome: Outcome, reason: str, root: Root, results: Path) -> EngineRun:
    return EngineRun(outcome=outcome, reason=reason, results=_empty(results), root=root.listing.packages)


def _require(arch: Arch, context: StepContext) -> Path:
    """The place of the results; raises HostUnfit where this engine cannot work."""
    if os.geteuid() != 0:
        raise HostUnfit("the native engine mounts overlays, so its worker must run as root; start it with sudo")
    require_arch(arch)
    # Now, since a recipe may leave a disk on which nothing can be made any more.
    return _empty(context.workdir / "results")


def _empty(results: Path) -> Path:
    results.mkdir(exist_ok=True)
    return results


def _recipe(name: str) -> Bind:
    return Bind(path=rpmbuild.SCRIPTS / name, inside=_INSIDE)


def _sources(request: SrpmRequest, confined: Confinement) -> Bind:
    """What the build user reads; it needs no right on the folders above, but one on the files themselves."""
    if request.srpm:
        return Bind(path=request.srpm, inside=f"/builddir/in/{_GIVEN}")
    if request.sources is None:
        raise ValueError("an SrpmRequest has either srpm or sources")
    _let_read(request.sources, confined)
    return Bind(path=request.sources, inside="/builddir/in")


def _let_read(folder: Path, confined: Confinement) -> None:
    """They belong to the root's own root, too: that is the owner that a source package records."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, confined.root_id, confined.root_id, follow_symlinks=False)
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.chmod(stat.S_IMODE(mode) | 0o555)
        elif stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode) | 0o444)
