"""Turns the end of a recipe's command into an outcome for the package, and a reason that names the limit.

Owns the judgement. Does not measure: workers.core.run, the watch on the disk and the cgroup do.
"""

import re
from dataclasses import dataclass

from farm.errors import DiskFull
from farm.model.outcome import Outcome
from farm.model.target import Limits
from workers.core.run import FLOOD_FACTOR, Completed, Ending
from workers.isolation.cgroups import Cgroup
from workers.isolation.disk import DiskWatch
from workers.isolation.sockets import kernel_bytes

# The message of a shell about a program that the file size limit killed, and the message of programs that survived.
_TOO_LARGE = re.compile(rb"File size limit exceeded|: File too large")


@dataclass(frozen=True, kw_only=True)
class LimitsMet:
    """The kernel's counts for the command's group: processes killed at the memory limit, and refused forks; and whether
    the disk got low meanwhile, because of other commands or, in `most`, because of this one."""

    memory_kills: int = 0
    forks_refused: int = 0
    was_low: bool = False
    most: Ending | None = None


def limits_met(completed: Completed, group: Cgroup | None, watch: DiskWatch | None = None) -> LimitsMet:
    """All zero for a command that succeeded despite its limits. Call it while the group still exists."""
    if completed.code == 0:
        return LimitsMet()
    most = watch.last_word() if watch is not None and completed.ending is Ending.EXITED else None
    was_low = watch is not None and watch.was_low
    if group is None:
        return LimitsMet(was_low=was_low, most=most)
    return LimitsMet(memory_kills=group.memory_kills(), forks_refused=group.forks_refused(), was_low=was_low, most=most)


def judge(completed: Completed, limits: Limits, met: LimitsMet) -> tuple[Outcome, str | None]:
    """The outcome, and the reason if the end itself is the reason. Raises DiskFull if the host's disk is the cause.

    A log that was cut is not a failure; a command that writes FLOOD_FACTOR times the limit is ended.
    """
    match completed.ending:
        case Ending.TIMED_OUT:
            return Outcome.TIMED_OUT, f"did not end within its limit of {limits.wall_s} s{_also_refused(limits, met)}"
        case Ending.STALLED:
            words = f"wrote nothing and used no CPU for {limits.silence_s} s{_also_refused(limits, met)}"
            return Outcome.STALLED, _over(words, "silence")
        case Ending.OVER_DISK | Ending.OVER_FILES | Ending.OVER_SOCKETS | Ending.OVER_LOCKS | Ending.FLOODED:
            return Outcome.OVER_LIMIT, _watched(completed.ending, limits)
        case Ending.MOST_OF_DISK | Ending.MOST_OF_FILES:
            return Outcome.OVER_LIMIT, _most(completed.ending)
        case Ending.DISK_FULL:
            raise DiskFull("the disk of this host is nearly full while the build is within its limit; free some space")
        case Ending.EXITED:
            if completed.code == 0:
                return Outcome.SUCCEEDED, None
            reason = over_limit(completed, limits, met)
            if not reason and met.most is not None:
                return Outcome.OVER_LIMIT, _most(met.most)
            if not reason and met.was_low:
                raise DiskFull("the disk was nearly full while it ran, because of other steps on it; free some space")
            return (Outcome.OVER_LIMIT if reason else Outcome.FAILED), reason


def over_limit(completed: Completed, limits: Limits, met: LimitsMet) -> str | None:
    """The limit that made a command fail that ended by itself; None if no limit did."""
    if completed.code == 0:
        return None
    if met.memory_kills:
        return _over(f"used more memory than its limit of {_size(limits.memory_bytes)}", "memory")
    if met.forks_refused:
        return _over(f"wanted more processes and threads than its limit of {limits.processes}", "processes")
    if _TOO_LARGE.search(completed.tail):
        return _over(f"wrote a file larger than its disk limit of {_size(limits.disk_bytes)}", "disk")
    return None


def _watched(ending: Ending, limits: Limits) -> str:
    """The reason for an end at a limit that the farm itself watches."""
    match ending:
        case Ending.OVER_DISK:
            return _over(f"used more disk than its limit of {_size(limits.disk_bytes)}", "disk")
        case Ending.OVER_FILES:
            return _over(f"made more files than its limit of {limits.files}", "files")
        case Ending.OVER_SOCKETS | Ending.OVER_LOCKS:
            return _over(over_kernel_memory(ending, limits), "memory")
        case _:
            most = f"{FLOOD_FACTOR} times its limit of {_size(limits.log_bytes)}"
            return _over(f"flooded the log: wrote more than {most}", "log")


def over_kernel_memory(ending: Ending, limits: Limits) -> str:
    taken = "sockets" if ending is Ending.OVER_SOCKETS else "locks of files"
    return (
        f"took more than {_size(kernel_bytes(limits))} of the kernel's memory for {taken}, a part of its memory limit"
    )


def _most(ending: Ending) -> str:
    """The reason for a build within its limit on a smaller disk, which other steps need too."""
    used = "used most of the disk" if ending is Ending.MOST_OF_DISK else "made most of the files"
    return (
        f"{used} that its host had space for, though within its limit, and other steps there had too little left; "
        "build it where the disk is larger"
    )


def _size(size_bytes: int) -> str:
    """The size in the largest unit in which it is a whole number: `512 MiB`."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} bytes"


def _over(words: str, name: str) -> str:
    return f"{words}; --limit {name}=… or the target's limits raise it"


def _also_refused(limits: Limits, met: LimitsMet) -> str:
    """A build that waits for processes that the limit refuses looks like one that hangs."""
    return f", and its limit of {limits.processes} processes had refused it more" if met.forks_refused else ""
