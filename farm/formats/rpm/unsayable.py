"""Finds the byte of a header that the metadata of a repository cannot say: which tag has it, where, and what it is.

Only tags that createrepo_c copies into metadata count: scripts may have any byte. Used once a package was refused.
"""

import re
from collections.abc import Iterator

from farm.formats.rpm.header import BadRpm
from farm.formats.rpm.rpmfile import string_tags
from farm.model.text import printable

#: The tags by number, as a spec calls them.
_TAGS = {
    1000: "Name",
    1001: "Version",
    1002: "Release",
    1004: "Summary",
    1005: "%description",
    1007: "BuildHost",
    1011: "Vendor",
    1014: "License",
    1015: "Packager",
    1016: "Group",
    1020: "URL",
    1022: "BuildArch",
    1044: "SourceRPM",
    1047: "Provides",
    1113: "Provides",
    1049: "Requires",
    1050: "Requires",
    1054: "Conflicts",
    1055: "Conflicts",
    1090: "Obsoletes",
    1115: "Obsoletes",
    5046: "Recommends",
    5047: "Recommends",
    5049: "Suggests",
    5050: "Suggests",
    5052: "Supplements",
    5053: "Supplements",
    5055: "Enhances",
    5056: "Enhances",
    1027: "the name of a file",
    1117: "the name of a file",
    1118: "the name of a folder",
    1081: "%changelog (name)",
    1082: "%changelog",
}
_ALLOWED = b"\t\n\r"
_NOT_CHARACTERS = (b"\xef\xbf\xbe", b"\xef\xbf\xbf")
_UTF8_FORM = re.compile(
    rb"(?:[\x00-\x7f]|[\xc0-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf7][\x80-\xbf]{3})*+"
)
_AROUND = 20  # bytes shown on either side


def find_unsayable(path: str, *, takes_latin_1: bool = False) -> str | None:
    """The first such byte in words: `%changelog has the control character 0x01 at byte 12: ...`; None if there is none,
    or the header cannot be read. createrepo_c makes UTF-8 of bytes that look like Latin-1 to it: with `takes_latin_1`,
    they do not count."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see entry.py
            # Bytes that are not UTF-8 only come second: createrepo_c takes most of them for Latin-1.
            found = list(string_tags(file, _TAGS))
    except (OSError, BadRpm):
        return None
    for search in (_forbidden, _impossible if takes_latin_1 else _broken):
        for tag, text in found:
            for at, what in search(text):
                around = printable(text[max(0, at - _AROUND) : at + _AROUND].decode("ascii", "backslashreplace"))
                return f"{_TAGS[tag]} has {what} at byte {at}: {around}"
    return None


def _forbidden(text: bytes) -> Iterator[tuple[int, str]]:
    for at, byte in enumerate(text):
        if byte < 0x20 and byte not in _ALLOWED:
            yield at, f"the control character 0x{byte:02x}"
    for bad in _NOT_CHARACTERS:
        if (at := text.find(bad)) >= 0:
            yield at, f"U+{ord(bad.decode()):04X}, which is no character,"


def _impossible(text: bytes) -> Iterator[tuple[int, str]]:
    """Bytes that have the form of UTF-8, and are no character's: createrepo_c does not take them for Latin-1."""
    if _UTF8_FORM.fullmatch(text):
        yield from _broken(text)


def _broken(text: bytes) -> Iterator[tuple[int, str]]:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        bad = text[error.start : error.start + 3]
        is_surrogate = len(bad) == 3 and bad[0] == 0xED and bad[1] >= 0xA0
        shown = " ".join(f"0x{byte:02x}" for byte in (bad if is_surrogate else bad[:1]))
        yield error.start, f"{shown}, {'half of a UTF-16 pair' if is_surrogate else 'no UTF-8'},"
