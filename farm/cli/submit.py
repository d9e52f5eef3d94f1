"""`farm build`, `farm retry`, `farm cancel`: the commands that change builds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from farm.cli.options import (
    ArchesOption,
    ArchOption,
    BuildArgument,
    DefineOption,
    GitOption,
    JsonOption,
    LimitOption,
    MaybeTargetOption,
    NamedOption,
    PackageArgument,
    PriorityOption,
    ProjectOption,
    RefOption,
    SpecOption,
    SrpmOption,
    StepOption,
    SubdirOption,
    TimeoutOption,
    WaitOption,
    WithOption,
    WithoutOption,
    parse_build,
)
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean
from farm.cli.worktree import warnings
from farm.errors import BadRequest
from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.model.place import DEFAULT_PROJECT

if TYPE_CHECKING:
    from farm.client import FarmApi


def build(
    target: MaybeTargetOption = None,
    package: PackageArgument = None,
    git: GitOption = None,
    ref: RefOption = None,
    subdir: SubdirOption = None,
    spec: SpecOption = None,
    srpm: SrpmOption = None,
    arch: ArchesOption = None,
    with_: WithOption = None,
    without: WithoutOption = None,
    define: DefineOption = None,
    timeout: TimeoutOption = None,
    limit: LimitOption = None,
    priority: PriorityOption = 0,
    project: ProjectOption = None,
    named: NamedOption = None,
    wait: WaitOption = False,
    json: JsonOption = False,
) -> None:
    """Build a package from a git repository or a src.rpm.

    Prints the build's number. With --wait the exit code says how the build ended: 0 succeeded, 10 failed, 11
    unresolvable, 12 excluded, 13 timed out, 14 stalled, 15 cancelled, 16 trouble of the farm, 17 over a limit.

    \b
    Examples:
      farm build --git https://example.org/hello.git --ref v2.10 -t demo -a x86_64 --wait
      farm build hello-2.10-1.src.rpm -t demo
      farm build --srpm ./hello-2.10-1.src.rpm -t almalinux-9 -a x86_64 --without tests --limit memory=8GiB
      farm build --project mylib --package hello
    """  # fmt: skip
    from farm.formats.rpm.options import parse_define
    from farm.service.limits import parse_limits

    if package is not None and (git is not None or srpm is not None):
        raise BadRequest(f"give either {package!r}, --git or --srpm")
    if target is None and project is None:
        raise typer.BadParameter("give a target, or --project with one", param_hint="'--target' / '-t'")
    limits = parse_limits(limit or ())
    defines = [parse_define(text) for text in define or ()]
    with connected() as farm:
        handle = farm.enqueue(
            target=target,
            project=project,
            package=named,
            git=git,
            srpm=srpm if package is None else package,
            ref=ref,
            subdir=subdir,
            spec=spec,
            arches=arch or (),
            with_=with_ or (),
            without=without or (),
            defines=defines,
            timeout_s=timeout,
            limits=limits,
            priority=priority,
        )
        found = warnings(git, ref) if git else ()
        for one in found:
            say(f"warning: {one}")
        if wait:
            _wait(farm, handle.id, is_json=json, warnings=found)
        elif json:
            from farm.service import documents

            emit({"build": documents.build(handle.refresh()), "warnings": found})
        else:
            _say_next(handle.last)


def retry(build: BuildArgument, step: StepOption = None, arch: ArchOption = None, wait: WaitOption = False,
          json: JsonOption = False) -> None:  # fmt: skip
    """Run the steps again that did not succeed.

    Runs all later steps too, with the recorded inputs. A step named by --step runs again even if it succeeded.

    \b
    Examples:
      farm retry 12
      farm retry 12 --step build --arch aarch64 --wait
    """
    build_id = parse_build(build)
    with connected() as farm:
        steps = farm.retry(build_id, step, arch)
        if wait:
            _wait(farm, build_id, is_json=json)
        elif json:
            from farm.service import documents

            emit({"build": build_id, "steps": documents.steps(steps)})
        else:
            names = ", ".join(one.name for one in steps)
            console().print(f"build {build_id}: {names} again; `farm status {build_id}` shows how it goes")


def cancel(build: BuildArgument, json: JsonOption = False) -> None:
    """Cancel a build, in any state.

    The farm kills its running steps within two seconds.

    \b
    Example:
      farm cancel 12
    """
    with connected() as farm:
        ended = farm.cancel(parse_build(build))
        if json:
            from farm.service import documents

            emit({"build": documents.build(ended)})
        else:
            how = "cancelled" if ended.outcome is Outcome.CANCELLED else f"over: {ended.outcome}"
            console().print(
                f"build {ended.id} ({clean(ended.package)}) is {how}; `farm retry {ended.id}` starts it again"
            )


def _wait(farm: "FarmApi", build_id: int, *, is_json: bool, warnings: Sequence[str] = ()) -> None:
    from farm.cli.follow import finish, summary, wait_for

    if not is_json and not console().is_terminal:
        console().print(f"build {build_id}")
    ended = wait_for(farm, build_id, is_quiet=is_json)
    if is_json:
        from farm.service import documents

        emit({"build": documents.build(ended), "warnings": warnings})
    else:
        for one in ended.warnings:
            say(f"warning: {clean(one)}")
        summary(farm, ended)
    finish(ended)


def _say_next(build: Build) -> None:
    out = console()
    where = f" in project {build.project}" if build.project != DEFAULT_PROJECT else ""
    out.print(f"build {build.id}: {clean(build.package)} for {clean(build.target)} ({', '.join(build.arches)}){where}")
    out.print(f"  watch   farm status {build.id}")
    out.print(f"  log     farm log {build.id} --follow")
    out.print(f"  stop    farm cancel {build.id}")
