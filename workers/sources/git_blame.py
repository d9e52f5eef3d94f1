"""Finds the cause of a failed git command: the asker, this host or the network, by git's messages in the C locale."""

import re
import signal
from pathlib import Path

from farm.errors import DiskFull, HostUnfit, NetworkTrouble, SourceUnavailable, Trouble
from farm.model.outcome import Outcome
from workers.core import text
from workers.core.context import Ended, over_disk
from workers.core.run import CommandFailed, Ending
from workers.sources.growth import over_fetched

_REMOTE = re.compile(r"remote:|(?:fatal|error|ERROR): remote (?:error|unpack)")
_TOO_BIG = re.compile(r"signal 25|[Ff]ile too large|exceeds maximum")
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_HOST_KEY = re.compile(r"Host key verification failed")
_CREDENTIALS = re.compile(
    r"could not read Username|could not read Password|Authentication failed|terminal prompts disabled|"
    r"returned error: 40[13]|Permission denied|HTTP Basic: Access denied|unable to get password|unable to read askpass"
)
_MISSING = re.compile(
    r"not appear to be a git repository|[Rr]epository .*not found|does not exist|returned error: 4(?:04|10)|"
    r"access denied or repository not exported|not valid: is this a git repository|No such file or directory"
)
UNSERVED_COMMIT = re.compile(
    r"not allow request for unadvertised object|dumb http transport does not support shallow|"
    r"does not support --?depth|Server does not support shallow"
)
UNKNOWN_COMMIT = re.compile(r"not our ref|couldn't find remote ref")
_PARTIAL = re.compile(r"promisor remote|lazy fetching disabled|promised object")
_CERTIFICATE = re.compile(r"(?i)certificate (?:verification failed|problem)|certificate verify failed")
_PROXY = re.compile(r"Can't complete SOCKS5 connection to \S{1,300}?\. \(\d{1,3}\)")
_BAD_CONFIG = re.compile(r"bad config (?:line|variable) .* in blob")
_NOT_ALLOWED = re.compile(r"transport '.*' not allowed|strange (?:host|path)name|is not a git URL")


def judge(error: CommandFailed, *, shown: str, root: Path, limit_bytes: int) -> Ended | Trouble:
    """The error to raise. `shown` is the repository for people, `root` the folder that git writes to, `limit_bytes`
    the step's limit."""
    said = error.output.decode(errors="backslashreplace")
    if on_disk := _disk_ended(error.completed.ending, shown=shown, root=root, limit_bytes=limit_bytes):
        return on_disk
    # A server's own disk may be full, and it may send any text: its messages must not count as this host's trouble.
    own = "\n".join(line for line in said.split("\n") if not _REMOTE.match(line))
    # The first message is the cause; "the remote end hung up" and the like follow from it.
    told = [line for line in said.split("\n") if line.startswith(("fatal:", "error:", "ERROR:"))]
    # Not the error's own text, which begins with the command that started git.
    ended = ": ".join([f"git {error.completed.shown}", *said.strip().split("\n")[-1:]])
    # git connects through a proxy of the farm, which a person need not know of.
    cause = text.shown(_PROXY.sub("cannot connect", told[0] if told else ended))
    if error.completed.signal == signal.SIGXFSZ or _TOO_BIG.search(said):
        return over_disk(f"{shown} is larger than the step's disk limit of {limit_bytes} bytes")
    if _DISK_FULL.search(own):
        return DiskFull(f"the disk of {root} is full: {cause}")
    if _PARTIAL.search(said):
        lacks = f"{shown} is a partial clone (git clone --filter): it lacks files of the commit"
        remedy = "run `git fetch --refetch --no-filter` in it, or give the URL from which it was cloned"
        return Ended(Outcome.FAILED, f"{lacks}, which the farm does not fetch from elsewhere; {remedy}: {cause}")
    if _HOST_KEY.search(own):
        return HostUnfit(f"this host does not know the ssh host key of {shown}; add it to known_hosts")
    if _BAD_CONFIG.search(own):
        return Ended(Outcome.FAILED, f"git cannot read .gitmodules of {shown}: {cause}")
    if _NOT_ALLOWED.search(said):
        return Ended(Outcome.FAILED, f"{shown} is not fetched: {cause}")
    if _CREDENTIALS.search(said):
        return Ended(Outcome.FAILED, f"{shown} needs credentials, or those given are refused: {cause}")
    if _MISSING.search(said):
        return Ended(Outcome.FAILED, f"{shown} does not exist, or is no git repository: {cause}")
    if _CERTIFICATE.search(said):
        return SourceUnavailable(f"git could not read {shown}: {cause}")
    return NetworkTrouble(f"git could not read {shown}: {cause}")


def _disk_ended(ending: Ending, *, shown: str, root: Path, limit_bytes: int) -> Ended | Trouble | None:
    """The error of a command that the watch on the disk ended."""
    match ending:
        case Ending.OVER_DISK:
            return over_fetched(shown, limit_bytes)
        case Ending.OVER_FILES:
            words = f"{shown} has more files than the step may make; --limit files=… or the target's limits raise that"
            return Ended(Outcome.OVER_LIMIT, words)
        case Ending.MOST_OF_DISK | Ending.MOST_OF_FILES:
            words = f"{shown} takes most of the disk that this host had left; build it where the disk is larger"
            return Ended(Outcome.OVER_LIMIT, words)
        case Ending.DISK_FULL:
            return DiskFull(f"the disk of {root} is nearly full; free some space")
        case _:
            return None
