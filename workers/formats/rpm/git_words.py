"""The words for a spec that asks git for its version: where rpm reads it, there is neither git nor a repository."""

import re
from dataclasses import replace
from pathlib import Path

from farm.model.outcome import Outcome
from workers.formats.base import Made

_SAID = re.compile(rb"\bgit: (?:command )?not found|\bgit: No such file|fatal: not a git repository")
_CALLS = re.compile(rb"%\([^\n]{0,2000}\bgit\b")
_LOG_BYTES = 256 * 1024
_WORDS = (
    "the spec calls git, and where it is read there is neither git nor a repository; write the version into the spec, "
    "give it with --define, or take the release from %autorelease"
)


def explained(made: Made, log: Path) -> Made:
    """The failure with these words, if the log shows that the spec called git, or a script that it runs did. The text
    of the spec does not count, since rpm has read it for `fetch` without an error."""
    if made.outcome is not Outcome.FAILED:
        return made
    return replace(made, reason=explained_reason(made.reason, said=_end(log)))


def explained_reason(reason: str | None, *, said: bytes, recipe: bytes = b"") -> str | None:
    """The reason with these words, if the output `said` or the text of the spec shows that git was called."""
    if not _SAID.search(said) and not _CALLS.search(recipe):
        return reason
    return f"{_WORDS} ({reason})" if reason else _WORDS


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            return file.read(_LOG_BYTES)
    except OSError:
        return b""
