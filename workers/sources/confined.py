"""Tools that read what a stranger made, within the step's limits: in a cgroup of their own, ended with this process.

Owns the command line around the tool, and the words for a limit that was met. Not a sandbox: git reads and writes the
host's files, with the rights of the farm.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.context import Ended
from workers.core.run import CommandFailed
from workers.isolation import cgroups
from workers.isolation.cgroups import Cgroup, CgroupKind
from workers.isolation.outcomes import limits_met, over_limit

# What lives no longer than the thread that started it. The kernel's signal goes to the one process alone, and git's
# helpers may wait for a server for ever: timeout, whose time has no end here, passes it on to the whole group.
_TIED = ("setpriv", "--pdeathsig", "TERM", "--", "timeout", "--kill-after=1", "0")
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; ulimit -c 0; exec "$@"'
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
_SHELL_SIGNAL = 128  # `timeout` ends with this and the signal's number when its command died of one


@dataclass(frozen=True, kw_only=True)
class Confined:
    """The limits of one command. `group` is None where this host has no cgroups; resource limits stand in."""

    limits: Limits
    group: Cgroup | None

    def argv(self, command: Sequence[str | Path]) -> list[str | Path]:
        joins = self.group.joins if self.group else ()
        fallback = () if self.group else ("prlimit", f"--as={self.limits.memory_bytes}", "--")
        return ["sh", "-c", _JOIN, "join", *joins, "--", *_TIED, *fallback, *command]


@contextmanager
def confined(limits: Limits, what: str) -> Iterator[Confined]:
    """For one command; `what` begins the sentence about a limit that it met.

    Raises Ended when the command failed because of a limit, or crashed on what it read.
    """
    where = cgroups.place()
    with ExitStack() as stack:
        group = None if where.kind is CgroupKind.NONE else stack.enter_context(Cgroup(where, limits))
        try:
            yield Confined(limits=limits, group=group)
        except CommandFailed as error:
            met = limits_met(error.completed, group)
            reason = over_limit(error.completed, limits, met) if met.memory_kills or met.forks_refused else None
            if reason:
                raise Ended(Outcome.OVER_LIMIT, f"{what} {reason}") from error
            if error.completed.signal in _CRASHES or error.completed.code in [_SHELL_SIGNAL + one for one in _CRASHES]:
                raise Ended(Outcome.FAILED, f"{what} crashed on what it read: {error}") from error
            raise
