"""`farm status`, `farm list`, `farm log`: commands that show builds and change nothing."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    ArchOption,
    BuildArgument,
    JsonOption,
    StepOption,
    ThingArgument,
    complete_project,
    complete_target,
    parse_build,
    parse_thing,
)
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean
from farm.errors import BadTarget, FarmNotRunning, UnknownTarget
from farm.model.amounts import ago
from farm.model.outcome import Outcome, Status

if TYPE_CHECKING:
    from farm.client import FarmApi
    from farm.model.build import Build

_LAST = 10


def status(thing: ThingArgument = "", json: JsonOption = False) -> None:
    """Show the farm, a batch or a build, and why steps wait.

    Without an argument it shows queues, running builds and the last builds.

    \b
    Examples:
      farm status            queues, workers, the last builds
      farm status 12         build 12, step by step
      farm status batch:3    the builds of batch 3; b3 is the same
    """
    with connected() as farm:
        if not thing:
            _overview(farm, is_json=json)
            return
        is_batch, number = parse_thing(thing)
        if is_batch:
            _batch(farm, number, is_json=json)
        else:
            _build(farm, number, is_json=json)


def list_(
    status: Annotated[Status | None, typer.Option(help="Only builds with this status.", show_default=False)] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only builds with this outcome.", show_default=False)] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="T",
            help="Only this target's.",
            autocompletion=complete_target,
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            metavar="P",
            help="Only this project's.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = None,
    package: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only builds of this source package.", show_default=False)
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="The number of builds, at most.")
    ] = 50,
    json: JsonOption = False,
) -> None:
    """List builds, the newest first.

    \b
    Examples:
      farm list --outcome failed --target demo
      farm list --status running --json
      farm list --project mylib --package hello
    """  # fmt: skip
    with connected() as farm:
        builds = farm.builds(
            status=status, outcome=outcome, target=target, project=project, package=package, limit=limit
        )
    if json:
        from farm.service import documents

        emit({"builds": [documents.build(build) for build in builds]})
    elif not builds:
        console().print(
            "no builds"
            + (" like that" if status or outcome or target or project or package else "; `farm build -h` starts one")
        )
    else:
        from farm.cli.tables import build_list

        console().print(build_list(builds, console().width))
        if len(builds) == limit:
            say(f"the newest {limit}; --limit shows more")


def log(
    build: BuildArgument,
    step: StepOption = None,
    arch: ArchOption = None,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", "-n", metavar="N", help="The number of the attempt; default: the last one.", show_default=False
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the build has finished.")
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Print the seconds since the step's start before each line.")
    ] = False,
) -> None:
    """Print a step's log.

    Without --step it prints the log of the failed step, else of the running one, else of `build`. On a terminal,
    control characters are escaped; a pipe or file gets the bytes unchanged.

    \b
    Examples:
      farm log 12
      farm log 12 --step srpm --timestamps
      farm log 12 --arch aarch64 --follow
    """
    from farm.cli.logview import follow_log, show_log

    build_id = parse_build(build)
    with connected() as farm:
        if follow and attempt is None:
            follow_log(farm, build_id, step=step, arch=arch)
        else:
            show_log(farm, build_id, step=step, arch=arch, attempt=attempt, with_times=timestamps)


def _overview(farm: "FarmApi", *, is_json: bool) -> None:
    from farm.service import documents

    trouble = _not_running(farm)
    workers = () if trouble else farm.workers()
    serving = {} if trouble else farm.serving()
    counts = farm.queue_counts()
    going = [build for one in (Status.RUNNING, Status.READY) for build in farm.builds(status=one, limit=_LAST)]
    ended = farm.builds(status=Status.FINISHED, limit=_LAST)
    if is_json:
        holds, running = farm.host_holds(), farm.running_on()
        emit(
            {
                "is_running": trouble is None,
                "workers": [documents.worker(worker, holds, running) for worker in workers],
                "queues": documents.queues(serving, counts),
                "going_on": [documents.build(build) for build in going],
                "finished": [documents.build(build) for build in ended],
            }
        )
    else:
        from farm.cli import tables

        out = console()
        if serving or counts:
            out.print(tables.queue_table(serving, counts, out.width))
        for heading, builds in (("going on", going), ("last finished", ended)):
            if builds:
                out.print(f"\n{heading}", style="bold")
                out.print(tables.build_list(builds, out.width))
        if not going and not ended:
            out.print("no builds yet; `farm build -h` shows how to start one")
    if trouble is not None:
        raise trouble


def _not_running(farm: "FarmApi") -> FarmNotRunning | None:
    try:
        farm.ping()
    except FarmNotRunning as trouble:
        return trouble
    return None


def _batch(farm: "FarmApi", number: int, *, is_json: bool) -> None:
    from farm.service import documents

    batch = farm.batch(number)
    if is_json:
        emit({"batch": documents.batch(batch)})
        return
    from farm.cli import tables

    done = [build for build in batch.builds if build.status is Status.FINISHED]
    good = [build for build in done if build.outcome is not None and build.outcome.is_success]
    console().print(
        f"batch:{batch.id}  {len(good)} of {len(batch.builds)} succeeded, {len(done) - len(good)} ended otherwise, "
        f"{len(batch.builds) - len(done)} to go; asked {ago(batch.created_at)} ago by {clean(batch.owner)}\n"
    )
    console().print(tables.build_list(batch.builds, console().width))


def _build(farm: "FarmApi", number: int, *, is_json: bool) -> None:
    from farm.service import documents

    build = farm.build(number)
    target = None
    with suppress(UnknownTarget, BadTarget):  # it may have been deleted meanwhile
        target = farm.target(build.target)
    if is_json:
        emit({"build": documents.build(build), "limits": documents.limits(build, target)})
        return
    from farm.cli import tables

    console().print(tables.build_heading(build))
    console().print(tables.build_details(build, target))
    console().print(tables.step_table(build))
    _say_more(farm, build)


def _say_more(farm: "FarmApi", build: "Build") -> None:
    from farm.cli.follow import summary

    if build.status is Status.FINISHED:
        summary(farm, build)
    else:
        console().print(f"\n  log          farm log {build.id} --follow\n  stop         farm cancel {build.id}")
