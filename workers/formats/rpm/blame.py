"""Decides the cause of a failure of dnf or rpmbuild: the package, or the farm's network, disk, root or host.

Owns the judgement, in three tables. The free disk space and the emulator are read from the host, never from a tool's
output. Output counts as long as only the tool can have written it. dnf's output counts until dnf begins to install:
from then on scriptlets of packages that the farm built may write, or end dnf, and every failure that the host does not
explain is the package's. rpmbuild's output never counts, so the output of a recipe can only blame the recipe. mock's
table is in mock/exit_codes.py, git's in workers/sources/git_blame.py.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import assert_never

from farm.errors import DiskFull, FarmError, HostUnfit, NetworkTrouble, RootTrouble
from farm.model.arch import Arch
from farm.model.outcome import Outcome
from workers.core.context import Ended
from workers.core.text import shown
from workers.formats.rpm import repository_trouble, rpmbuild
from workers.isolation.disk import FLOOR_BYTES
from workers.isolation.emulator import emulator_problem, native_arch

_REASON_CHARS = 300
_INODES_LEAST = 1000


class Blame(StrEnum):
    """The cause of a failure. All but PACKAGE are trouble of the farm, and the farm tries the step again."""

    PACKAGE = "package"
    NETWORK = "network"
    DISK = "disk"
    ROOT = "root"
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class HostState:
    """The problems of the host just after the end; each is None if there is no problem."""

    disk: str | None = None
    emulator: str | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of the tool: `code`, or `signal` from outside. `said` is its output, or the last part. `has_begun` if dnf
    had written its plan, so that a scriptlet may have run. `rich` are the build's own rich dependencies."""

    code: int | None
    signal: int | None = None
    said: bytes
    host: HostState
    has_begun: bool = False
    rich: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        return self.said.decode(errors="backslashreplace")


#: Gives the reason if the end of the tool is this case, else None.
Test = Callable[[End], str | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row. `name` is also the name of its recorded logs in tests/data/logs. `outcome` is set for packages only.

    `is_hidden` marks a failure for which dnf 4 exits with 0, `is_seen` a failure that the worker itself detected,
    whatever the tool wrote.
    """

    name: str
    blame: Blame
    test: Test
    outcome: Outcome = Outcome.ERRORED
    is_hidden: bool = False
    is_seen: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The row that an end matches, and a printable reason."""

    case: Case
    reason: str

    def error(self, doing: str, *, is_packages_own: bool = True) -> FarmError:
        """The error to raise; its message begins with `doing`. If the package is not the build's own, because the root
        is a template for all builds, its fault is RootTrouble."""
        words = f"{doing}: {self.reason}"
        match self.case.blame:
            case Blame.PACKAGE:
                return Ended(self.case.outcome, self.reason) if is_packages_own else RootTrouble(words)
            case Blame.NETWORK:
                return NetworkTrouble(words)
            case Blame.DISK:
                return DiskFull(words)
            case Blame.ROOT:
                return RootTrouble(words)
            case Blame.HOST:
                return HostUnfit(words)
            case _:
                assert_never(self.case.blame)


def host_state(folders: Sequence[Path], arch: Arch) -> HostState:
    """The first disk of these folders that is nearly full, and the problem of the emulator of that arch."""
    emulator = None if arch is native_arch() else emulator_problem(arch)
    disk = next((words for folder in folders if (words := disk_problem(folder))), None)
    return HostState(disk=disk, emulator=f"this host cannot run {arch}: {emulator}" if emulator else None)


def of_dnf(end: End) -> Verdict | None:
    """The cause of dnf's failure; None if it did not fail."""
    table = DNF_BEGUN if end.has_begun else DNF
    return _first((case for case in table if end.code != 0 or case.is_hidden), end)


def of_rpmbuild(end: End) -> Verdict | None:
    """The cause of rpmbuild's failure, if no limit ended it; None if it did not fail."""
    return None if end.code == 0 else _first(RPMBUILD, end)


def _first(cases: Iterable[Case], end: End) -> Verdict | None:
    for case in cases:
        if (reason := case.test(end)) is not None:
            return Verdict(case=case, reason=_line(reason))
    return None


def disk_problem(folder: Path) -> str | None:
    """The problem of a disk that is so full that any failure there may be due to it; None if it is not."""
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < FLOOR_BYTES:
        return f"the disk of {folder} is nearly full, with {free_bytes // 2**20} MiB free"
    if found.f_files and found.f_favail < _INODES_LEAST:
        return f"the file system of {folder} has space for only {found.f_favail} more files"
    return None


# --- dnf --------------------------------------------------------------------------------------------------------------

_NOTHING = (
    re.compile(r"^No matching package to install: '(?P<what>[^\n]+)'", re.MULTILINE),
    re.compile(
        r"^[ -]*(?:Problem[ \d]*: )?nothing provides "
        r"(?:requested )?(?P<what>[^\n]+?(?: needed by [^ \n]+)?)(?: from \S+)?$",
        re.MULTILINE,
    ),
    re.compile(r"^No match for argument: (?P<what>[^\n]+)", re.MULTILINE),
)
_PROBLEM = re.compile(
    r"^ *Problem(?: \d+)?: (?P<what>[^\n]{1,300})(?P<causes>(?:\n +- [^\n]{1,300}){0,8})", re.MULTILINE
)
_FILTERS = {
    "modular filtering": " (it is of a module's stream that the target does not enable)",
    "exclude filtering": " (the target, or the template of its roots, excludes it)",
}
_NO_SPEC = re.compile(
    r"^Failed to (?:open: '/work/wanted\.spec', not a valid spec file|parse spec file \"/work/wanted\.spec\")",
    re.MULTILINE,
)
_SPEC_ERROR = re.compile(r"^(?:RPM: )?error: line \d+: (?P<what>[^\n]{1,300})", re.MULTILINE)
_LAST_NAMED = re.compile(r"^ +(?:Running scriptlet|Installing|Upgrading) *: (?P<what>[^ \n]{1,300})", re.MULTILINE)
_LAST_ERROR = re.compile(r"^(?:Error|error)[:(]? ?(?P<what>[^\n]{1,300})", re.MULTILINE)


def _says(pattern: str) -> Test:
    """Gives the line of dnf's output that matches."""
    expression = re.compile(pattern, re.MULTILINE)

    def test(end: End) -> str | None:
        found = expression.search(end.text)
        return (found.groupdict().get("what") or found[0]) if found else None

    return test


def _installing_says(pattern: str, words: str) -> Test:
    """Gives `words` if dnf's output matches after it began to install; scriptlets may have written the line too."""
    expression = re.compile(pattern, re.MULTILINE)

    def test(end: End) -> str | None:
        found = expression.search(end.text)
        return words.format_map(found.groupdict()) if found else None

    return test


def _nothing_provides(end: End) -> str | None:
    text = end.text
    what = list(dict.fromkeys(found["what"] for pattern in _NOTHING for found in pattern.finditer(text)))
    return "nothing provides " + ", ".join(what) if what else None


def _conflict(end: End) -> str | None:
    """dnf's first problem, which is a line and a list of causes. The causes come first when the line says nothing."""
    found = _PROBLEM.search(end.text)
    if found is None:
        return None
    what = found["what"]
    causes = [line.strip(" -") for line in found["causes"].splitlines()]
    if filtered := [line for line in causes if "filtered out by" in line]:
        return f"{filtered[0]}{_FILTERS.get(filtered[0].rpartition(' by ')[2], '')}"
    if what == "conflicting requests" and causes:
        what = ""
    # dnf does not name the rich dependency that leads to a problem.
    rich = f"the BuildRequires have the conditions {', '.join(end.rich)}" if end.rich else ""
    return "; ".join(part for part in (what, *causes, rich) if part)


def _bad_requirement(end: End) -> str | None:
    """Apart from the BuildRequires, the spec is the farm's and the same for each package, so they have the error."""
    if not _NO_SPEC.search(end.text):
        return None
    found = _SPEC_ERROR.search(end.text)
    return "rpm cannot read a BuildRequires" + (f": {found['what']}" if found else "; the log may say which")


def _signature(end: End) -> str | None:
    return repository_trouble.signature(end.text)


def _network(end: End) -> str | None:
    return repository_trouble.network(end.text)


def _emulator(end: End) -> str | None:
    return end.host.emulator


def _disk(end: End) -> str | None:
    return end.host.disk


def _killed(end: End) -> str | None:
    """A recipe is another user in another process namespace, and cannot send a signal to the sandbox's process."""
    return None if end.signal is None else f"the sandbox was killed by signal {end.signal} from outside"


def _both(one: Test, other: Test) -> Test:
    """Gives the reason of `one` if `other` matches as well."""
    return lambda end: one(end) if other(end) is not None else None


def _last_error(end: End) -> str:
    errors = [found["what"] for found in _LAST_ERROR.finditer(end.text)]
    return errors[-1] if errors else "dnf did not say why"


def _installing(end: End) -> str:
    """The last package that dnf named, as a hint: a scriptlet can write that as well."""
    named = _LAST_NAMED.findall(end.text)
    last = f" The log names {named[-1]} last." if named else ""
    return f"installing its requirements failed: dnf ended with code {end.code} while scriptlets ran.{last}"


_UNPACKING = _installing_says(
    r"(?:^|[0-9])Error unpacking rpm package (?P<what>[^\n]{1,300})",
    "installing its requirements failed: package {what} was not unpacked",
)

#: The messages of dnf 4.14 and dnf 5. The first row that matches counts.
DNF: tuple[Case, ...] = (
    Case(name="emulator", blame=Blame.HOST, test=_emulator, is_hidden=True, is_seen=True),
    Case(name="killed-from-outside", blame=Blame.ROOT, test=_killed, is_seen=True),
    Case(
        name="disk-full-download",
        blame=Blame.DISK,
        test=_says(r"^(?:>>> |\[(?:MIRROR|FAILED)\] [^ \n]{1,300}: )(?P<what>Curl error \(23\): [^\n]{1,300})"),
    ),
    Case(
        name="disk-too-small",
        blame=Blame.DISK,
        test=_says(
            r"^ *(?:At least \d+[KMGT]?B more space needed|installing package [^ \n]{1,300} needs \d+)[^\n]{1,300}"
        ),
    ),
    Case(name="nothing-provides", blame=Blame.PACKAGE, test=_nothing_provides, outcome=Outcome.UNRESOLVABLE),
    Case(
        name="conflict",
        blame=Blame.PACKAGE,
        test=_conflict,
        outcome=Outcome.UNRESOLVABLE,
    ),
    Case(
        name="file-conflict",
        blame=Blame.PACKAGE,
        test=_says(r"^ *(?P<what>file /[^\n]+? conflicts (?:between|with) [^\n]{1,300})"),
        outcome=Outcome.UNRESOLVABLE,
    ),
    Case(
        name="not-installable",
        blame=Blame.PACKAGE,
        test=_says(
            r"^ *(?P<what>package [^ \n]+ (?:does not verify|is intended for a different)[^\n]{1,300}"
            r"|[^ \n][^\n]*? is needed by [^\n]{1,300})"
        ),
        outcome=Outcome.FAILED,
    ),
    Case(name="bad-requirement", blame=Blame.PACKAGE, test=_bad_requirement, outcome=Outcome.FAILED),
    # Before the network: a download that failed for a full disk looks like one that was cut.
    Case(name="disk-full", blame=Blame.DISK, test=_disk, is_seen=True),
    # Before the network: dnf passes over mirrors in trouble, and says so, while it goes on.
    Case(name="signature", blame=Blame.ROOT, test=_signature),
    Case(name="network", blame=Blame.NETWORK, test=_network),
    Case(name="root", blame=Blame.ROOT, test=_last_error),
)

#: The same once dnf has begun to install. Output only chooses among reasons that all blame the package.
DNF_BEGUN: tuple[Case, ...] = (
    Case(name="emulator", blame=Blame.HOST, test=_emulator, is_hidden=True, is_seen=True),
    Case(name="killed-from-outside", blame=Blame.ROOT, test=_killed, is_seen=True),
    Case(name="disk-full-unpacking", blame=Blame.DISK, test=_both(_disk, _UNPACKING), is_hidden=True),
    Case(name="disk-full", blame=Blame.DISK, test=_disk, is_seen=True),
    Case(name="unpacking", blame=Blame.PACKAGE, test=_UNPACKING, outcome=Outcome.FAILED, is_hidden=True),
    # A failing %post is a warning for rpm. After one of these two the package is not installed, and yet dnf writes
    # "Complete!".
    Case(
        name="scriptlet",
        blame=Blame.PACKAGE,
        test=_installing_says(
            r"^Error in (?P<script>PREIN|PRETRANS) scriptlet in rpm package (?P<what>[^\n]{1,300})",
            "installing its requirements failed: the {script} scriptlet of package {what} fails",
        ),
        outcome=Outcome.FAILED,
        is_hidden=True,
    ),
    Case(name="installing", blame=Blame.PACKAGE, test=_installing, outcome=Outcome.FAILED),
)


# --- rpmbuild ---------------------------------------------------------------------------------------------------------


def _unmet(end: End) -> str | None:
    missing, unwanted = rpmbuild.unmet(end.said), rpmbuild.conflicts(end.said)
    words = ["the root lacks " + ", ".join(missing)] if missing else []
    if unwanted:
        words.append("the root has what BuildConflicts rules out: " + ", ".join(unwanted))
    return "; ".join(words) or None


#: For a command that no limit ended (workers/isolation/outcomes.py has those). "failed" has no reason here: reason.py
#: finds it in the log.
RPMBUILD: tuple[Case, ...] = (
    Case(name="emulator", blame=Blame.HOST, test=_emulator, is_seen=True),
    Case(name="killed-from-outside", blame=Blame.ROOT, test=_killed, is_seen=True),
    Case(name="excluded", blame=Blame.PACKAGE, test=lambda end: rpmbuild.excluded(end.said), outcome=Outcome.EXCLUDED),
    Case(name="unmet", blame=Blame.PACKAGE, test=_unmet, outcome=Outcome.UNRESOLVABLE),
    Case(name="disk-full", blame=Blame.DISK, test=_disk, is_seen=True),
    Case(name="failed", blame=Blame.PACKAGE, test=lambda _: "", outcome=Outcome.FAILED),
)


def _line(text: str) -> str:
    return shown(" ".join(text.split()), limit=_REASON_CHARS)
