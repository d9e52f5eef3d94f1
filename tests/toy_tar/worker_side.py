"""The format `tar` as a `WorkerFormat`: two commands in a session of a real root, and a filler that unpacks."""

import io
import json
import os
import tarfile
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farm.config import Settings
from farm.errors import NetworkTrouble, RootTrouble
from farm.formats.base import Identity
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from farm.model.target import Target
from tests.toy_tar.farm_side import MANIFEST, TarFormat
from tests.toy_tar.index import listed
from workers.core.collect import collect
from workers.core.context import Ended, StepContext
from workers.formats.base import (
    BadPackage,
    BuildRequest,
    CheckedSource,
    Fitness,
    Gathered,
    GatherRequest,
    Made,
    Reason,
    SourceFacts,
    SourceRequest,
    Taken,
)
from workers.isolation.sandbox import BUILD_UID, Bind, Confinement, Overlay
from workers.isolation.scratch import remove_tree, scratch_name
from workers.roots.base import PinnedUrl
from workers.roots.host_tools import Tool, own, run_tool
from workers.roots.root import Root, RootPackage
from workers.roots.session import RootSession
from workers.roots.stacked import StackedRoots
from workers.sources.tarball import Member
from workers.sources.tree import Tree

_FORM = TarFormat()
_MANIFEST_BYTES = 2**16
_numbers = count(1)
_UNPACK = """
for package in "$@"; do tar -xf "$package" -C /mnt/root || exit; done
[ -e /mnt/root/etc/passwd ] && exit
cd /mnt/root && mkdir -p etc builddir run/farm tmp var/tmp proc sys dev && chmod 1777 tmp var/tmp
echo "farm:x:$BUILD:$BUILD::/builddir:/bin/sh" > etc/passwd
"""


class TarFiller:
    """Unpacks packages out of the folders behind file:// repositories."""

    def __init__(
        self, settings: Settings, target: Target, arch: Arch, context: StepContext, confinement: Confinement
    ) -> None:
        self._target = target
        self._context = context
        self._confinement = confinement
        self._base = [_folder(source.url_for(arch)) for source in target.repositories_for(arch)]

    def template_key(self) -> object:
        return [sorted(self._target.packages), [[str(one), _names(one)] for one in self._base]]

    def layer_key(self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], base: Root) -> object:
        return [sorted(wanted), [url for _, url in repositories]]

    def install(self, root: Path, *, into: Path) -> Sequence[RootPackage]:
        (into / "empty").mkdir()
        own(self._confinement, into / "empty")
        try:
            return self._unpack(self._target.packages, self._base, lowers=(into / "empty",), upper=root, into=into)
        finally:
            (into / "empty").rmdir()

    def missing(self, wanted: Sequence[str], template: Path) -> tuple[str, ...]:
        return tuple(one for one in wanted if one not in self._target.packages)

    def add(
        self, wanted: Sequence[str], repositories: Sequence[PinnedUrl], *, base: Root, upper: Path, into: Path
    ) -> Sequence[RootPackage]:
        places = [*(_folder(url) for _, url in repositories), *self._base]
        added = self._unpack(wanted, places, lowers=base.lowers, upper=upper, into=into)
        return (*base.packages, *added)

    def _unpack(
        self, wanted: Sequence[str], places: Sequence[Path], *, lowers: tuple[Path, ...], upper: Path, into: Path
    ) -> tuple[RootPackage, ...]:
        found = {name: _find(name, places) for name in wanted}
        if lost := [name for name, path in found.items() if path is None]:
            raise Ended(Outcome.UNRESOLVABLE, f"nothing provides {', '.join(lost)}")
        paths = [path for path in found.values() if path is not None]
        scratch = into / scratch_name("filling", next(_numbers))
        scratch.mkdir()
        inside = [f"/work/{number}.tar" for number in range(len(paths))]
        overlay = Overlay(lowers=lowers, upper=upper, work=upper.parent / "overlay-work")
        tool = Tool(
            argv=["sh", "-c", _UNPACK, "sh", *inside],
            shown=["untar", *wanted],
            root=overlay,
            binds=[Bind(path=path, inside=place) for path, place in zip(paths, inside, strict=True)],
            env={"BUILD": str(BUILD_UID)},
        )
        try:
            ran = run_tool(tool, self._context, self._confinement, scratch=scratch)
        finally:
            remove_tree(scratch)
            remove_tree(overlay.work)
        if ran.done.code != 0:
            raise RootTrouble(f"unpacking failed: {ran.done.shown}")
        return tuple(RootPackage(identity=path.stem, digest=str(path.stat().st_size)) for path in paths)


class TarWorkerFormat:
    """A `WorkerFormat`."""

    name = "tar"
    source_word = "source.tar"

    def gather(self, tree: Tree, request: GatherRequest, context: StepContext) -> Gathered:
        folder = request.source.subdir or ""
        paths = {name: f"{folder}/{name}".lstrip("/") for name in tree.children(folder)}
        if MANIFEST not in paths:
            raise Ended(Outcome.FAILED, f"there is no {MANIFEST} in the tree")
        found = {name: entry for name, path in paths.items() if (entry := tree.file(path))}
        contents = tree.take(entry.path for entry in found.values())
        members = tuple(
            Member(name=name, content=contents[entry.path], is_executable=entry.is_executable)
            for name, entry in found.items()
        )
        return Gathered(recipe=MANIFEST, stem=request.target.name, members=members)

    def check_source(self, path: Path, *, stop: threading.Event) -> CheckedSource:
        return CheckedSource(identity=_read_identity(path, "src"))

    def check_identity(self, path: Path, identity: Identity) -> None:
        if (found := _read_identity(path, identity.arch)) != identity:
            raise BadPackage(f"says of itself that it is {found}, and was reported as {identity}")

    def make_source(self, request: SourceRequest, context: StepContext) -> Made:
        results = _results(context)
        roots = self.roots(context.settings)
        with roots.root(request.target, request.arch, (), context) as session:
            if request.sources is None:
                manifest = _manifest_in(request.package or Path())
                given = Bind(path=request.package or Path(), inside="/builddir/in/given.tar")
                argv = ["cp", given.inside, f"/builddir/results/{_named(manifest, 'src')}.tar"]
            else:
                manifest = _manifest((request.sources / MANIFEST).read_bytes()[:_MANIFEST_BYTES])
                given = Bind(path=request.sources, inside="/builddir/in")
                request.sources.chmod(0o755)
                argv = ["tar", "-cf", f"/builddir/results/{_named(manifest, 'src')}.tar", "-C", "/builddir/in", "."]
            with session.phase("pack"):
                done = session.run(argv, binds=[given])
            made = _made(done.outcome, done.reason, session, results)
        facts = SourceFacts(
            identity=_named(manifest, "src"),
            requires=tuple(manifest.get("needs", ())),
            exclusive_arches=tuple(manifest.get("arches", ())),
            is_independent=not manifest.get("arches"),
        )
        return made if made.outcome is not Outcome.SUCCEEDED else _with_facts(made, facts)

    def take_source(self, made: Made, context: StepContext) -> Taken:
        found = collect(made.results, ".tar", limits=context.limits)
        if len(found) != 1:
            raise Ended(Outcome.FAILED, f"{len(found)} source packages were made")
        return Taken(path=found[0].path, identity=_sound(found[0].path, "src"))

    def build(self, request: BuildRequest, context: StepContext) -> Made:
        results = _results(context)
        manifest = _manifest_in(request.source)
        arch = request.arch.value if manifest.get("arches") else "any"
        name, package = manifest["name"], _named(manifest, arch)
        given = Bind(path=request.source, inside="/builddir/in/source.tar")
        try:
            with self.roots(context.settings).root(
                request.target, request.arch, request.requires, context, repositories=request.repositories
            ) as session:
                with session.phase("unpack"):
                    unpack = f"mkdir -p /builddir/opt/{name} && tar -xf {given.inside} -C /builddir/opt/{name}"
                    done = session.run(["sh", "-c", unpack], binds=[given])
                if done.outcome is Outcome.SUCCEEDED:
                    with session.phase("make"):
                        command = manifest.get("build", "true")
                        done = session.run(["sh", "-ec", f"cd /builddir/opt/{name}\n{command}"])
                if done.outcome is Outcome.SUCCEEDED:
                    words = ["tar", "-cf", f"/builddir/results/{package}.tar", "-C", "/builddir"]
                    # The manifest goes first, so that a reader finds it.
                    done = session.run([*words, f"opt/{name}/{MANIFEST}", f"opt/{name}"])
                return _made(done.outcome, done.reason, session, results)
        except Ended as ended:
            return Made(outcome=ended.outcome, reason=ended.reason, results=results)

    def take_packages(self, made: Made, *, source: str, arch: Arch, context: StepContext) -> tuple[Taken, ...]:
        found = collect(made.results, ".tar", limits=context.limits)
        return tuple(Taken(path=one.path, identity=_sound(one.path, one.name.rpartition("_")[2][:-4])) for one in found)

    def find_reason(self, log: Path) -> Reason | None:
        lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("[farm]")]
        return Reason(line=ascii(lines[-1])[1:-1][:300], excerpt=ascii(lines[-1])[:300]) if lines else None

    def roots(self, settings: Settings) -> StackedRoots:
        return StackedRoots(settings, TarFiller)

    def fitness(self, settings: Settings, tools: Mapping[str, str]) -> Fitness:
        return Fitness(engines=("native",), unfit=None if os.geteuid() == 0 else "the worker is not root")

    def sweep(self, settings: Settings) -> int:
        return 0


def _results(context: StepContext) -> Path:
    results = context.workdir / "results"
    results.mkdir(exist_ok=True)
    return results


def _made(outcome: Outcome, reason: str | None, session: RootSession, results: Path) -> Made:
    if outcome is Outcome.SUCCEEDED:
        session.results.rename(results)
    return Made(outcome=outcome, reason=reason, results=results, root=session.root.packages)


def _with_facts(made: Made, facts: SourceFacts) -> Made:
    return Made(outcome=made.outcome, results=made.results, root=made.root, facts=facts)


def _named(manifest: Mapping[str, Any], arch: str) -> str:
    text = f"{manifest['name']}_{manifest['version']}_{arch}"
    try:
        return _FORM.parse_identity(text).text
    except ValueError as error:
        raise Ended(Outcome.FAILED, f"the manifest is wrong: {error}") from error


def _manifest(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
        return {**found, "name": str(found["name"]), "version": str(found["version"])}
    except (ValueError, KeyError, TypeError) as error:
        raise Ended(Outcome.FAILED, f"the manifest cannot be read: {error!r:.200}") from error


def _manifest_in(package: Path) -> Mapping[str, Any]:
    with tarfile.open(package) as tar:
        for member in tar:
            if member.isreg() and Path(member.name).name == MANIFEST:
                stream = tar.extractfile(member) or io.BytesIO()
                return _manifest(stream.read(_MANIFEST_BYTES))
    raise Ended(Outcome.FAILED, f"there is no {MANIFEST} in the package")


def _read_identity(path: Path, arch: str) -> Identity:
    try:
        return _FORM.parse_identity(_named(_manifest_in(path), arch))
    except (tarfile.TarError, Ended, ValueError) as error:
        raise BadPackage(f"is no package: {error}") from error


def _sound(path: Path, arch: str) -> Identity:
    try:
        identity = _read_identity(path, arch)
    except BadPackage as error:
        raise Ended(Outcome.FAILED, f"{path.name!a} {error}") from error
    if identity.filename != path.name:
        raise Ended(Outcome.FAILED, f"{path.name!a} says that it is {identity}")
    return identity


def _folder(url: str) -> Path:
    return Path(urlsplit(url).path)


def _listed(folder: Path) -> dict[str, Path]:
    try:
        return listed(folder)
    except (OSError, ValueError) as error:
        raise NetworkTrouble(f"{folder} cannot be read: {error}") from error


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in _listed(folder).values())


def _find(name: str, places: Sequence[Path]) -> Path | None:
    return next((path.resolve() for place in places if (path := _listed(place).get(name))), None)
