"""The native engine: rpmbuild in sessions of stacked roots."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from farm.config import Settings
from farm.errors import RootTrouble
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.context import Ended, StepContext
from workers.core.text import shown as printable
from workers.core.untrusted import read_left
from workers.formats.base import BuildRequest, Made, SourceRequest
from workers.formats.rpm import asking, blame, clock, rpmbuild
from workers.formats.rpm.asking import AskRequest, Told
from workers.formats.rpm.blame import Blame, End, host_state
from workers.formats.rpm.filler import RpmFiller
from workers.formats.rpm.header import read_facts
from workers.formats.rpm.reason_rpm import NO_SPECFILE, NO_TEXT
from workers.isolation.confine import confinement
from workers.isolation.emulator import require_arch
from workers.isolation.sandbox import Bind, Confinement
from workers.isolation.scratch import remove_tree
from workers.roots.root import Root
from workers.roots.session import Ran, RootSession, last_error
from workers.roots.stacked import StackedRoots, Template

_INSIDE = "/run/farm/recipe.sh"
GIVEN = "source.src.rpm"
_RESULTS = "/builddir/results"
_OWN_FOLDERS = "the spec sets _rpmdir, _topdir or _build_name_fmt itself; remove that"
_OWN_SOURCE_FOLDER = "the spec sets _srcrpmdir or _topdir itself; remove that"
_QUESTION_INSIDE = "/run/farm/sources.lua"
#: As in mock: a recipe that still asks for other packages after so many rounds would never end.
_ROUNDS = 10
#: The outcomes of a root that may lack packages.
_MAY_LACK = (Outcome.FAILED, Outcome.UNRESOLVABLE)


def native_roots(settings: Settings) -> StackedRoots:
    return StackedRoots(settings, RpmFiller)


class NativeEngine:
    """A `BuildEngine` for hosts where this process is root."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._roots = native_roots(settings)

    def ask(self, request: AskRequest, context: StepContext) -> Told:
        arch = request.arches[0]
        arches = " ".join(one.rpm for one in request.arches)
        options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/out")
        options += asking.words(request.recipe, question=_QUESTION_INSIDE)
        binds = [Bind(path=request.folder, inside=asking.SOURCES_INSIDE), _recipe("sources.sh")]
        binds.append(Bind(path=rpmbuild.SCRIPTS / "sources.lua", inside=_QUESTION_INSIDE))
        with (
            self._roots.template(request.target, arch, context) as template,
            template.session(timeout_s=asking.ASK_S) as session,
        ):
            with session.phase("rpmspec"):
                command = ["sh", _INSIDE, "/builddir/out", arches, *options]
                done = _run(session, arch, command, binds=binds, env={}, shown=["rpmspec", "-q", "--srpm", *options])
            return Told(
                outcome=done.outcome,
                reason=done.reason,
                said=done.completed.tail,
                headers=_left(session, "header", request.arches),
                sources=_left(session, "sources", request.arches),
            )

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        results = _results(context)
        env = {}
        if request.source_date_epoch is not None:
            env["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
        options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/results")
        command = pack(request, options)
        with self._roots.template(request.target, request.arch, context) as template, template.session() as session:
            given = sources(request, confinement(self._settings, request.target))
            with session.phase("rpmbuild"):
                done = _run(session, request.arch, command, binds=(given,), env=env, shown=command)
            if done.outcome is not Outcome.SUCCEEDED:
                return _source_made(done, session.root, results)
            if reason := _reads_clock(request, session, given, options):
                return _nothing(Outcome.FAILED, reason, session.root, results)
            session.results.rename(results)
            return _source_made(done, session.root, results)

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        results = _results(context)
        with self._roots.template(request.target, request.arch, context) as template:
            rounds = [request.first_guess]
            while True:
                made, asked = _round(template, request, rounds[-1], results)
                more = set(template.missing(asked)) - set(rounds[-1])
                if more and len(rounds) < _ROUNDS:
                    rounds.append(tuple(dict.fromkeys((*rounds[-1], *asked))))
                    continue
                if more:
                    made = replace(made, outcome=Outcome.FAILED, reason=rpmbuild.unsettled(len(rounds), more))
                return replace(made, rounds=tuple(rounds))


def _left(session: RootSession, name: str, arches: Sequence[Arch]) -> dict[Arch, bytes | None]:
    limit_bytes = asking.ANSWER_BYTES
    return {arch: read_left(session.out / f"{name}.{arch.rpm}", limit_bytes=limit_bytes) for arch in arches}


def _round(
    template: Template, request: BuildRequest, wanted: Sequence[str], results: Path
) -> tuple[Made, tuple[str, ...]]:
    """One build in its own root, and the requirements that the spec states there; empty unless some may be missing."""
    with ExitStack() as stack:
        try:
            session = stack.enter_context(template.with_packages(wanted, request.repositories))
        except Ended as ended:
            return _nothing(ended.outcome, ended.reason, template.root, results), ()
        try:
            done = _rebuild(request, session)
        except RootTrouble as trouble:
            if template.comes_up(session.root) or not template.comes_up():
                raise
            reason = f"with its requirements installed the build root cannot be entered: {trouble}"
            return _nothing(Outcome.FAILED, reason, session.root, results), ()
        asked = _asked(done, session)
        return _packages_made(done, session, results), asked


def pack(request: SourceRequest, options: list[str]) -> list[str]:
    """The command that makes the source package. It accepts any arch: the build decides whether the spec excludes this
    one."""
    if request.package is not None:
        return ["rpmbuild", "-rs", "--nodeps", "--nosignature", *options, f"/builddir/in/{GIVEN}"]
    return [
        "rpmbuild",
        "-bs",
        "--nodeps",
        *options,
        "--define",
        "_sourcedir /builddir/in",
        f"/builddir/in/{request.recipe}",
    ]


def _reads_clock(request: SourceRequest, session: RootSession, sources: Bind, options: list[str]) -> str | None:
    """Asked before the results are taken, since the spec runs once more."""
    facts, _ = read_facts(session.results)
    if facts is None or not request.sources or not request.recipe:
        return None
    with session.phase("clock"):
        return clock.problem(session, request.sources / request.recipe, sources, options, facts.identity)


def _source_made(done: Ran, root: Root, results: Path) -> Made:
    outcome, reason, facts = done.outcome, done.reason, None
    if outcome is Outcome.SUCCEEDED:
        facts, reason = read_facts(results)
        if facts is None:
            if path := rpmbuild.written_elsewhere(done.completed.tail, _RESULTS, is_source=True):
                reason = f"rpmbuild wrote {printable(path)} and not into {_RESULTS}: {_OWN_SOURCE_FOLDER}"
            outcome = Outcome.FAILED
            remove_tree(results)
    return Made(
        outcome=outcome,
        results=results if outcome is Outcome.SUCCEEDED else _empty(results),
        reason=None if outcome is Outcome.SUCCEEDED else reason or _why_no_source(done.completed.tail),
        root=root.packages,
        peak_memory_bytes=done.peak_memory_bytes,
        facts=facts,
    )


def _why_no_source(tail: bytes) -> str | None:
    error = last_error(tail)
    return f"{error} {NO_TEXT}" if error and NO_SPECFILE in error else error


def _rebuild(request: BuildRequest, session: RootSession) -> Ran:
    options = rpmbuild.options(request.target, request.options, source_packages_to="/builddir/out")
    with session.phase("rpmbuild"):
        return _run(
            session,
            request.arch,
            ["sh", _INSIDE, *options, f"/builddir/in/{GIVEN}"],
            binds=(_recipe("rpms.sh"), Bind(path=request.source, inside=f"/builddir/in/{GIVEN}")),
            env={},
            shown=["rpmbuild", "--rebuild", *options, request.source.name],
        )


def _run(
    session: RootSession,
    arch: Arch,
    command: Sequence[str],
    *,
    binds: Sequence[Bind],
    env: Mapping[str, str],
    shown: Sequence[str],
) -> Ran:
    """Run rpmbuild. The answer has the meaning of its end. Raises trouble if the package is not the cause."""
    try:
        done = session.run(command, binds=binds, env=env, shown=shown)
    except RootTrouble:
        require_arch(arch)  # without an emulator a sandbox does not come up
        raise
    if done.outcome is not Outcome.FAILED or done.reason is not None:
        return done
    completed = done.completed
    host = host_state((session.scratch,), arch)
    verdict = blame.of_rpmbuild(End(code=completed.code, signal=completed.signal, said=completed.tail, host=host))
    assert verdict is not None  # noqa: S101 - the last row of rpmbuild's table matches every end
    if verdict.case.blame is not Blame.PACKAGE:
        raise verdict.error("rpmbuild failed, and the package may not be the cause")
    return replace(done, outcome=verdict.case.outcome, reason=verdict.reason or None)


def _asked(done: Ran, session: RootSession) -> tuple[str, ...]:
    """The requirements that rpms.sh asked for; empty for an end that no missing requirement has."""
    if done.outcome not in _MAY_LACK or not rpmbuild.may_lack(done.completed.code, done.completed.tail):
        return ()
    text = read_left(session.out / "requires", limit_bytes=rpmbuild.HEADER_BYTES)
    try:
        return rpmbuild.parse_requirements(text or b"")
    except rpmbuild.BadHeader:
        return ()


def _packages_made(done: Ran, session: RootSession, results: Path) -> Made:
    # The spec's own macros win over those of the command line.
    is_empty = done.outcome is Outcome.SUCCEEDED and not any(session.results.iterdir())
    if is_empty and (path := rpmbuild.written_elsewhere(done.completed.tail, _RESULTS)):
        reason = f"rpmbuild wrote {printable(path)} and not into {_RESULTS}: {_OWN_FOLDERS}"
        done = replace(done, outcome=Outcome.FAILED, reason=reason)
    if done.outcome is Outcome.SUCCEEDED:
        session.results.rename(results)
    return Made(
        outcome=done.outcome,
        results=results if done.outcome is Outcome.SUCCEEDED else _empty(results),
        reason=done.reason,
        root=session.root.packages,
        peak_memory_bytes=done.peak_memory_bytes,
    )


def _nothing(outcome: Outcome, reason: str, root: Root, results: Path) -> Made:
    return Made(outcome=outcome, reason=reason, results=_empty(results), root=root.packages)


def _results(context: StepContext) -> Path:
    """Make the folder before the recipe runs, which may fill the disk."""
    return _empty(context.workdir / "results")


def _empty(results: Path) -> Path:
    results.mkdir(exist_ok=True)
    return results


def _recipe(name: str) -> Bind:
    return Bind(path=rpmbuild.SCRIPTS / name, inside=_INSIDE)


def sources(request: SourceRequest, confined: Confinement) -> Bind:
    """The bind of the sources. The build user needs no rights on the folders above, but may read the files."""
    if request.package:
        return Bind(path=request.package, inside=f"/builddir/in/{GIVEN}")
    if request.sources is None:
        raise ValueError("a SourceRequest has either package or sources")
    _let_read(request.sources, confined)
    return Bind(path=request.sources, inside="/builddir/in")


def _let_read(folder: Path, confined: Confinement) -> None:
    """Let the build user read the files. They belong to uid 0 of the root, which a source package records as owner."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, confined.root_id, confined.root_id, follow_symlinks=False)
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.chmod(stat.S_IMODE(mode) | 0o555)
        elif stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode) | 0o444)
