"""The mock engine: RPM packages through mock's command line, on hosts that have it. Owns the runs that a request takes.

The network needs care: mock can run a build without network only with isolation nspawn (`condUnshareNet` does nothing
else), and nspawn needs systemd as process 1. With isolation simple, dnf and the recipe would share one network. So
there runs with network fill the root, and everything that executes a recipe's code, also the reading of the spec, is a
run of mock with `--offline` inside its own network namespace. That takes more runs than `mock --rebuild`, and a package
with %generate_buildrequires takes one more round each time that it asks for another package.
"""

import shutil
from pathlib import Path

from farm.config import Settings
from farm.errors import RootTrouble
from farm.formats.rpm import rpmfile
from farm.formats.rpm.settings import settings_of
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Target
from workers.core.context import Ended, StepContext
from workers.core.untrusted import read_left
from workers.formats.base import BuildRequest, Made, SourceFacts, SourceRequest
from workers.formats.rpm import asking, rpmbuild
from workers.formats.rpm.asking import AskRequest, Told
from workers.formats.rpm.header import read_facts
from workers.formats.rpm.mock.command import (
    LIST_ROOT,
    MADE_BUILDREQS_IN_ROOT,
    MADE_SRPMS_IN_ROOT,
    SOURCE_IN_ROOT,
    build_arguments,
)
from workers.formats.rpm.mock.config import config_for
from workers.formats.rpm.mock.exit_codes import Said, Verdict, judge
from workers.formats.rpm.mock.host import Isolation, MockHost, find_host, require_way
from workers.formats.rpm.mock.results import peak_memory_bytes, phases, root_packages
from workers.formats.rpm.mock.session import GIVEN, MockSession, Ran, open_session
from workers.formats.rpm.rpmbuild import SCRIPTS
from workers.roots.root import RootPackage

_ROUNDS = 10  # as in mock
_ASKS = "sources.sh"
_QUESTION = "sources.lua"
_ANSWERS = "/builddir/answers"
_PACKAGE_MANAGER_FAILED = 30
_DONE = Verdict(outcome=Outcome.SUCCEEDED)


class MockEngine:
    """A `BuildEngine`. `host` replaces the result of `find_host`."""

    def __init__(self, settings: Settings, *, host: MockHost | None = None) -> None:
        self._settings = settings
        self._host = host

    def ask(self, request: AskRequest, context: StepContext) -> Told:
        """A mock run has no limit of its own: only the step's ends a spec that takes long to read."""
        with self._session(request.target, request.arches[0], request.options, (), context) as session:
            return _ask(request, session)

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        """`source_date_epoch` has no effect here: mock passes no environment on, and rpmbuild uses the files' times."""
        results = _results(context)
        try:
            with self._session(request.target, request.arch, request.options, (), context) as session:
                verdict = _again(request, session) if request.package else _from_sources(request, session)
                return _srpm_run(verdict, session, results)
        except Ended as ended:
            return Made(outcome=ended.outcome, reason=ended.reason, results=results)

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        results = _results(context)
        repositories = tuple(request.repositories)
        try:
            with self._session(request.target, request.arch, request.options, repositories, context) as session:
                given = str(session.give(request.source, GIVEN))
                return _rpms_run(_rebuild(given, request, session), session, results, context)
        except Ended as ended:
            return Made(outcome=ended.outcome, reason=ended.reason, results=results)

    def _session(
        self,
        target: Target,
        arch: Arch,
        options: BuildOptions,
        repositories: tuple[tuple[str, str], ...],
        context: StepContext,
    ) -> MockSession:
        host = self._host or find_host()
        config = config_for(target, arch, self._settings.templates / "mock")
        self._settings.work.mkdir(parents=True, exist_ok=True)
        for folder in (config.parent, self._settings.work):
            require_way(host.account, folder)
        context.log.note(f"mock {host.version} with {config.name}")
        arguments = build_arguments(arch, options, repositories, context)
        mock = settings_of(target).mock
        wanted = mock.isolation if mock else "auto"
        return open_session(host, config, host.isolation(wanted), arguments, context)


def _ask(request: AskRequest, session: MockSession) -> Told:
    offline = session.isolation is Isolation.SIMPLE
    filled = session.judge(session.run("--init"))
    if filled.outcome is not Outcome.SUCCEEDED:
        return _told(filled, b"", session, request)
    given = {"in": request.folder, **{name: SCRIPTS / name for name in (_ASKS, _QUESTION)}}
    for name, path in given.items():
        copied = session.run("--copyin", str(session.give(path, name)), f"/builddir/{name}", offline=offline)
        if (verdict := session.judge(copied)) != _DONE:
            return _told(verdict, copied.said.output, session, request)
    arches = " ".join(arch.rpm for arch in request.arches)
    words = asking.words(request.recipe, question=f"/builddir/{_QUESTION}")
    ran = session.run(
        "--chroot", "--unpriv", "--", "sh", f"/builddir/{_ASKS}", _ANSWERS, arches, *words, offline=offline
    )
    verdict = _judge_inside(ran, session)
    if ran.completed.code is not None:
        session.run("--copyout", f"{_ANSWERS}/*", str(session.left), offline=offline)
    return _told(verdict, ran.said.output, session, request)


def _told(verdict: Verdict, said: bytes, session: MockSession, request: AskRequest) -> Told:
    """The reason of a failure is left to rpm's own message in `said`."""

    def left(name: str) -> dict[Arch, bytes | None]:
        limit_bytes = asking.ANSWER_BYTES
        return {one: read_left(session.left / f"{name}.{one.rpm}", limit_bytes=limit_bytes) for one in request.arches}

    reason = None if verdict.outcome is Outcome.FAILED else verdict.reason
    return Told(outcome=verdict.outcome, reason=reason, said=said, headers=left("header"), sources=left("sources"))


def _from_sources(request: SourceRequest, session: MockSession) -> Verdict:
    if request.sources is None or request.recipe is None:
        raise ValueError("a SourceRequest has either package, or sources and recipe")
    sources = session.give(request.sources, "sources")
    command = ("--buildsrpm", f"--spec={sources / request.recipe}", f"--sources={sources}")
    match session.isolation:
        case Isolation.NSPAWN:
            return session.judge(session.run(*command, cleans_up=True))
        case Isolation.SIMPLE:
            filled = session.judge(session.run("--init"))
            return session.judge(_offline(session, *command)) if filled == _DONE else filled


def _again(request: SourceRequest, session: MockSession) -> Verdict:
    """Make the source package again. `--rebuild` would do this too, but then also build it. To unpack it needs rpm and
    thus a root, so rpmbuild does all of it inside."""
    if request.package is None:
        raise ValueError("a SourceRequest without sources has a package")
    given = str(session.give(request.package, GIVEN))
    offline = session.isolation is Isolation.SIMPLE
    for command in (("--init",), ("--copyin", given, SOURCE_IN_ROOT)):
        verdict = session.judge(session.run(*command, offline=offline and command != ("--init",)))
        if verdict != _DONE:
            return verdict
    words = ("rpmbuild", "-rs", "--nodeps", "--target", request.arch.rpm, SOURCE_IN_ROOT)
    made = session.run("--chroot", "--unpriv", "--", *words, offline=offline)
    verdict = _judge_inside(made, session)
    if verdict != _DONE:
        return verdict
    taken = session.run("--copyout", MADE_SRPMS_IN_ROOT, str(session.left), offline=offline)
    if taken.completed.code == 0:
        return _DONE
    return Verdict(outcome=Outcome.FAILED, reason="rpmbuild left no source package that can be taken out of the root")


def _rebuild(given: str, request: BuildRequest, session: MockSession) -> Verdict:
    match session.isolation:
        case Isolation.NSPAWN:
            return session.judge(session.run("--no-cleanup-after", "--rebuild", given))
        case Isolation.SIMPLE:
            return _rebuild_offline(given, session, is_own=request.requires_arch in (None, request.arch))


def _rebuild_offline(given: str, session: MockSession, *, is_own: bool) -> Verdict:
    """`--update` runs first: a root from mock's cache may be days old, and `--rebuild` updates it only online.

    `--installdeps` takes the list in the source package, so it runs first only if the list `is_own`: of this arch.
    `--rebuild` makes the source package again, whose list is the one of this root.
    """
    for command in (("--update",), *((("--installdeps", given),) if is_own else ())):
        filled = session.judge(session.run(*command))
        if filled != _DONE:
            return filled
    asked_before: frozenset[str] = frozenset()
    more = asked_before
    for _ in range(_ROUNDS):
        ran = _offline(session, "--rebuild", given)
        asked = _asked(ran, session)
        if asked <= asked_before:
            return session.judge(ran)
        filled = session.judge(session.run("--installdeps", *_asking(session)))
        if filled != _DONE:
            return filled
        more, asked_before = asked - asked_before, asked_before | asked
    return Verdict(outcome=Outcome.FAILED, reason=rpmbuild.unsettled(_ROUNDS, more))


def _offline(session: MockSession, *command: str) -> Ran:
    """Run mock without network in the root that was made before; the root stays for another round."""
    return session.run("--no-clean", "--no-cleanup-after", *command, offline=True)


def _asked(ran: Ran, session: MockSession) -> frozenset[str]:
    """The requirements of the source package that mock made in the root, and those of %generate_buildrequires, which
    mock, offline, could not install; empty for any other end."""
    if ran.completed.code != _PACKAGE_MANAGER_FAILED:
        return frozenset()
    for old in _asking(session):
        Path(old).unlink()
    for made in (MADE_SRPMS_IN_ROOT, MADE_BUILDREQS_IN_ROOT):
        session.run("--copyout", made, str(session.left), offline=True)
    asked: set[str] = set()
    for path in _asking(session):
        try:
            asked.update(rpmfile.read_source_tags(Path(path)).requires)
        except rpmfile.BadRpm as error:
            raise Ended(Outcome.FAILED, f"the list of BuildRequires {error}") from error
    return frozenset(asked)


def _asking(session: MockSession) -> tuple[str, ...]:
    """The source packages, real and generated, that mock copied out: regular files, whatever their names are."""
    found = session.left.glob("*src.rpm")
    return tuple(sorted(str(path) for path in found if path.is_file() and not path.is_symlink()))


def _judge_inside(ran: Ran, session: MockSession) -> Verdict:
    """The verdict on a `--chroot` run: mock's codes from 2 on are about the root, others are the command's own."""
    code = ran.completed.code
    if code == 1:
        return judge(1, Said(output=ran.said.output, root_log=ran.said.root_log, build_log=ran.said.output or b"-"))
    return session.judge(ran)


def _srpm_run(verdict: Verdict, session: MockSession, results: Path) -> Made:
    facts: SourceFacts | None = None
    if verdict.outcome is Outcome.SUCCEEDED:
        _take(session.left, results, sources=True)
        facts, problem = read_facts(results)
        if problem:
            shutil.rmtree(results)
            results.mkdir()
            verdict = Verdict(outcome=Outcome.FAILED, reason=problem)
    return Made(
        outcome=verdict.outcome,
        reason=verdict.reason,
        results=results,
        root=root_packages(session.listing, session.left),
        peak_memory_bytes=session.peak_memory_bytes,
        facts=facts,
    )


def _rpms_run(verdict: Verdict, session: MockSession, results: Path, context: StepContext) -> Made:
    for phase in phases(session.left):
        context.timed(phase.name, phase.seconds)
    root = _root(verdict, session)
    if verdict.outcome is Outcome.SUCCEEDED:
        _take(session.left, results, sources=False)
    return Made(
        outcome=verdict.outcome,
        reason=verdict.reason,
        results=results,
        root=root,
        peak_memory_bytes=peak_memory_bytes(session.left) or session.peak_memory_bytes,
    )


def _root(verdict: Verdict, session: MockSession) -> tuple[RootPackage, ...]:
    """The root's own rpm lists the digests, which mock's list lacks. A recipe cannot write to the top of the root."""
    if verdict.outcome not in (Outcome.TIMED_OUT, Outcome.STALLED):
        session.run("--chroot", LIST_ROOT, offline=session.isolation is Isolation.SIMPLE)
    return root_packages(session.listing, session.left)


def _take(left: Path, results: Path, *, sources: bool) -> None:
    """Take the packages, of any file type, out of mock's results, without its logs and the source package that
    `--rebuild` also makes."""
    for path in left.iterdir():
        is_source = path.name.endswith((".src.rpm", ".nosrc.rpm"))
        if path.name.endswith(".rpm") and is_source == sources:
            shutil.move(path, results / path.name)


def _results(context: StepContext) -> Path:
    results = context.workdir / "results"
    try:
        results.mkdir()
    except OSError as error:
        raise RootTrouble(f"{results} cannot be made: {error.strerror}") from error
    return results
