"""Reads an RPM's lead, signature and header with strict bounds, to tell what it is without unpacking it.

Owns the judgement "this is a whole source (or binary) package, and its name is X". Knows nothing of stores and
networks, and never looks inside the payload: that is for the build root. Format: RPM's docs/manual/format_v4.md.
"""

import hashlib
import os
import re
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from farm.errors import LeaseLost
from farm.formats.rpm.header import VALUES_MAX, BadRpm, Header, read_header, truncated
from farm.model.nevra import Nevra

__all__ = ["BadRpm"]  # and all names of this module

_LEAD = struct.Struct(">4sBBHH66sHH16s")
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_LEAD_SOURCE = 1
#: The lead's size: `read_lead` needs no more of a file.
LEAD_BYTES = _LEAD.size
_MAJOR_OLDEST = 3

# The limits of rpm 4.14 and later (lib/header.c).
_SIGNATURE_MAX_BYTES = 64 * 2**20
_HEADER_MAX_BYTES = 256 * 2**20 - 1
_FILE_NAME_MAX_BYTES = 255
_CHUNK_BYTES = 2**20

_SIG_LONGSIZE, _SIG_SHA1, _SIG_SHA256, _SIG_SIZE = 270, 269, 273, 1000
_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_OS, _ARCH, _SOURCERPM, _NOSOURCE, _NOPATCH = 1021, 1022, 1044, 1051, 1052
_REQUIRE_FLAGS, _REQUIRE_NAME, _REQUIRE_VERSION = 1048, 1049, 1050
_EXCLUDE_ARCH, _EXCLUSIVE_ARCH = 1059, 1061
_LESS, _GREATER, _EQUAL = 2, 4, 8
_PAYLOAD_DIGEST, _PAYLOAD_DIGEST_ALGORITHM = 5092, 5093
_OPENPGP_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 12: "sha3_256"}

#: A source package without all of its sources, in words.
NOSRC = "a nosrc.rpm: some of its sources are not inside, so it cannot be built"

_PLAIN_ARCH = re.compile(r"[a-z0-9_]{1,32}")
# The characters that rpm allows (build/parsePreamble.c), without three that it allows for macros' sake.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~^-]*")
_PLAIN_PART = re.compile(r"[A-Za-z0-9._+~^]+")
_OF_MACROS = re.compile(r"[%{}]")


class Lead(Enum):
    """What the first bytes of a file say of it."""

    SOURCE = "source"
    BINARY = "binary"
    OLD = "old"
    TRUNCATED = "truncated"
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True)
class SourcePackage:
    """`verified` names the digests that the file carries and that were compared; older packages may have none."""

    nevra: Nevra
    verified: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BinaryPackage:
    """`source` is the file name of the source package that it says it was built from."""

    nevra: Nevra
    source: str


@dataclass(frozen=True, kw_only=True)
class SourceTags:
    """What a source package says of the build. `requires` are its BuildRequires as a spec writes them, those on rpm
    itself left out; `arch` is "noarch" when the spec's main package is, and then all its packages are."""

    nevra: Nevra
    requires: tuple[str, ...]
    exclusive_arches: tuple[str, ...]
    exclude_arches: tuple[str, ...]
    arch: str


def read_lead(start: bytes) -> Lead:
    """What a file is that begins with these bytes. Of a file under LEAD_BYTES, give all of it.

    A fragment is a truncated package if it has half of the magic number at least.
    """
    if len(start) < len(_LEAD_MAGIC) // 2 or start[: len(_LEAD_MAGIC)] != _LEAD_MAGIC[: len(start)]:
        return Lead.FOREIGN
    if len(start) < LEAD_BYTES:
        return Lead.TRUNCATED
    _, major, _, kind, *_ = _LEAD.unpack(start[:LEAD_BYTES])
    if major < _MAJOR_OLDEST:
        return Lead.OLD
    return Lead.SOURCE if kind == _LEAD_SOURCE else Lead.BINARY


def check_source(path: Path, *, stop: threading.Event | None = None) -> SourcePackage:
    """Tell whether the file is a whole source package, and which.

    Reads the file once from end to end when it carries a payload digest, only its head otherwise. Raises BadRpm
    for every kind of damage, OSError if the file cannot be read, and LeaseLost once `stop` is set.
    """
    with path.open("rb") as file:
        return _check_source(file, path.stat().st_size, stop)


def read_binary(path: Path) -> BinaryPackage:
    """What a binary package says it is. Reads its head only: its digests are of no use against whoever made it.

    Raises BadRpm for every kind of damage, and OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        return _binary(_heads(file, path.stat().st_size)[1])


def head_bytes(path: Path) -> int:
    """The size of a package's lead, signature and header together. Raises BadRpm and OSError as `read_binary` does."""
    with path.open("rb") as file:
        return _heads(file, path.stat().st_size)[1].end


def check_binary(path: Path, *, stop: threading.Event | None = None) -> BinaryPackage:
    """What a binary package says it is, once rpm would install it: its digests are right, and it is for this system.

    Raises BadRpm where rpm would refuse it or it is damaged, OSError if the file cannot be read, and LeaseLost once
    `stop` is set.
    """
    with path.open("rb") as file:
        signature, header = _heads(file, path.stat().st_size)
        package = _binary(header)
        system = header.text(_OS)
        if system != "linux":
            raise BadRpm(f"is for the operating system {system!r:.80}, so rpm does not install it")
        for _ in (*_verify_header(signature, header), *_verify_payload(file, header, stop)):
            pass
    return package


def _heads(file: BinaryIO, size_bytes: int) -> tuple[Header, Header]:
    """The signature and the header."""
    _read_lead(file, size_bytes)
    signature = _signature(file, size_bytes)
    return signature, read_header(file, size_bytes, "header", _HEADER_MAX_BYTES, at=_after(signature))


def _signature(file: BinaryIO, size_bytes: int) -> Header:
    return read_header(file, size_bytes, "signature", _SIGNATURE_MAX_BYTES, at=LEAD_BYTES)


def _after(signature: Header) -> int:
    """The header's place, which is aligned."""
    return signature.end + (signature.start - signature.end) % 8


def _binary(header: Header) -> BinaryPackage:
    source, arch = header.text(_SOURCERPM), header.text(_ARCH)
    if source is None:
        raise BadRpm("is not a binary package: it does not say what source package it was built from")
    if arch is None or not _PLAIN_ARCH.fullmatch(arch):
        raise BadRpm(f"has a header whose arch is {arch!r:.80}, which RPM does not allow")
    return BinaryPackage(nevra=_nevra(header, arch), source=source)


def string_tags(file: BinaryIO, tags: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Every string of these tags of an open package, as it is. Raises BadRpm for every kind of damage."""
    _, header = _heads(file, os.fstat(file.fileno()).st_size)
    for tag in tags:
        for text in header.raw_texts(tag):
            yield tag, text


def read_source_tags(path: Path) -> SourceTags:
    """What a source package says of how it is to be built. Reads its head only, and compares no digest.

    Raises BadRpm for every kind of damage and for a package that is none, and OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        is_source_lead = _read_lead(file, size_bytes)
        signature = _signature(file, size_bytes)
        header = read_header(file, size_bytes, "header", _HEADER_MAX_BYTES, at=_after(signature))
        if not is_source_lead or _SOURCERPM in header.entries:
            raise BadRpm("is a binary RPM, not a src.rpm")
        return SourceTags(
            nevra=_nevra(header, "src"),
            requires=_requirements(header),
            exclusive_arches=header.texts(_EXCLUSIVE_ARCH),
            exclude_arches=header.texts(_EXCLUDE_ARCH),
            arch=header.text(_ARCH) or "",
        )


def _requirements(header: Header) -> tuple[str, ...]:
    names, versions, flags = header.texts(_REQUIRE_NAME), header.texts(_REQUIRE_VERSION), header.numbers(_REQUIRE_FLAGS)
    if not len(names) == len(versions) == len(flags):
        raise BadRpm(f"has a damaged header: {len(names)} requirements with {len(versions)} versions")
    if len(names) > VALUES_MAX:
        raise BadRpm(f"has {len(names)} BuildRequires; the farm takes at most {VALUES_MAX}")
    found: list[str] = []
    for name, version, flag in zip(names, versions, flags, strict=True):
        sense = "".join(sign for bit, sign in ((_LESS, "<"), (_GREATER, ">"), (_EQUAL, "=")) if flag & bit)
        if not name.startswith("rpmlib("):
            found.append(f"{name} {sense} {version}" if sense and version else name)
    return tuple(dict.fromkeys(found))


def _check_source(file: BinaryIO, size_bytes: int, stop: threading.Event | None = None) -> SourcePackage:
    is_source_lead = _read_lead(file, size_bytes)
    signature = _signature(file, size_bytes)
    start = _after(signature)
    header_and_payload = signature.number(_SIG_LONGSIZE)
    if header_and_payload is None:
        header_and_payload = signature.number(_SIG_SIZE)
    if header_and_payload is not None and size_bytes < start + header_and_payload:
        raise truncated(size_bytes, start + header_and_payload)
    header = read_header(file, size_bytes, "header", _HEADER_MAX_BYTES, at=start)
    verified = [*_verify_header(signature, header)]
    if not is_source_lead or _SOURCERPM in header.entries:
        raise BadRpm("is a binary RPM, not a src.rpm; give the source package it was built from")
    nevra = _nevra(header, "src")
    if _NOSOURCE in header.entries or _NOPATCH in header.entries:
        raise BadRpm(f"is {NOSRC}")
    if header_and_payload is not None and size_bytes != start + header_and_payload:
        raise BadRpm(f"has {size_bytes} bytes, but its header says {start + header_and_payload}")
    verified += _verify_payload(file, header, stop)
    return SourcePackage(nevra=nevra, verified=tuple(verified))


def _read_lead(file: BinaryIO, size_bytes: int) -> bool:
    """Whether the lead says "source"."""
    lead = file.read(LEAD_BYTES)
    match found := read_lead(lead):
        case Lead.SOURCE | Lead.BINARY:
            return found is Lead.SOURCE
        case Lead.OLD:
            raise BadRpm(f"is an RPM package of version {lead[4]}, which nothing reads any more")
        case Lead.TRUNCATED:
            raise truncated(size_bytes, LEAD_BYTES)
        case Lead.FOREIGN:
            raise BadRpm("is not an RPM package")


def _verify_header(signature: Header, header: Header) -> Iterator[str]:
    for tag, algorithm in ((_SIG_SHA256, "sha256"), (_SIG_SHA1, "sha1")):
        wanted = signature.text(tag)
        if wanted is None:
            continue
        found = header.digest(algorithm)
        if found != wanted.lower():
            raise BadRpm(f"is damaged: its header's {algorithm} is {found}, not {wanted!r}")
        yield f"header {algorithm}"


def _verify_payload(file: BinaryIO, header: Header, stop: threading.Event | None) -> Iterator[str]:
    wanted = header.text(_PAYLOAD_DIGEST)
    number = header.number(_PAYLOAD_DIGEST_ALGORITHM)
    if wanted is None:
        return
    algorithm = _OPENPGP_HASHES.get(8 if number is None else number)
    if algorithm is None:
        raise BadRpm(f"has a payload digest of unknown kind {number}")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    file.seek(header.end)
    while chunk := file.read(_CHUNK_BYTES):
        if stop is not None and stop.is_set():
            raise LeaseLost("stopped while a source package was checked")
        digest.update(chunk)
    if digest.hexdigest() != wanted.lower():
        raise BadRpm(f"is damaged or truncated: its payload's {algorithm} is {digest.hexdigest()}, not {wanted!r}")
    yield f"payload {algorithm}"


def _nevra(header: Header, arch: str) -> Nevra:
    name, version, release = (
        _part(header, tag, word) for tag, word in ((_NAME, "name"), (_VERSION, "version"), (_RELEASE, "release"))
    )
    if len(f"{name}-{version}-{release}.{arch}.rpm") > _FILE_NAME_MAX_BYTES:
        raise BadRpm(f"has a name, version and release of more than the {_FILE_NAME_MAX_BYTES} bytes of a file name")
    return Nevra(name=name, epoch=header.number(_EPOCH) or 0, version=version, release=release, arch=arch)


def _part(header: Header, tag: int, word: str) -> str:
    """A part of the file's name. rpmbuild lets `%`, `{` and `}` pass: a macro that is not defined leaves them."""
    text = header.text(tag)
    if text is not None and _OF_MACROS.search(text):
        raise BadRpm(
            f"has the {word} {text!r:.80}, with a macro that the target does not define; in a repository's address "
            "'%', '{' and '}' have another meaning, so that no client would find the file: define the macro"
        )
    if text is None or not (_PLAIN_NAME if tag == _NAME else _PLAIN_PART).fullmatch(text):
        raise BadRpm(f"has a header whose {word} is {text!r:.80}, which RPM does not allow")
    return text
