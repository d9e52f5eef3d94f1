"""The meaning of mock's exit codes: one table, and a look into the logs for the few codes that do not suffice.

Owns the judgement of a finished run of mock. Does not run it. The codes are those of mock's `exception.py` (mock 6.7),
whose list misses two facts. A command that fails inside the root ends mock with *that command's* code, so rpmbuild's 1
and 11 look like mock's "something is bad" and "timed out". And 30 is any error of the package manager: a BuildRequires
without a provider as well as a mirror that is down.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from farm.errors import DiskFull, HostUnfit, NetworkTrouble, RootTrouble
from farm.model.outcome import Outcome
from workers.core.text import shown
from workers.formats.rpm import rpmbuild


class Meaning(Enum):
    """The meaning of a code, before any log is read."""

    DONE = auto()
    FAILED = auto()
    RPMBUILD_OR_MOCK = auto()  # rpmbuild's own code, if rpmbuild ran at all; else mock's
    TIMEOUT_OR_RPMBUILD = auto()
    PACKAGE_MANAGER = auto()
    UNRESOLVABLE = auto()
    ROOT = auto()
    HOST = auto()


#: Every code to which mock gives a meaning. Any other code is that of a command inside the root.
EXIT_CODES: dict[int, tuple[Meaning, str]] = {
    0: (Meaning.DONE, "done"),
    1: (Meaning.RPMBUILD_OR_MOCK, "mock failed without saying how; see root.log"),
    2: (Meaning.HOST, "mock was run without its setuid wrapper; run deploy/bootstrap on this host"),
    3: (Meaning.HOST, "mock's configuration is not valid or not there; update mock-core-configs on this host"),
    4: (Meaning.ROOT, "mock built only some packages of a chain, and none was asked for"),
    5: (Meaning.HOST, "this host's mock does not understand its command line; update mock on this host"),
    6: (Meaning.HOST, "mock cannot build this architecture on this host"),
    7: (Meaning.ROOT, "mock was interrupted from outside"),
    10: (Meaning.FAILED, "rpmbuild failed"),
    11: (Meaning.TIMEOUT_OR_RPMBUILD, "rpmbuild ran into the time limit"),
    20: (Meaning.ROOT, "mock could not set up the root"),
    25: (Meaning.ROOT, "mock could not handle its LVM volume"),
    30: (Meaning.PACKAGE_MANAGER, "the package manager failed"),
    31: (Meaning.UNRESOLVABLE, "an external dependency is not known"),
    40: (Meaning.FAILED, "the source package cannot be used, or built no package"),
    50: (Meaning.ROOT, "a mock command failed"),
    60: (Meaning.ROOT, "the build root is in use by another mock"),
    65: (Meaning.ROOT, "mock's LVM volume is locked"),
    70: (Meaning.HOST, "mock cannot write its result folder"),
    80: (Meaning.HOST, "unshare(2) is not allowed here; mock needs CAP_SYS_ADMIN"),
    90: (Meaning.ROOT, "mock could not prepare its bootstrap root"),
    110: (Meaning.ROOT, "mock lost track of its own states, which is a bug of mock"),
    120: (Meaning.UNRESOLVABLE, "a weak dependency cannot be installed"),
    129: (Meaning.ROOT, "mock was killed by SIGHUP"),
    141: (Meaning.ROOT, "mock was killed by SIGPIPE"),
    143: (Meaning.ROOT, "mock was killed by SIGTERM from outside"),
}

_NETWORK = re.compile(
    rb"(?i)failed to download metadata|errors during downloading|curl error|could not resolve host|librepo error"
    rb"|all mirrors were (?:already )?tried|cannot prepare internal mirrorlist|cannot download "
    rb"|error downloading packages|failed to synchronize cache|timeout was reached"
    rb"|connection (?:refused|reset|timed out)"
)
_NOTHING_PROVIDES = (
    re.compile(
        rb"nothing provides (?:requested )?([^\n]{1,200}?(?: needed by [^ \n]{1,200})?)(?: from \S{1,100})?\s*$",
        re.MULTILINE,
    ),
    re.compile(rb"No matching package to install: '?([^'\n]{1,200})'?"),
    re.compile(rb"No match for argument: ([^\n]{1,200})"),
    re.compile(rb"No [Pp]ackage found for ([^\n]{1,200})"),
    re.compile(rb"Unable to find a match: ([^\n]{1,200})"),
)
#: Lines with names that the recipe chooses, which may look like any message.
_NAMES = re.compile(
    rb"^[^\n]*(?:No matching package|No match for argument|[Nn]othing provides|needed by)[^\n]*$", re.MULTILINE
)
_FAILED_DEPENDENCY = re.compile(rb"^\s+([^\n]{1,200}?) is needed by [^\n]+$", re.MULTILINE)
_FILTERED = re.compile(rb"^[^\n]*?(package [^\n]{1,200} is filtered out by \w+ filtering)", re.MULTILINE)
_BUILD_CONFLICT = re.compile(rb"^\s+([^\n]{1,200} conflicts with [^\n]{1,200})$", re.MULTILINE)
_CONFLICT = re.compile(rb"(?:[Pp]roblem[ 0-9]*: |^ +- )([^\n]*(?:conflict|cannot install)[^\n]{0,200})", re.MULTILINE)
_TIMEOUT = re.compile(rb"Timeout\([0-9]+\) expired for command")
#: dnf writes in bold if mock gives it a terminal.
_COLOUR = re.compile(rb"\x1b\[1?m|\x1b\(B|\x0f")
_DISK_FULL = b"No space left on device"
_SHOWN_REQUIREMENTS = 5


@dataclass(frozen=True, kw_only=True)
class Said:
    """The texts of a mock run: its own output, root.log, and rpmbuild's build.log. Each reader bounds their length."""

    output: bytes = b""
    root_log: bytes = b""
    build_log: bytes = b""

    @property
    def of_mock(self) -> bytes:
        """The output of mock and its package manager. Once rpmbuild has run, mock's output also has that of the recipe,
        and a recipe must not pass off its failure as trouble of the farm."""
        said = self.root_log if self.build_log else self.output + b"\n" + self.root_log
        return _COLOUR.sub(b"", said)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The end of a mock run, if the package is the cause. Without a reason, the log has it."""

    outcome: Outcome
    reason: str | None = None


def judge(code: int, said: Said) -> Verdict:
    """The outcome that an exit code stands for. Raises HostUnfit, RootTrouble, NetworkTrouble or DiskFull."""
    meaning, words = EXIT_CODES.get(code, (Meaning.RPMBUILD_OR_MOCK, f"mock ended with {code}, which it does not list"))
    match meaning:
        case Meaning.DONE:
            return Verdict(outcome=Outcome.SUCCEEDED)
        case Meaning.FAILED:
            return _failed(said, None if said.build_log else words)
        case Meaning.RPMBUILD_OR_MOCK:
            if said.build_log:
                return _failed(said, None)
            raise _root_trouble(words, said)
        case Meaning.TIMEOUT_OR_RPMBUILD:
            if said.build_log and not _TIMEOUT.search(said.output + said.root_log):
                return _unmet_at_build(said)
            return Verdict(outcome=Outcome.TIMED_OUT, reason=words)
        case Meaning.PACKAGE_MANAGER:
            return _package_manager(said)
        case Meaning.UNRESOLVABLE:
            return Verdict(outcome=Outcome.UNRESOLVABLE, reason=_unmet(said) or words)
        case Meaning.ROOT:
            raise _root_trouble(words, said)
        case Meaning.HOST:
            raise HostUnfit(f"{words}{_last_error(said)}")
        case _:
            assert_never(meaning)


def _failed(said: Said, reason: str | None) -> Verdict:
    """The verdict on a failure. A spec that excludes the arch is not a failure of the package; rpmbuild says so."""
    if excluded := rpmbuild.excluded(said.build_log):
        return Verdict(outcome=Outcome.EXCLUDED, reason=shown(excluded))
    return Verdict(outcome=Outcome.FAILED, reason=reason)


def _unmet_at_build(said: Said) -> Verdict:
    """The verdict on rpmbuild's code 11: generated BuildRequires are still not met when the build begins."""
    unmet = tuple(dict.fromkeys(shown(found) for found in _FAILED_DEPENDENCY.findall(said.build_log)))
    if not unmet:
        conflict = _BUILD_CONFLICT.search(said.build_log)
        if conflict and b"error: Failed build dependencies:" in said.build_log:
            words = f"the root has what BuildConflicts rules out: {shown(conflict[1])}"
            return Verdict(outcome=Outcome.UNRESOLVABLE, reason=words)
        return Verdict(outcome=Outcome.FAILED)
    return Verdict(outcome=Outcome.UNRESOLVABLE, reason=_nothing_provides(unmet))


def _package_manager(said: Said) -> Verdict:
    # A missing mirror first: if a repository is skipped, its packages look unresolvable. To try again is safe.
    if _NETWORK.search(_NAMES.sub(b"", said.of_mock)):
        raise NetworkTrouble(f"mock's package manager could not download{_last_error(said)}")
    reason = _unmet(said)
    if reason is None:
        raise _root_trouble("mock's package manager failed, and not for a missing package", said)
    return Verdict(outcome=Outcome.UNRESOLVABLE, reason=reason)


def _unmet(said: Said) -> str | None:
    unmet = [shown(found.strip()) for pattern in _NOTHING_PROVIDES for found in pattern.findall(said.of_mock)]
    if unmet:
        return _nothing_provides(tuple(dict.fromkeys(unmet)))
    if filtered := _FILTERED.search(said.of_mock):
        return shown(filtered[1])
    conflict = _CONFLICT.search(said.of_mock)
    return f"cannot be installed together: {shown(conflict[1].strip())}" if conflict else None


def _nothing_provides(unmet: tuple[str, ...]) -> str:
    more = f" and {len(unmet) - _SHOWN_REQUIREMENTS} more" if len(unmet) > _SHOWN_REQUIREMENTS else ""
    return f"nothing provides {', '.join(unmet[:_SHOWN_REQUIREMENTS])}{more}"


def _root_trouble(words: str, said: Said) -> RootTrouble | DiskFull | NetworkTrouble:
    if _DISK_FULL in said.of_mock:
        return DiskFull(f"the disk that mock builds on is full: {words}")
    if _NETWORK.search(said.of_mock):
        return NetworkTrouble(f"{words}{_last_error(said)}")
    return RootTrouble(f"{words}{_last_error(said)}")


def _last_error(said: Said) -> str:
    """The last line that mock itself marks as an error, to append to a message."""
    lines = [line for line in said.of_mock.splitlines() if line.startswith((b"ERROR:", b"Error:", b"mock:"))]
    return f": {shown(lines[-1], limit=200)}" if lines else ""
