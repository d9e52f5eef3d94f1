"""`farm workers`: list workers, and take hosts out of work and back in."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from farm.cli.options import JsonOption
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean

if TYPE_CHECKING:
    from farm.client import FarmApi

_LIST = "list"
_LOOK_EVERY_S = 0.5
_QUIET_S = 3.0


class WorkersGroup(TyperGroup):
    """`farm workers --json` is `farm workers list --json`: without the name of a command, `list` runs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


workers = typer.Typer(cls=WorkersGroup, no_args_is_help=False, rich_markup_mode=None)


def _complete_host(incomplete: str) -> list[str]:
    try:
        with connected() as farm:
            names = {worker.host for worker in farm.workers()} | set(farm.host_holds())
    except Exception:
        return []  # completion must not print errors
    return sorted(name for name in names if name.startswith(incomplete))


HostArgument = Annotated[
    str, typer.Argument(metavar="HOST", help="The host, as `farm workers` shows it.", autocompletion=_complete_host)
]


@workers.callback()
def about() -> None:
    """List the workers, and take hosts out of work and back in.

    `farm workers` alone lists the workers that reported within the last 30 seconds. A drained host finishes its running
    steps and takes no new ones until it is undrained, even if its workers restart. The farm quarantines a host for a
    while that had trouble with several packages in a row, unless it is the last one of a queue.

    \b
    Examples:
      farm workers                                   who is there, what they do, who is held and why
      farm workers drain builder3 --reason "new disks" --wait
      farm workers drain builder3 --now              what runs there is run elsewhere instead
      farm workers undrain builder3
    """


@workers.command(_LIST)
def list_(json: JsonOption = False) -> None:
    """List the workers, and the hosts that get no work with the reason.

    \b
    Examples:
      farm workers
      farm workers --json
    """
    from farm.service import documents

    with connected() as farm:
        found, holds, running = farm.workers(), farm.host_holds(), farm.running_on()
    if json:
        emit(
            {
                "workers": [documents.worker(worker, holds, running) for worker in found],
                "hosts": [documents.hold(hold) for _, hold in sorted(holds.items())],
            }
        )
        return
    from farm.cli import tables

    if found:
        console().print(tables.worker_table(found, holds, running, console().width))
    else:
        console().print("no workers; `farm up` starts some, docs/operating.md says how to add more")
    for _, hold in sorted(holds.items()):
        console().print(f"{clean(hold.shown)}; `farm workers undrain {clean(hold.host)}` ends that", soft_wrap=True)


@workers.command()
def drain(
    host: HostArgument,
    now: Annotated[bool, typer.Option("--now", help="Stop the running steps, and run them on another host.")] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="The reason, shown by `farm workers`.", show_default=False)
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when no step runs there any more.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also drain a host that is not known.")] = False,
    json: JsonOption = False,
) -> None:
    """Give a host no new work, until it is undrained.

    The host finishes its running steps; with --now they are stopped within seconds, and run on another host. Undo it
    with `farm workers undrain`. To change the reason, or to add --now later, drain the host again.

    \b
    Examples:
      farm workers drain builder3 --reason "new disks" --wait
      farm workers drain builder3 --now
    """
    from farm.service import documents

    with connected() as farm:
        hold = farm.drain_host(host, hands_back=now, reason=reason, force=force)
        if wait:
            _wait(farm, host)
        left = farm.running_on().get(host, ())
    if json:
        emit({"host": documents.hold(hold), "running": list(left)})
        return
    say(clean(hold.shown))
    if left:
        say(f"still running on it: {', '.join(clean(label) for label in left)}")
    else:
        say("nothing runs there")
    say(f"undo it with: farm workers undrain {clean(host)}")


@workers.command()
def undrain(host: HostArgument, json: JsonOption = False) -> None:
    """Give a drained or quarantined host work again.

    \b
    Example:
      farm workers undrain builder3
    """
    with connected() as farm:
        was = farm.undrain_host(host)
    if json:
        emit({"host": host, "was": was.kind})
    else:
        say(f"{clean(host)} is {was.kind} no longer: it gets work within two seconds")


def _wait(farm: "FarmApi", host: str) -> None:
    """Wait until no step runs there; print the remaining steps each time that one has ended.

    It also waits a while after that: a step claimed just before the workers learned of the drain appears a little
    later.
    """
    before, quiet_at = 0, time.monotonic() + _QUIET_S
    while (labels := farm.running_on().get(host, ())) or time.monotonic() < quiet_at:
        if labels:
            quiet_at = time.monotonic() + _QUIET_S
        if labels and len(labels) != before:
            before = len(labels)
            say(f"waiting for {before}: {', '.join(clean(label) for label in labels[:5])}{' …' if before > 5 else ''}")
        time.sleep(_LOOK_EVERY_S)
