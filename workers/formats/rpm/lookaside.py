"""Dist-git's lists of tarballs that are kept outside the tree, and their addresses in a lookaside cache.

Reads `sources` (Fedora, CentOS Stream) and `.<name>.metadata` (AlmaLinux, CentOS 8). Downloads nothing.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from farm.formats.rpm.settings import Lookaside, LookasideForm
from farm.model.outcome import Outcome
from workers.core.context import Ended
from workers.sources.checksum import Checksum

#: The hash by its number of hexadecimal digits: old `sources` and `.metadata` do not name it.
_HASH_BY_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_BSD = re.compile(r"(?P<algorithm>MD5|SHA1|SHA256|SHA512) \((?P<name>[^/]+)\) = (?P<hash>[0-9a-fA-F]+)")
_PLAIN = re.compile(r"(?P<hash>[0-9a-fA-F]+)[ \t]+\*?(?P<path>\S.*)")
_LINES_MAX = 20_000
_LINE_CHARS = 4096


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file that a list names."""

    name: str
    checksum: Checksum


def is_list(content: bytes) -> bool:
    """Whether a line has the form of a list's. Upstream's own file may have the name of a list."""
    lines = content.decode("utf-8", "backslashreplace").split("\n", _LINES_MAX)[:_LINES_MAX]
    return any(_parse_line(line.strip()) for line in lines if len(line) <= _LINE_CHARS)


def parse(content: bytes, *, where: str) -> tuple[Listed, ...]:
    """Read a list in any of the three forms. `where` is its name, for messages.

    Raises Ended for a line of another form, for too many lines, and for a file with two different checksums.
    """
    listed: dict[str, Listed] = {}
    if content.count(b"\n") > _LINES_MAX:
        raise Ended(Outcome.OVER_LIMIT, f"{where} has more than {_LINES_MAX} lines; no package has so many sources")
    for number, raw in enumerate(content.decode("utf-8", "backslashreplace").split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        entry = _parse_line(line)
        if entry is None:
            raise Ended(
                Outcome.FAILED,
                f"{where}, line {number}: {line!r:.120} is neither 'SHA512 (file) = hash' nor 'hash  file'; correct it",
            )
        if listed.setdefault(entry.name, entry) != entry:
            raise Ended(
                Outcome.FAILED, f"{where}, line {number}: {entry.name!r:.120} is listed twice with different checksums"
            )
    return tuple(listed.values())


def _parse_line(line: str) -> Listed | None:
    if bsd := _BSD.fullmatch(line):
        algorithm, name, digest = bsd["algorithm"].lower(), bsd["name"], bsd["hash"].lower()
    elif plain := _PLAIN.fullmatch(line):
        # `.metadata` has paths in the tree, SOURCES/x.tar.gz; only the last part can be a source's name.
        name, digest = plain["path"].rpartition("/")[2], plain["hash"].lower()
        algorithm = _HASH_BY_DIGITS.get(len(digest), "")
    else:
        return None
    if _HASH_BY_DIGITS.get(len(digest)) != algorithm or name in ("", ".", "..") or not name.isprintable():
        return None
    return Listed(name=name, checksum=Checksum(algorithm=algorithm, hexdigest=digest))


def url_of(lookaside: Lookaside, package: str, listed: Listed) -> str:
    """The address of the file in the lookaside cache."""
    base, digest = lookaside.base_url.rstrip("/"), listed.checksum.hexdigest
    match lookaside.form:
        case LookasideForm.SOURCES:
            name = quote(listed.name, safe="")
            return f"{base}/{quote(package, safe='')}/{name}/{listed.checksum.algorithm}/{digest}/{name}"
        case LookasideForm.METADATA:
            return f"{base}/{digest}"
