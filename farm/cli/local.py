"""`farm try` and `farm shell`: they work on this machine, without a farm's processes, as `python -m workers.local`."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    ArchesOption,
    ArchOption,
    DefineOption,
    LimitOption,
    RecipeOption,
    SourcePackageOption,
    StepOption,
    SubdirOption,
    TargetOption,
    TimeoutOption,
    WithOption,
    WithoutOption,
    parse_build,
)
from farm.cli.session import connected
from farm.cli.warm import leave_server
from farm.config import Settings
from farm.errors import BadRequest, HostUnfit, NotFound, WrongState
from farm.model.place import DEFAULT_PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farm.model.arch import Arch
    from farm.model.build import Build, Step
    from farm.model.local import LocalRequest, ShellRequest
    from farm.model.source import Source
    from farm.model.target import Target

_PROGRAM = "workers.local"


def try_(
    target: TargetOption,
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder of the package.", show_default="the current one")
    ] = Path(),
    subdir: SubdirOption = None,
    recipe: RecipeOption = None,
    package: SourcePackageOption = None,
    arch: ArchesOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    define: DefineOption = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Let make run N at once.", show_default=False)
    ] = None,
    timeout: TimeoutOption = None,
    limit: LimitOption = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where packages, logs and records go.")] = Path(
        "results"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the work folder of a step that fails.")] = False,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in the root of a step that fails.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out the log.")] = False,
) -> None:
    """Build a work tree here, as the farm would, with changes that are not committed.

    Takes the files as they are on the disk: those that git tracks, and others that no .gitignore names. They go through
    the farm's own steps, in the same clean root without network; no farm has to run. Takes root, because build roots
    are overlays. Without --arch it builds for this machine's arch, and with --arch for each in turn. The exit code is
    that of `farm build --wait`.

    \b
    Examples:
      farm try -t demo
      farm try ~/src/hello -t almalinux-9 --without tests --results /tmp/out
      farm try -t demo --shell        look around where it failed
    """
    from farm.cli.options import build_defines
    from farm.formats.registry import format_of
    from farm.model.local import TrialRequest
    from farm.service.limits import parse_limits
    from farm.service.request import make_options
    from farm.targets.load import find_target, pick_arches

    _require_root("try")
    settings = Settings.from_env()
    found = find_target(settings, target)
    options = make_options(
        format_of(found.format),
        with_=with_ or (),
        without=without or (),
        defines=build_defines(define or (), jobs),
        timeout_s=timeout,
        limits=parse_limits(limit or ()),
    )
    request = TrialRequest(
        target=found,
        arches=pick_arches(found, arch or _here(found.arches)),
        options=options,
        folder=str(folder.absolute()),
        results=str(results.absolute()),
        source=_stored(settings, package, found.format) if package else None,
        subdir=subdir,
        recipe=recipe,
        is_kept=keep or settings.keep_failed,
        has_shell=shell,
        is_quiet=quiet,
    )
    try:
        _become(request)
    except SystemExit:  # the program ran
        leave_server(settings)
        raise


def shell(
    build: Annotated[str, typer.Argument(metavar="[BUILD]", help="The build's number.", show_default=False)] = "",
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run this.", show_default=False)
    ] = None,
    step: StepOption = None,
    arch: ArchOption = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="T", help="A new root of a target instead.", show_default=False),
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="Give the root a proxy to public networks.")] = False,
) -> None:
    """Open a shell in the root of an attempt, made again.

    Makes the root of the step's last attempt on this machine, package by package as its record says, and names the
    packages that can no longer be had. The sources are unpacked as the step had them, and `sh ~/again.sh` runs the
    step's own command lines. The shell is the build user's, without network unless --network is given. If the farm
    keeps failed work folders (FARM_KEEP_FAILED), the build folder is as the attempt left it. Takes root.

    With a COMMAND, or without a terminal, it runs the command and exits with its code.

    \b
    Examples:
      farm shell 12
      farm shell 12 --step build --arch aarch64
      farm shell 12 -- sh again.sh
      farm shell -t demo -- ls -l /usr
    """
    from farm.model.local import ShellRequest
    from farm.targets.load import find_target, pick_arches

    words = tuple(command or ())
    if target is not None:
        words = (build, *words) if build else words
    elif not build:
        raise BadRequest(
            "farm shell takes a build's number, as `farm shell 12`, or --target for a new root of a target"
        )
    if target is None:
        parse_build(build)
    if not words and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadRequest("there is no terminal for a shell; give a command, as in `farm shell 12 -- ls -l`")
    _require_root("shell")
    settings = Settings.from_env()
    if target is not None:
        found = find_target(settings, target)
        chosen = pick_arches(found, [arch] if arch else _here(found.arches))[0]
        _become(ShellRequest(target=found, arch=chosen, command=words, has_network=network))
    with connected() as farm:
        found_build = farm.build(parse_build(build))
        builds_on = () if found_build.project == DEFAULT_PROJECT else farm.project(found_build.project).builds_on
        request = replace(_recorded(settings, found_build, step, arch), builds_on=builds_on)
    _become(replace(request, command=words, has_network=network))


def _recorded(settings: Settings, build: "Build", kind: str | None, arch: str | None) -> "ShellRequest":
    """The request for a shell in the root of a step's last attempt."""
    from farm.model.local import ShellRequest, StoredArtifact
    from farm.service.request import arch_named

    chosen = _chosen_step(build, kind, arch_named(arch))
    attempt = chosen.attempts[-1]
    stored = tuple(
        StoredArtifact(kind=one.kind, arch=one.arch, artifact=artifact)
        for one in build.steps
        for artifact in (one.attempts[-1].artifacts if one.attempts else ())
    )
    target = _target_of(settings, build)
    return ShellRequest(
        target=target,
        arch=chosen.arch or arch_named(arch) or _here(build.arches)[0],
        options=build.options,
        project=build.project,
        package=build.package,
        kind=chosen.kind,
        attempt=attempt.label,
        artifacts=stored,
    )


def _chosen_step(build: "Build", kind: str | None, arch: "Arch | None") -> "Step":
    """The named step; else the one that decided how the build ended, if it has a root; else the one that makes
    packages."""
    from farm.steps.registry import step_type

    have_root = [one for one in build.steps if step_type(one.kind).can_reopen]
    if kind is not None and not step_type(kind).can_reopen:
        names = ", ".join(dict.fromkeys(one.kind for one in have_root)) or "none so far"
        raise WrongState(f"the root of the {kind} step cannot be made again; in build {build.id} that of {names} can")
    fitting = [
        one
        for one in have_root
        if kind in (None, one.kind) and (arch in (None, one.arch) or (one.arch is None and kind is not None))
    ]
    wanted = " ".join(word for word in (kind, arch) if word) or "step with a root"
    if not fitting:
        there = ", ".join(one.name for one in have_root) or "none so far"
        raise NotFound(f"build {build.id} has no {wanted}; it has {there}")
    run = [one for one in fitting if one.attempts]
    if not run:
        raise WrongState(
            f"build {build.id} never ran its {wanted}, so there is no root to make again; "
            f"`farm status {build.id}` says why"
        )
    failed = [one for one in run if one.outcome is not None and not one.outcome.is_success]
    making = [one for one in run if step_type(one.kind).makes_packages]
    return (failed or making or run)[0]


def _target_of(settings: Settings, build: "Build") -> "Target":
    """The target as it was when the build was asked for, if that is recorded."""
    from farm.artifacts import open_store
    from farm.targets.load import find_target
    from farm.targets.record import read_record

    if build.target_sha256 is None:
        return find_target(settings, build.target)
    return read_record(build.target_sha256, open_store(settings))


def _here(arches: "Sequence[Arch]") -> "tuple[Arch, ...]":
    """This machine's arch if it is one of them, else the first."""
    own = os.uname().machine
    return tuple(arch for arch in arches if arch == own)[:1] or tuple(arches[:1])


def _stored(settings: Settings, package: str, form: str) -> "Source":
    from farm.artifacts import open_store
    from farm.formats.registry import format_of
    from farm.service.source import check_srpm, store_srpm

    checked = check_srpm(package, format_of(form))
    return store_srpm(checked, open_store(settings))


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise HostUnfit(
            f"farm {command} makes build roots, which are overlays that only root mounts; run `sudo farm {command} …` "
            "(the build itself then runs as an unprivileged user, and the results are yours)"
        )


def _become(request: "LocalRequest") -> None:
    """Become the program that carries out the request, in this process: a new one would load half of the modules
    again, which takes a third of the time until the first step begins. The request goes through a file without a name,
    as it does when the program is started by itself."""
    import importlib.util
    import runpy

    import msgspec

    from farm.model.local import ShellRequest

    if importlib.util.find_spec(_PROGRAM.partition(".")[0]) is None:
        raise HostUnfit("the workers' part of the farm is not installed here; install the whole package")
    descriptor = os.memfd_create("request", 0)
    kind = b"shell" if isinstance(request, ShellRequest) else b"try"
    os.write(descriptor, kind + b"\n" + msgspec.json.encode(request))
    os.lseek(descriptor, 0, os.SEEK_SET)
    sys.argv = [_PROGRAM, str(descriptor)]
    runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)
