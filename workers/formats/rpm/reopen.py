"""The root of a recorded attempt again: package by package, with the step's sources unpacked and its command lines in
a script.

The record has each package's NEVRA and the digest of its header. A build host wrote it, so its texts are checked. If
this host still has the root, it is used as it is; else dnf installs each package by its NEVRA, and what can no longer
be had is named and replaced by today's package of that name.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from farm.errors import BadRequest, FarmError, RootTrouble
from farm.model.nevra import Nevra
from farm.model.target import EngineName, Target
from workers.core.context import StepContext
from workers.core.run import capture
from workers.formats.base import BuildRequest, Past, Reopened, SourceRequest
from workers.formats.rpm import native, rpmbuild
from workers.formats.rpm.dnf import exact_words, pinned_repositories, target_repositories
from workers.formats.rpm.filler import in_order
from workers.formats.rpm.install import DnfInstall
from workers.isolation.confine import confinement
from workers.isolation.emulator import require_arch
from workers.isolation.sandbox import Bind, Confinement, build_user_ids
from workers.roots.again import cached_root
from workers.roots.root import Root, RootPackage
from workers.roots.session import RootSession, last_error
from workers.roots.stacked import owned

#: The script in the build user's home.
SCRIPT = "again.sh"
_SHOWN = 20
_COPY_S = 3600.0
_STAGES = "-bp, -bc, -bi or -bb"


@contextmanager
def reopened(request: SourceRequest | BuildRequest, past: Past, context: StepContext) -> Iterator[Reopened]:
    """As WorkerFormat.reopen."""
    # mock makes the same root in its own way; the session is the farm's own with either engine.
    target = replace(request.target, engine=EngineName.NATIVE)
    require_arch(request.arch)
    confined = _confined(context, target, past)
    with ExitStack() as stack:
        root, remarks = stack.enter_context(_root(request, target, past, context, confined))
        session = stack.enter_context(RootSession(root, context, confined))
        binds, commands = _prepare(request, target, past, session, confined)
        yield Reopened(session=session, binds=binds, remarks=remarks, commands=commands)


def _confined(context: StepContext, target: Target, past: Past) -> Confinement:
    """With the build user of the attempt if its files were kept."""
    confined = confinement(context.settings, target)
    if past.build is None or confined.first_id is None:
        return confined
    owner = past.build.stat().st_uid
    if owner not in build_user_ids(confined.first_id):
        raise BadRequest(f"{past.build} belongs to user {owner}, who is no build user of this host; remove the folder")
    return replace(confined, build_user_id=owner)


# --- the root --------------------------------------------------------------------------------------------------------


@contextmanager
def _root(
    request: SourceRequest | BuildRequest, target: Target, past: Past, context: StepContext, confined: Confinement
) -> Iterator[tuple[Root, tuple[str, ...]]]:
    if not past.packages:
        with native.native_roots(context.settings).template(target, request.arch, context) as template:
            yield template.root, ("the attempt recorded no root; this is the target's root as it is now",)
        return
    with cached_root(context.settings, target, request.arch, past.packages, context, confined) as found:
        if found is not None:
            yield found, ()
            return
    yield _installed(request, target, past, context, confined)


def _installed(
    request: SourceRequest | BuildRequest, target: Target, past: Past, context: StepContext, confined: Confinement
) -> tuple[Root, tuple[str, ...]]:
    """The root from the repositories as they are now. It is in the work folder, and is removed with that."""
    own = [replace(one, options=_without_priority(one.options)) for one in pinned_repositories(past.repositories)]
    repositories = [*own, *target_repositories(target, request.arch)]
    exact = exact_words([one.identity for one in past.packages])
    install = DnfInstall(context.settings, target, request.arch, context, confined)
    tries = 0

    def installed(words: Sequence[str]) -> tuple[Path, tuple[RootPackage, ...]]:
        nonlocal tries
        tries += 1
        folder = context.workdir / f"again{tries}"
        folder.mkdir(mode=0o700)
        root = owned(folder / "root", confined)
        plan = install.install(words, repositories, root=root, into=folder)
        return root, in_order(plan.packages)

    with context.phase("root"):
        root, packages = installed(["--setopt=strict=0", "--setopt=best=0", *exact])
        lost = _lost(past.packages, packages)
        if lost:
            names = sorted({Nevra.parse(one.identity).name for one in lost})
            had = [one.identity for one in past.packages if one not in lost]
            root, packages = installed(["--setopt=strict=0", "--setopt=best=0", *had, *names])
    if not packages:
        raise RootTrouble(f"no package of the recorded root can be had from the repositories of {target.name}")
    return Root(lowers=(root,), packages=packages), remarks(past.packages, packages)


def _without_priority(options: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(one for one in options if one[0] != "priority")


def _lost(recorded: Sequence[RootPackage], found: Sequence[RootPackage]) -> list[RootPackage]:
    there = {one.identity for one in found}
    return [one for one in recorded if one.identity not in there]


def remarks(recorded: Sequence[RootPackage], found: Sequence[RootPackage]) -> tuple[str, ...]:
    """The differences of a root from its record, a line each."""
    before = {one.identity: one.digest for one in recorded}
    now = {one.identity: one.digest for one in found}
    by_name = {Nevra.parse(identity).name: identity for identity in now}
    lines = []
    for identity in sorted(before.keys() - now.keys()):
        instead = by_name.get(Nevra.parse(identity).name)
        words = f"{instead} is in its place" if instead else "no package is in its place"
        lines.append(f"{identity} can no longer be had: the repositories moved on; {words}")
    lines += [
        f"{identity} has another digest than recorded: it was built again under the same version"
        for identity in sorted(before.keys() & now.keys())
        if before[identity] != now[identity]
    ]
    placed = {Nevra.parse(identity).name for identity in before}
    more = sorted(one for one in now.keys() - before.keys() if Nevra.parse(one).name not in placed)
    lines += [f"{identity} was not in the recorded root; a package that is needs it now" for identity in more]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more differences"]
    return tuple(lines)


# --- sources and commands --------------------------------------------------------------------------------------------


def _prepare(
    request: SourceRequest | BuildRequest, target: Target, past: Past, session: RootSession, confined: Confinement
) -> tuple[tuple[Bind, ...], tuple[str, ...]]:
    """Unpack the sources, unless the build folder was kept, and write the script."""
    if isinstance(request, BuildRequest):
        options = rpmbuild.options(target, request.options, source_packages_to="/builddir/out")
        source = f"/builddir/in/{native.GIVEN}"
        binds: tuple[Bind, ...] = (Bind(path=request.source, inside=source),)
        whole = ["rpmbuild", "--rebuild", *options, source]
        spec = "/builddir/build/SPECS/*.spec"
    else:
        options = rpmbuild.options(target, request.options, source_packages_to="/builddir/results")
        whole = native.pack(request, options)
        binds = (native.sources(request, confined),)
        spec = f"/builddir/in/{request.recipe}" if request.recipe else "/builddir/build/SPECS/*.spec"
        if request.recipe:
            options = [*options, "--define", "_sourcedir /builddir/in"]
    if past.build is not None:
        _copy_kept(past.build, session.build)
    _write_new(session.build / SCRIPT, _script(whole, options, spec))
    if past.build is None and (isinstance(request, BuildRequest) or request.package is not None):
        unpack = ["rpm", "-i", "--nodeps", "--nosignature", *options, binds[0].inside]
        done = session.run(_only_defines(unpack), binds=binds)
        if done.completed.code:
            raise BadRequest(f"the source package does not unpack in the root: {last_error(done.completed.tail)}")
    return binds, (shlex.join(whole),)


def _only_defines(words: Sequence[str]) -> list[str]:
    """rpm has no --with and --without; to unpack, they do not matter."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--with", "--without"):
            skip = True
        else:
            kept.append(word)
    return kept


def _copy_kept(kept: Path, build: Path) -> None:
    """Copy all but the places of the session's own folders. No link is followed."""
    for entry in sorted(kept.iterdir()):
        if entry.name in ("in", "results", "out", SCRIPT):
            continue
        words: list[str | Path] = ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", entry]
        try:
            capture([*words, build / entry.name], cwd=Path("/"), timeout_s=_COPY_S, limit_bytes=2**16)
        except FarmError as error:
            raise RootTrouble(f"the kept build folder {kept} cannot be copied: {error}") from error


def _write_new(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with path.open("x") as file:
        file.write(text)
    path.chmod(0o755)


def _script(whole: Sequence[str], options: Sequence[str], spec: str) -> str:
    return (
        "#!/bin/sh\n"
        f"# The command line of the step. With {_STAGES} it runs rpmbuild's stages on the unpacked sources instead,\n"
        "# so that /builddir/build stays: `sh again.sh -bc --short-circuit`.\n"
        f'[ $# -gt 0 ] && exec rpmbuild "$@" {shlex.join(options)} {spec}\n'
        f"exec {shlex.join(whole)}\n"
    )
