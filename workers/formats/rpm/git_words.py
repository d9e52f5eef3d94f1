"""The words for a spec that asks git for its version: where rpm reads it, there is neither git nor a repository."""

import re
from dataclasses import replace
from pathlib import Path

from farm.model.outcome import Outcome
from workers.formats.base import Made

_SAID = re.compile(rb"\bgit: (?:command )?not found|\bgit: No such file|fatal: not a git repository")
_CALLS = re.compile(rb"%\([^\n]{0,2000}\bgit\b")
_LOG_BYTES = 256 * 1024
_SPEC_BYTES = 8 * 2**20
_WORDS = (
    "the spec calls git, and where it is read there is neither git nor a repository; write the version into the spec, "
    "give it with --define, or take the release from %autorelease"
)


def explained(made: Made, log: Path, recipe: Path | None) -> Made:
    """The failure with these words, if the spec calls git, or a script that it runs does."""
    if made.outcome is not Outcome.FAILED:
        return made
    text = _end(recipe, _SPEC_BYTES) if recipe else b""
    return replace(made, reason=explained_reason(made.reason, said=_end(log), recipe=text))


def explained_reason(reason: str | None, *, said: bytes, recipe: bytes) -> str | None:
    """The reason with these words, if the output `said` or the text of the spec shows that git was called."""
    if not _SAID.search(said) and not _CALLS.search(recipe):
        return reason
    return f"{_WORDS} ({reason})" if reason else _WORDS


def _end(path: Path, limit_bytes: int = _LOG_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            return file.read(limit_bytes)
    except OSError:
        return b""
