"""Reads in dnf's output what was wrong with a repository: a signature, or the network.

Owns the messages of dnf 4.14 and dnf 5 about downloads. Does not own the judgement (`workers.formats.rpm.blame`).
"""

import re

_UNSIGNED = re.compile(r"^Package (?P<what>[^\n]{1,300}) is not signed", re.MULTILINE)
_NO_KEY = re.compile(
    r"^Public key for (?P<what>[^\n]{1,300}) is not installed[^\n]{0,300}"
    r"(?:\n GPG Keys are configured as: (?P<keys>[^\n]{1,300}))?",
    re.MULTILINE,
)
_BAD_SIGNATURE = re.compile(r"^(?:Error: GPG check FAILED|Problem opening package [^\n]{1,300})", re.MULTILINE)


def signature(text: str) -> str | None:
    """The package whose signature dnf did not accept, and the keys of its repository; None if dnf names none."""
    if found := _UNSIGNED.search(text):
        return f"package {found['what']} is not signed; the target has gpgcheck for its repository"
    if found := _NO_KEY.search(text):
        return f"package {found['what']} is not signed by a key of its repository: {found['keys'] or 'it has none'}"
    found = _BAD_SIGNATURE.search(text)
    return found[0] if found else None


_DOWNLOAD = (
    r"(?P<what>(?:Curl error \(\d+\)|Status code: [45]\d\d for|Librepo error|Downloading successful, but checksum"
    r"|Cannot download|Cannot prepare internal mirrorlist|Failed to download"
    r"|Errors during downloading(?! metadata for repository ))[^\n]{0,300})"
)
_PASSED_OVER = r"^\[MIRROR\] (?P<file>[^ \n]{1,300}): " + _DOWNLOAD
_NO_CAUSE = (
    r"^(?:>>> | +- |Error: |\[FAILED\] [^ \n]{1,300}: )?(?P<what>(?:No more mirrors to try"
    r"|All mirrors were (?:already )?tried|Error downloading packages)[^\n]{0,300})"
)
#: The lines that name the cause, the best first. dnf goes on after a line of the third kind, which is the cause only
#: if there is no other.
_NO_DOWNLOAD = [
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^\[FAILED\] [^ \n]{1,300}: " + _DOWNLOAD,
        r"^(?:>>> | +- |Error: )?" + _DOWNLOAD,
        _PASSED_OVER,
        _NO_CAUSE,
    )
]
_GIVEN_UP = re.compile(r"^\[FAILED\] (?P<file>[^ \n]{1,300}): No more mirrors", re.MULTILINE)


def network(text: str) -> str | None:
    """The reason why dnf could not download something; None if it downloaded all."""
    if given_up := _GIVEN_UP.search(text):
        tried = [one for one in re.finditer(_PASSED_OVER, text, re.MULTILINE) if one["file"] == given_up["file"]]
        if tried:
            return tried[-1]["what"]
    return next((found["what"] for pattern in _NO_DOWNLOAD if (found := pattern.search(text))), None)
