"""The mock engine: RPM packages through mock's command line, on hosts that have it: which runs a request takes.

The network trap: only isolation nspawn lets mock take a build off the network (`condUnshareNet` does nothing else), and
nspawn needs systemd as process 1. With isolation simple, dnf and the recipe would share one network. So there the root
is filled by runs with network, and all that executes a recipe's code, reading the spec included, is a run of mock with
`--offline` inside a network namespace of its own. That takes more runs than `mock --rebuild`, and a package with
%generate_buildrequires one round more for each time it asks for something new.
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
from workers.formats.base import BuildRequest, Made, SourceFacts, SourceRequest
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
from workers.formats.rpm.mock.room import GIVEN, MockRoom, Ran, open_room
from workers.roots.root import RootPackage

_ROUNDS = 10  # mock's own number for %generate_buildrequires
_PACKAGE_MANAGER_FAILED = 30
_DONE = Verdict(outcome=Outcome.SUCCEEDED)


class MockEngine:
    """A `BuildEngine`. `host` is for those who know better than `find_host` what there is."""

    def __init__(self, settings: Settings, *, host: MockHost | None = None) -> None:
        self._settings = settings
        self._host = host

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        """`source_date_epoch` does nothing here: mock passes no environment on, and rpmbuild takes the files' times."""
        results = _results(context)
        try:
            with self._room(request.target, request.arch, request.options, (), context) as room:
                verdict = _again(request, room) if request.package else _from_sources(request, room)
                return _srpm_run(verdict, room, results)
        except Ended as ended:
            return Made(outcome=ended.outcome, reason=ended.reason, results=results)

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        results = _results(context)
        repositories = tuple(request.repositories)
        try:
            with self._room(request.target, request.arch, request.options, repositories, context) as room:
                given = str(room.give(request.source, GIVEN))
                return _rpms_run(_rebuild(given, room), room, results, context)
        except Ended as ended:
            return Made(outcome=ended.outcome, reason=ended.reason, results=results)

    def _room(
        self,
        target: Target,
        arch: Arch,
        options: BuildOptions,
        repositories: tuple[tuple[str, str], ...],
        context: StepContext,
    ) -> MockRoom:
        host = self._host or find_host()
        config = config_for(target, arch, self._settings.templates / "mock")
        self._settings.work.mkdir(parents=True, exist_ok=True)
        for folder in (config.parent, self._settings.work):
            require_way(host.account, folder)
        context.log.note(f"mock {host.version} with {config.name}")
        arguments = build_arguments(arch, options, repositories, context)
        mock = settings_of(target).mock
        wanted = mock.isolation if mock else "auto"
        return open_room(host, config, host.isolation(wanted), arguments, context)


def _from_sources(request: SourceRequest, room: MockRoom) -> Verdict:
    if request.sources is None or request.recipe is None:
        raise ValueError("a SourceRequest has either package, or sources and recipe")
    sources = room.give(request.sources, "sources")
    command = ("--buildsrpm", f"--spec={sources / request.recipe}", f"--sources={sources}")
    match room.isolation:
        case Isolation.NSPAWN:
            return room.judge(room.run(*command, cleans_up=True))
        case Isolation.SIMPLE:
            filled = room.judge(room.run("--init"))
            return room.judge(_offline(room, *command)) if filled == _DONE else filled


def _again(request: SourceRequest, room: MockRoom) -> Verdict:
    """`--rebuild` would make the source package again, too, but only on the way to building it. Unpacking it needs rpm,
    which needs a root; so rpmbuild does all of it inside."""
    if request.package is None:
        raise ValueError("there is no source package to make again")
    given = str(room.give(request.package, GIVEN))
    offline = room.isolation is Isolation.SIMPLE
    for command in (("--init",), ("--copyin", given, SOURCE_IN_ROOT)):
        verdict = room.judge(room.run(*command, offline=offline and command != ("--init",)))
        if verdict != _DONE:
            return verdict
    words = ("rpmbuild", "-rs", "--nodeps", "--target", request.arch.rpm, SOURCE_IN_ROOT)
    made = room.run("--chroot", "--unpriv", "--", *words, offline=offline)
    verdict = _judge_inside(made, room)
    if verdict != _DONE:
        return verdict
    taken = room.run("--copyout", MADE_SRPMS_IN_ROOT, str(room.left), offline=offline)
    if taken.completed.code == 0:
        return _DONE
    return Verdict(outcome=Outcome.FAILED, reason="rpmbuild left no source package that can be taken out of the root")


def _rebuild(given: str, room: MockRoom) -> Verdict:
    match room.isolation:
        case Isolation.NSPAWN:
            return room.judge(room.run("--no-cleanup-after", "--rebuild", given))
        case Isolation.SIMPLE:
            return _rebuild_offline(given, room)


def _rebuild_offline(given: str, room: MockRoom) -> Verdict:
    """`--update` first: a root from mock's cache may be days old, and `--rebuild` brings it up to date only online."""
    for command in (("--update",), ("--installdeps", given)):
        filled = room.judge(room.run(*command))
        if filled != _DONE:
            return filled
    asked_before: frozenset[str] = frozenset()
    for _ in range(_ROUNDS):
        ran = _offline(room, "--rebuild", given)
        asked = _asked(ran, room)
        if asked <= asked_before:
            return room.judge(ran)
        filled = room.judge(room.run("--installdeps", *_buildreqs(room)))
        if filled != _DONE:
            return filled
        asked_before |= asked
    return Verdict(outcome=Outcome.FAILED, reason=f"%generate_buildrequires still asks for more after {_ROUNDS} rounds")


def _offline(room: MockRoom, *command: str) -> Ran:
    """The root that was filled before is used, and stays for another round."""
    return room.run("--no-clean", "--no-cleanup-after", *command, offline=True)


def _asked(ran: Ran, room: MockRoom) -> frozenset[str]:
    """What %generate_buildrequires wants and mock, offline, could not install; nothing for every other end."""
    if ran.completed.code != _PACKAGE_MANAGER_FAILED:
        return frozenset()
    for old in _buildreqs(room):
        Path(old).unlink()
    room.run("--copyout", MADE_BUILDREQS_IN_ROOT, str(room.left), offline=True)
    asked: set[str] = set()
    for path in _buildreqs(room):
        try:
            asked.update(rpmfile.read_source_tags(Path(path)).requires)
        except rpmfile.BadRpm as error:
            raise Ended(Outcome.FAILED, f"the list of generated BuildRequires {error}") from error
    return frozenset(asked)


def _buildreqs(room: MockRoom) -> tuple[str, ...]:
    """As mock copied them out: regular files, whatever the recipe calls them."""
    found = room.left.glob("*.buildreqs.nosrc.rpm")
    return tuple(sorted(str(path) for path in found if path.is_file() and not path.is_symlink()))


def _judge_inside(ran: Ran, room: MockRoom) -> Verdict:
    """Of a `--chroot` run: mock's codes from 2 on are about the root, all else is the command's own end."""
    code = ran.completed.code
    if code == 1:
        return judge(1, Said(output=ran.said.output, root_log=ran.said.root_log, build_log=ran.said.output or b"-"))
    return room.judge(ran)


def _srpm_run(verdict: Verdict, room: MockRoom, results: Path) -> Made:
    facts: SourceFacts | None = None
    if verdict.outcome is Outcome.SUCCEEDED:
        _take(room.left, results, sources=True)
        facts, problem = read_facts(results)
        if problem:
            shutil.rmtree(results)
            results.mkdir()
            verdict = Verdict(outcome=Outcome.FAILED, reason=problem)
    return Made(
        outcome=verdict.outcome,
        reason=verdict.reason,
        results=results,
        root=root_packages(room.listing, room.left),
        peak_memory_bytes=room.peak_memory_bytes,
        facts=facts,
    )


def _rpms_run(verdict: Verdict, room: MockRoom, results: Path, context: StepContext) -> Made:
    for phase in phases(room.left):
        context.timed(phase.name, phase.seconds)
    root = _root(verdict, room)
    if verdict.outcome is Outcome.SUCCEEDED:
        _take(room.left, results, sources=False)
    return Made(
        outcome=verdict.outcome,
        reason=verdict.reason,
        results=results,
        root=root,
        peak_memory_bytes=peak_memory_bytes(room.left) or room.peak_memory_bytes,
    )


def _root(verdict: Verdict, room: MockRoom) -> tuple[RootPackage, ...]:
    """The root's own rpm tells the digests, which mock's list has not. A recipe cannot write to the top of the root."""
    if verdict.outcome not in (Outcome.TIMED_OUT, Outcome.STALLED):
        room.run("--chroot", LIST_ROOT, offline=room.isolation is Isolation.SIMPLE)
    return root_packages(room.listing, room.left)


def _take(left: Path, results: Path, *, sources: bool) -> None:
    """Packages out of what mock left, whatever kind of file they are; its logs, and the source package that `--rebuild`
    makes on the way, stay behind."""
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
