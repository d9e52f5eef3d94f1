"""Who is to blame when dnf or rpmbuild fails: the package, or the farm's network, disk, root or host. Three tables.

Owns the judgement. What this host can be asked itself, how much disk is free and whether the emulator works, is never
taken from words. Words count where only the tool can have written them. dnf's count until it begins to install: from
then on scriptlets of packages that the farm built may write, or end dnf, and every end but the host's own is held
against the package. rpmbuild's words never count, so what a recipe prints can only be held against the recipe. mock's
table is in mock_exit.py, git's in workers/sources/git_blame.py.
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
from workers.formats.rpm import rpmbuild
from workers.isolation.disk import FLOOR_BYTES
from workers.isolation.emulator import emulator_problem, native_arch

_REASON_CHARS = 300
_INODES_LEAST = 1000


class Blame(StrEnum):
    """Whose doing it is. All but PACKAGE are farm trouble, and tried again."""

    PACKAGE = "package"
    NETWORK = "network"
    DISK = "disk"
    ROOT = "root"
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class HostState:
    """What the host says of itself, just after the end: each None when all is well, else words."""

    disk: str | None = None
    emulator: str | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """How the tool ended: `code`, or `signal` from outside. `said` is its output, or the last of it. `has_begun` tells
    that dnf had named what it installs, so that a scriptlet may have run."""

    code: int | None
    signal: int | None = None
    said: bytes
    host: HostState
    has_begun: bool = False

    @cached_property
    def text(self) -> str:
        return self.said.decode(errors="backslashreplace")


#: From the end of a tool to the reason, when it is this case.
Test = Callable[[End], str | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: `name` is that of its recorded logs in tests/data/logs, too. `outcome` is set for packages only.

    `is_hidden` marks what dnf 4 exits with 0 for, `is_seen` what the worker saw itself, whatever the tool said.
    """

    name: str
    blame: Blame
    test: Test
    outcome: Outcome = Outcome.ERRORED
    is_hidden: bool = False
    is_seen: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The row that an end belongs to, and a line that can be shown."""

    case: Case
    reason: str

    def error(self, doing: str, *, is_packages_own: bool = True) -> FarmError:
        """What to raise; `doing` is what was done, for messages. What goes wrong with a package while a root is filled
        for everybody is the root's trouble."""
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
    """The disks of these folders, of which the first that is nearly full counts, and what runs that arch."""
    emulator = None if arch is native_arch() else emulator_problem(arch)
    disk = next((words for folder in folders if (words := disk_problem(folder))), None)
    return HostState(disk=disk, emulator=f"this host cannot run {arch}: {emulator}" if emulator else None)


def of_dnf(end: End) -> Verdict | None:
    """Why dnf failed; None when it did not."""
    table = DNF_BEGUN if end.has_begun else DNF
    return _first((case for case in table if end.code != 0 or case.is_hidden), end)


def of_rpmbuild(end: End) -> Verdict | None:
    """Why rpmbuild failed in its room, when no limit ended it; None when it did not."""
    return None if end.code == 0 else _first(RPMBUILD, end)


def _first(cases: Iterable[Case], end: End) -> Verdict | None:
    for case in cases:
        if (reason := case.test(end)) is not None:
            return Verdict(case=case, reason=_line(reason))
    return None


def disk_problem(folder: Path) -> str | None:
    """That the disk of a folder is so full that whatever failed there may have failed for it."""
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < FLOOR_BYTES:
        return f"the disk of {folder} is nearly full, with {free_bytes // 2**20} MiB free"
    if found.f_files and found.f_favail < _INODES_LEAST:
        return f"the file system of {folder} has room for {found.f_favail} more files only"
    return None


# --- dnf --------------------------------------------------------------------------------------------------------------

_NOTHING = (
    re.compile(r"^No matching package to install: '(?P<what>[^\n]+)'", re.MULTILINE),
    re.compile(r"^[ -]*(?:Problem[ \d]*: )?nothing provides (?P<what>[^\n]+?) needed by ", re.MULTILINE),
    re.compile(r"^No match for argument: (?P<what>[^\n]+)", re.MULTILINE),
)
_NO_SPEC = re.compile(
    r"^Failed to (?:open: '/work/wanted\.spec', not a valid spec file|parse spec file \"/work/wanted\.spec\")",
    re.MULTILINE,
)
_SPEC_ERROR = re.compile(r"^(?:RPM: )?error: line \d+: (?P<what>[^\n]{1,300})", re.MULTILINE)
_LAST_NAMED = re.compile(r"^ +(?:Running scriptlet|Installing|Upgrading) *: (?P<what>[^ \n]{1,300})", re.MULTILINE)
_LAST_ERROR = re.compile(r"^(?:Error|error)[:(]? ?(?P<what>[^\n]{1,300})", re.MULTILINE)


def _says(pattern: str) -> Test:
    """The line that matches in what dnf said."""
    expression = re.compile(pattern, re.MULTILINE)

    def test(end: End) -> str | None:
        found = expression.search(end.text)
        return (found.groupdict().get("what") or found[0]) if found else None

    return test


def _installing_says(pattern: str, words: str) -> Test:
    """What dnf said once scriptlets ran, which they may have said as well."""
    expression = re.compile(pattern, re.MULTILINE)

    def test(end: End) -> str | None:
        found = expression.search(end.text)
        return words.format_map(found.groupdict()) if found else None

    return test


def _nothing_provides(end: End) -> str | None:
    text = end.text
    what = list(dict.fromkeys(found["what"] for pattern in _NOTHING for found in pattern.finditer(text)))
    return "nothing provides " + ", ".join(what) if what else None


def _bad_requirement(end: End) -> str | None:
    """All that stands in the spec besides BuildRequires is the farm's, and the same for every package."""
    if not _NO_SPEC.search(end.text):
        return None
    found = _SPEC_ERROR.search(end.text)
    return "rpm cannot read a BuildRequires" + (f": {found['what']}" if found else "; the log may say which")


def _emulator(end: End) -> str | None:
    return end.host.emulator


def _disk(end: End) -> str | None:
    return end.host.disk


def _killed(end: End) -> str | None:
    """What runs in a room is another user in another process namespace, and cannot reach what the signal ended."""
    return None if end.signal is None else f"the sandbox was killed by signal {end.signal} from outside"


def _both(one: Test, other: Test) -> Test:
    """The first one's words, where the other holds, too."""
    return lambda end: one(end) if other(end) is not None else None


def _last_error(end: End) -> str:
    errors = [found["what"] for found in _LAST_ERROR.finditer(end.text)]
    return errors[-1] if errors else "dnf did not say why"


def _installing(end: End) -> str:
    """The last package that dnf named, as a hint: a scriptlet can write that as well."""
    named = _LAST_NAMED.findall(end.text)
    last = f" The log names {named[-1]} last." if named else ""
    return f"installing what it requires failed: dnf ended with code {end.code} while scriptlets ran.{last}"


_UNPACKING = _installing_says(
    r"(?:^|[0-9])Error unpacking rpm package (?P<what>[^\n]{1,300})",
    "installing what it requires failed: package {what} was not unpacked",
)

#: dnf 4.14's words and dnf 5's. The first row that holds counts.
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
        test=_says(r"^ *Problem(?: \d+)?: (?P<what>[^\n]{1,300})"),
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
            r"|[^\n]+? is needed by [^\n]{1,300})"
        ),
        outcome=Outcome.FAILED,
    ),
    Case(name="bad-requirement", blame=Blame.PACKAGE, test=_bad_requirement, outcome=Outcome.FAILED),
    # Before the network: a download that the disk did not take looks like one that was cut.
    Case(name="disk-full", blame=Blame.DISK, test=_disk, is_seen=True),
    Case(
        name="network",
        blame=Blame.NETWORK,
        test=_says(
            r"^(?:>>> | +- |Error: |\[(?:MIRROR|FAILED)\] [^ \n]{1,300}: )?"
            r"(?P<what>(?:Curl error \(\d+\)|Status code: [45]\d\d for|Librepo error|No more mirrors to try"
            r"|Downloading successful, but checksum|All mirrors were (?:already )?tried|Cannot download"
            r"|Cannot prepare internal mirrorlist|Error downloading packages|Failed to download"
            r"|Errors during downloading(?! metadata for repository ))[^\n]{0,300})"
        ),
    ),
    Case(
        name="signature",
        blame=Blame.ROOT,
        test=_says(r"^(?:Package [^\n]{1,300} is not signed|Public key for [^\n]{1,300}|Error: GPG check FAILED)"),
    ),
    Case(name="root", blame=Blame.ROOT, test=_last_error),
)

#: The same once dnf has begun to install. Words only choose among reasons that are all the package's.
DNF_BEGUN: tuple[Case, ...] = (
    Case(name="emulator", blame=Blame.HOST, test=_emulator, is_hidden=True, is_seen=True),
    Case(name="killed-from-outside", blame=Blame.ROOT, test=_killed, is_seen=True),
    Case(name="disk-full-unpacking", blame=Blame.DISK, test=_both(_disk, _UNPACKING), is_hidden=True),
    Case(name="disk-full", blame=Blame.DISK, test=_disk, is_seen=True),
    Case(name="unpacking", blame=Blame.PACKAGE, test=_UNPACKING, outcome=Outcome.FAILED, is_hidden=True),
    # A failing %post is a warning for rpm; these two keep the package from being installed, and dnf says "Complete!".
    Case(
        name="scriptlet",
        blame=Blame.PACKAGE,
        test=_installing_says(
            r"^Error in (?P<script>PREIN|PRETRANS) scriptlet in rpm package (?P<what>[^\n]{1,300})",
            "installing what it requires failed: the {script} scriptlet of package {what} fails",
        ),
        outcome=Outcome.FAILED,
        is_hidden=True,
    ),
    Case(name="installing", blame=Blame.PACKAGE, test=_installing, outcome=Outcome.FAILED),
)


# --- rpmbuild ---------------------------------------------------------------------------------------------------------


def _unmet(end: End) -> str | None:
    missing = rpmbuild.unmet(end.said)
    return "the root lacks " + ", ".join(missing) if missing else None


#: For what no limit ended: see workers/isolation/outcomes.py. "failed" has no words of its own: reason.py finds them in
#: the log.
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
