"""One package's entry in the metadata of a repository: its header as XML, and the headers that are refused.

Owns what a header must be like for a repository to take it; not where the package lies, nor the files of metadata.

It imports little, and must stay so: a process of its own reads the packages of each build, before they leave the build
host (workers/formats/rpm/package_reader.py), and most of the time of that process is the start.
"""

from pyexpat import ExpatError, ParserCreate

import createrepo_c._createrepo_c as createrepo

from farm.model.text import clip, printable

KINDS = ("primary", "filelists", "other")
CHANGELOGS = 10  # entries per package; createrepo_c's own default
_XML_MAX_BYTES = 32 * 2**20  # per package and kind; every user of the repository downloads it
_REASON_CHARS = 200


class Refused(ValueError):
    """No repository takes this package; the message says why, in printable characters but for the name given."""


def entry_of(path: str, *, shown: str) -> tuple[bytes, ...]:
    """The entries, in the order of `KINDS`, of a package of any digest, before publication. Reads the file from end to
    end, without letting other threads run. Raises Refused."""
    name = path.rpartition("/")[2]
    try:
        package = createrepo.package_from_rpm(path, createrepo.SHA256, name, None, CHANGELOGS, createrepo.HDRR_NONE)
    except (OSError, ValueError, SystemError, createrepo.CreaterepoCError) as error:
        raise refused(path, shown, error) from error
    return texts_of(package, path, shown)


def texts_of(package: createrepo.Package, path: str, shown: str) -> tuple[bytes, ...]:
    """The same of a package that createrepo_c has read. Raises Refused."""
    try:
        # Else the metadata would hold the moment of publication, and a host could not make it again.
        package.time_file = package.time_build
        texts = tuple(text.encode() for text in createrepo.xml_dump(package))
        bad = next((name for _, *names in package.files for name in names if _has_control(name)), None)
    except (OSError, ValueError, SystemError, createrepo.CreaterepoCError) as error:
        # SystemError: createrepo_c 1.2 hands out text that is no UTF-8 with an exception already set.
        raise refused(path, shown, error) from error
    for kind, text in zip(KINDS, texts, strict=True):
        _check_xml(kind, text, shown)
    # XML takes line ends in names, but what dnf says of such a file is then no line of its own any more.
    if bad is not None:
        raise Refused(f"{shown} has a file with a control character in its name: {ascii(bad)[:_REASON_CHARS]}")
    return texts


def refused(path: str, shown: str, error: Exception) -> Refused:
    """In words of this package, without the path."""
    reason = str(error).replace(path, "the file")
    return Refused(f"{shown} is not an RPM that can be published: {clip(printable(reason), _REASON_CHARS)}")


def _has_control(name: str) -> bool:
    return not name.isprintable() and any(char < " " or char == "\x7f" for char in name)


def _check_xml(kind: str, text: bytes, shown: str) -> None:
    """One entry that is not well formed would make the whole repository unreadable."""
    if len(text) > _XML_MAX_BYTES:
        raise Refused(f"{shown} has {len(text)} bytes of {kind} metadata; at most {_XML_MAX_BYTES} are published")
    parser = ParserCreate("UTF-8")
    try:
        parser.Parse(b'<x xmlns:rpm="rpm">' + text + b"</x>", True)
    except ExpatError as error:
        raise Refused(f"{shown} has a header that cannot be said in XML ({kind}: {error})") from error
