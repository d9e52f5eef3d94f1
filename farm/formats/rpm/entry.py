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
_REASON_CHARS = 200
_DEPENDENCIES = (
    *("provides", "requires", "conflicts", "obsoletes"),
    *("recommends", "suggests", "supplements", "enhances"),
)


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
    if not _are_sayable(package) and (byte := _unsayable(path, takes_latin_1=True)) is not None:
        raise _refused_for(shown, byte)
    for kind, text in zip(KINDS, texts, strict=True):
        _check_xml(kind, text, path, shown)
    # XML takes line ends in names, but what dnf says of such a file is then no line of its own any more.
    if bad is not None:
        raise Refused(f"{shown} has a file with a control character in its name: {ascii(bad)[:_REASON_CHARS]}")
    return texts


def refused(path: str, shown: str, error: Exception) -> Refused:
    """In words of this package, without the path."""
    if (byte := _unsayable(path)) is not None:
        return _refused_for(shown, byte)
    reason = str(error).replace(path, "the file")
    return Refused(f"{shown} is not an RPM that can be published: {clip(printable(reason), _REASON_CHARS)}")


def _refused_for(shown: str, byte: str) -> Refused:
    return Refused(f"{shown} cannot be in a repository's metadata: {byte}; remove it from the spec")


def _are_sayable(package: createrepo.Package) -> bool:
    """Whether the texts that become attributes are as they were: createrepo_c 1.2 writes others, without an error, for
    characters that XML does not have."""
    try:
        names = [name for kind in _DEPENDENCIES for name, *_ in getattr(package, kind)]
        return all(map(_is_plain, (*names, *(author for author, *_ in package.changelogs))))
    except (ValueError, SystemError):  # not UTF-8
        return False


def _is_plain(text: str) -> bool:
    return text.isprintable() and "\ufffd" not in text


def _has_control(name: str) -> bool:
    return not name.isprintable() and any(char < " " or char == "\x7f" for char in name)


def _check_xml(kind: str, text: bytes, path: str, shown: str) -> None:
    """One entry that is not well formed would make the whole repository unreadable."""
    parser = ParserCreate("UTF-8")
    try:
        parser.Parse(b'<x xmlns:rpm="rpm">' + text + b"</x>", True)
    except ExpatError as error:
        raise refused(path, shown, ValueError(f"{kind}: {error}")) from error


def _unsayable(path: str, *, takes_latin_1: bool = False) -> str | None:
    # Imported for a refusal alone: see above.
    from farm.formats.rpm.unsayable import find_unsayable

    return find_unsayable(path, takes_latin_1=takes_latin_1)
