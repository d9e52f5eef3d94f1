"""Runs tools that read hostile files within the step's limits: in their own cgroup, ended with this process.

Owns the command line around the tool, and the message for a limit that was met. Not a sandbox: git reads and writes
the host's files, with the rights of the farm.
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

# Ends the command with the thread that started it. The kernel signals one process alone, and git's helpers may wait for
# a server without end: `timeout`, here without a limit, passes the signal on to the whole group.
_TIED = ("setpriv", "--pdeathsig", "TERM", "--", "timeout", "--kill-after=1", "0")
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; ulimit -c 0; exec "$@"'
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
_SHELL_SIGNAL = 128  # `timeout` ends with this and the signal's number when its command died of one


@dataclass(frozen=True, kw_only=True)
class Confined:
    """The limits of one command. `group` is None if this host has no cgroups; resource limits replace it."""

    limits: Limits
    group: Cgroup | None

    def argv(self, command: Sequence[str | Path]) -> list[str | Path]:
        joins = self.group.joins if self.group else ()
        fallback = () if self.group else ("prlimit", f"--as={self.limits.memory_bytes}", "--")
        return ["sh", "-c", _JOIN, "join", *joins, "--", *_TIED, *fallback, *command]


@contextmanager
def confined(limits: Limits, what: str) -> Iterator[Confined]:
    """The limits for one command; a message about them begins with `what`.

    Raises Ended if the command failed because of a limit, or crashed on its input.
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
                raise Ended(Outcome.FAILED, f"{what} crashed on its input: {error}") from error
            raise
