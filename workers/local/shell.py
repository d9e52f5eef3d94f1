"""`farm shell`: a command, or a shell on the terminal, in the root of a recorded attempt or in a new root of a target.

The session is confined as a step's is. With a network it is in a network namespace whose only way out is the gateway
that `fetch` uses, so that it reaches servers, and nothing of this host.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from farm.artifacts import open_store
from farm.config import Settings
from farm.errors import HostUnfit
from farm.model.local import ShellRequest
from farm.model.outcome import Outcome
from farm.model.target import Limits
from farm.model.work import PinnedRepository, repository_id
from workers.core.attached import run_attached
from workers.core.context import Ended, StepContext
from workers.core.log import StepLog
from workers.formats.base import Past, Reopened
from workers.formats.registry import format_of
from workers.local.show import say
from workers.local.world import HostWorld
from workers.roots.session import KEPT_BUILD
from workers.sources.egress import EgressPolicy
from workers.sources.gateway import Gateway
from workers.steps.records import read_root, read_versions
from workers.steps.registry import find_again
from workers.steps.runner import find_kept, scratch_folder

_LOG_BYTES = 64 * 2**20
_DAY_S = 24 * 3600
_SIGNALLED = 128
_SHELL = ("sh", "-c", "command -v bash > /dev/null && exec bash || exec sh")


def shell(asked: ShellRequest, settings: Settings, stop: threading.Event) -> int:
    """Run the command, or a shell. Returns its exit code; 128 and the number of the signal that ended it.

    Raises trouble if the root cannot be made, NotFound for records that are no longer kept, and LeaseLost.
    """
    asked = replace(asked, target=HostWorld(settings, asked.target).pinned(asked.target, asked.arch))
    with _context(asked, settings, stop) as context, ExitStack() as stack:
        start = time.monotonic()
        try:
            opened, network = stack.enter_context(_opened(asked, context)), _Network.none()
        except Ended as ended:
            raise HostUnfit(f"the root cannot be made: {ended.reason}") from ended
        if asked.has_network:
            network = _network(asked, context, stack)
        _greet(asked, opened, time.monotonic() - start)
        words = asked.command or _SHELL
        done = opened.session.run(
            words,
            binds=opened.binds,
            env={"TERM": _terminal_kind(), **network.env},
            how=partial(run_attached, prefix=network.prefix),
            has_network=asked.has_network,
        )
    if done.outcome is Outcome.OVER_LIMIT and done.reason:
        say(f"ended: {done.reason}")
    code = done.completed.code
    return code if code is not None else _SIGNALLED + (done.completed.signal or 0)


@contextmanager
def _context(asked: ShellRequest, settings: Settings, stop: threading.Event) -> Iterator[StepContext]:
    """A context as a step's, with a log that is not kept, and a person's time."""
    limits = replace(_limits(asked), wall_s=7 * _DAY_S, silence_s=7 * _DAY_S, log_bytes=_LOG_BYTES)
    with (
        scratch_folder(settings) as folder,
        StepLog(folder / "log", limit_bytes=_LOG_BYTES) as log,
    ):
        (folder / "work").mkdir()
        yield StepContext(
            attempt=asked.attempt or "0.shell.1",
            workdir=folder / "work",
            log=log,
            store=open_store(settings),
            settings=replace(settings, keep_failed=False),
            limits=limits,
            stop=stop,
            deadline=time.monotonic() + limits.wall_s,
        )


def _limits(asked: ShellRequest) -> Limits:
    return asked.options.limits_over(asked.target.limits_for(asked.package))


@contextmanager
def _opened(asked: ShellRequest, context: StepContext) -> Iterator[Reopened]:
    form = format_of(asked.target)
    if asked.kind is None:
        with form.roots(context.settings).root(asked.target, asked.arch, (), context) as session:
            yield Reopened(session=session, binds=(), remarks=())
        return
    request = find_again(asked.kind)(asked, context)
    kept = find_kept(context.settings, asked.attempt)
    build = kept / "work" / KEPT_BUILD if kept is not None else None
    past = Past(
        packages=read_root(asked, context),
        repositories=tuple((one.name, one.url) for one in asked.repositories or _recorded(asked, context)),
        build=build if build is not None and build.is_dir() else None,
    )
    with form.reopen(request, past, context) as opened:
        left = ("/builddir is as the attempt left it",) if past.build is not None else ()
        yield replace(opened, remarks=(*opened.remarks, *left))


def _recorded(asked: ShellRequest, context: StepContext) -> tuple[PinnedRepository, ...]:
    """The farm's own repositories that the project names, at the versions that the record names."""
    versions, world = read_versions(asked, context), HostWorld(context.settings, asked.target)
    found = []
    for project in (asked.project, *asked.builds_on):
        version = versions.get(repository_id(project, asked.target.name, asked.arch))
        own = world.own_at(project, asked.arch, version) if version is not None else None
        found += [own] if own is not None else []
    return tuple(found)


class _Network:
    """The beginning of a command line whose command has the network, and the variables that name its proxy."""

    def __init__(self, prefix: Sequence[str], env: dict[str, str]) -> None:
        self.prefix, self.env = tuple(prefix), env

    @classmethod
    def none(cls) -> "_Network":
        return cls((), {})


def _network(asked: ShellRequest, context: StepContext, stack: ExitStack) -> _Network:
    egress = EgressPolicy.of((*context.settings.networks, *asked.target.allow_networks))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=context.workdir)))
    gateway = stack.enter_context(Gateway(egress, folder))
    if not gateway.is_sealed:
        raise HostUnfit("this process may not make a network namespace, so --network would give the root this host's")
    proxy = gateway.settings["http.proxy"]
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    say("WARNING: NETWORK IS ON. A step never has it: what works here may fail in a build.")
    say(f"WARNING: the way out is the proxy in $all_proxy ({proxy.partition('@')[2]}, SOCKS 5), to public networks.")
    return _Network(gateway.prefix, dict.fromkeys(names, proxy))


def _greet(asked: ShellRequest, opened: Reopened, seconds: float) -> None:
    what = f"the root of attempt {asked.attempt}" if asked.kind is not None else f"a new root of {asked.target.name}"
    count = len(opened.session.root.packages)
    is_same = asked.kind is not None and not [one for one in opened.remarks if not one.startswith("/builddir")]
    same = ", the same as recorded, by digest" if is_same else ""
    say(f"{what} ({asked.arch}) in {seconds:.1f} s: {count} packages{same}")
    for line in opened.remarks:
        say(f"  {line}")
    if not asked.command:
        for line in opened.commands:
            say(f"  the step ran: {line}")
        if opened.commands:
            say("  `sh ~/again.sh` runs that again; `sh ~/again.sh -bc` a stage of it, on the unpacked sources")
        say(
            "  exit or Ctrl-D ends the shell, and its files are removed" + ("" if asked.has_network else "; no network")
        )


def _terminal_kind() -> str:
    """Most terminals of today understand this one, and roots have no others' descriptions."""
    return "xterm" if sys.stdin.isatty() else "dumb"
