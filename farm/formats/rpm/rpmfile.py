"""Reads an RPM's lead, signature and header with strict bounds, to tell what it is without unpacking it.

Owns the judgement "this is a whole source (or binary) package, and its name is X". Knows nothing of stores and
networks, and never looks inside the payload: that is for the build root. Format: RPM's docs/manual/format_v4.md.
"""

import hashlib
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from farm.errors import FarmError, LeaseLost
from farm.model.nevra import Nevra

_LEAD = struct.Struct(">4sBBHH66sHH16s")
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_HEADER_START = struct.Struct(">4s4xII")
_INDEX_ENTRY = struct.Struct(">IIII")
_LEAD_SOURCE = 1
#: The lead's size: `read_lead` needs no more of a file.
LEAD_BYTES = _LEAD.size
_MAJOR_OLDEST = 3

# Far above what real source packages have (a kernel's header is under 1 MiB), far below what would hurt a worker.
_SIGNATURE_MAX_BYTES = 4 * 2**20
_HEADER_MAX_BYTES = 32 * 2**20
_ENTRIES_MAX = 65536
_STRING_MAX_BYTES = 4096
_REQUIRES_MAX = 10_000
_FILE_NAME_MAX_BYTES = 255
_CHUNK_BYTES = 2**20

_INT32, _INT64, _STRING, _STRING_ARRAY, _I18N = 4, 5, 6, 8, 9
_INTEGERS = {_INT32: struct.Struct(">I"), _INT64: struct.Struct(">Q")}

_SIG_LONGSIZE, _SIG_SHA1, _SIG_SHA256, _SIG_SIZE = 270, 269, 273, 1000
_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_OS, _ARCH, _SOURCERPM, _NOSOURCE, _NOPATCH = 1021, 1022, 1044, 1051, 1052
_REQUIRE_FLAGS, _REQUIRE_NAME, _REQUIRE_VERSION = 1048, 1049, 1050
_EXCLUDE_ARCH, _EXCLUSIVE_ARCH = 1059, 1061
_LESS, _GREATER, _EQUAL = 2, 4, 8
_PAYLOAD_DIGEST, _PAYLOAD_DIGEST_ALGORITHM = 5092, 5093
_OPENPGP_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 12: "sha3_256"}

_PLAIN_ARCH = re.compile(r"[a-z0-9_]{1,32}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~^-]{0,200}")


class Lead(Enum):
    """What the first bytes of a file say of it."""

    SOURCE = "source"
    BINARY = "binary"
    OLD = "old"
    TRUNCATED = "truncated"
    FOREIGN = "foreign"


class BadRpm(FarmError):
    """The file is not a whole package of the wanted kind. The argument ends a sentence that starts with its name."""

    code = "bad-rpm"
    exit_code = 54


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


@dataclass(frozen=True, kw_only=True)
class _Header:
    """One header structure: where each tag's data is in `data`. `raw` is all of it, as digests see it."""

    entries: dict[int, tuple[int, int, int]]
    data: bytes
    raw: bytes

    def text(self, tag: int) -> str | None:
        """The tag's (first) string. Raises BadRpm if it is there and is not one."""
        found = self.entries.get(tag)
        if found is None:
            return None
        kind, offset, count = found
        end = self.data.find(b"\0", offset, offset + _STRING_MAX_BYTES)
        if kind not in (_STRING, _STRING_ARRAY, _I18N) or count < 1 or end < 0:
            raise BadRpm(f"has a damaged header: tag {tag} is not a string")
        return self.data[offset:end].decode("utf-8", "backslashreplace")

    def number(self, tag: int) -> int | None:
        """The tag's (first) number. Raises BadRpm if it is there and is not one."""
        found = self.entries.get(tag)
        if found is None:
            return None
        kind, offset, count = found
        form = _INTEGERS.get(kind)
        if form is None or count < 1 or offset + form.size > len(self.data):
            raise BadRpm(f"has a damaged header: tag {tag} is not a number")
        value: int = form.unpack_from(self.data, offset)[0]
        return value

    def texts(self, tag: int) -> tuple[str, ...]:
        """The tag's strings in ASCII, each on one line; none without the tag. Raises BadRpm if it is something else."""
        kind, offset, count = self.entries.get(tag, (_STRING_ARRAY, 0, 0))
        if kind not in (_STRING, _STRING_ARRAY) or count > _ENTRIES_MAX:
            raise BadRpm(f"has a damaged header: tag {tag} is not a list of strings")
        texts: list[str] = []
        for _ in range(count):
            end = self.data.find(b"\0", offset, offset + _STRING_MAX_BYTES)
            if end < 0:
                raise BadRpm(f"has a damaged header: tag {tag} is not a list of strings")
            texts.append(" ".join(self.data[offset:end].decode("ascii", "backslashreplace").split()))
            offset = end + 1
        return tuple(texts)

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The tag's 32-bit numbers, none when it is not there. Raises BadRpm if it is something else."""
        kind, offset, count = self.entries.get(tag, (_INT32, 0, 0))
        if kind != _INT32 or count > _ENTRIES_MAX or offset + 4 * count > len(self.data):
            raise BadRpm(f"has a damaged header: tag {tag} is not a list of numbers")
        return struct.unpack_from(f">{count}I", self.data, offset)


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


def _heads(file: BinaryIO, size_bytes: int) -> tuple[_Header, _Header]:
    """The signature and the header; the file is at its payload afterwards."""
    _read_lead(file, size_bytes)
    signature = _read_header(file, size_bytes, "signature", _SIGNATURE_MAX_BYTES)
    file.seek(-len(signature.raw) % 8, 1)
    return signature, _read_header(file, size_bytes, "header", _HEADER_MAX_BYTES)


def _binary(header: _Header) -> BinaryPackage:
    source, arch = header.text(_SOURCERPM), header.text(_ARCH)
    if source is None:
        raise BadRpm("is not a binary package: it does not say what source package it was built from")
    if arch is None or not _PLAIN_ARCH.fullmatch(arch):
        raise BadRpm(f"has a header whose arch is {arch!r:.80}, which RPM does not allow")
    return BinaryPackage(nevra=_nevra(header, arch), source=source)


def read_source_tags(path: Path) -> SourceTags:
    """What a source package says of how it is to be built. Reads its head only, and compares no digest.

    Raises BadRpm for every kind of damage and for a package that is none, and OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        is_source_lead = _read_lead(file, size_bytes)
        signature = _read_header(file, size_bytes, "signature", _SIGNATURE_MAX_BYTES)
        file.seek(-len(signature.raw) % 8, 1)
        header = _read_header(file, size_bytes, "header", _HEADER_MAX_BYTES)
    if not is_source_lead or _SOURCERPM in header.entries:
        raise BadRpm("is a binary RPM, not a src.rpm")
    return SourceTags(
        nevra=_nevra(header, "src"),
        requires=_requirements(header),
        exclusive_arches=header.texts(_EXCLUSIVE_ARCH),
        exclude_arches=header.texts(_EXCLUDE_ARCH),
        arch=header.text(_ARCH) or "",
    )


def _requirements(header: _Header) -> tuple[str, ...]:
    names, versions, flags = header.texts(_REQUIRE_NAME), header.texts(_REQUIRE_VERSION), header.numbers(_REQUIRE_FLAGS)
    if not len(names) == len(versions) == len(flags):
        raise BadRpm(f"has a damaged header: {len(names)} requirements with {len(versions)} versions")
    if len(names) > _REQUIRES_MAX:
        raise BadRpm(f"has {len(names)} BuildRequires; at most {_REQUIRES_MAX} are taken")
    found: list[str] = []
    for name, version, flag in zip(names, versions, flags, strict=True):
        sense = "".join(sign for bit, sign in ((_LESS, "<"), (_GREATER, ">"), (_EQUAL, "=")) if flag & bit)
        if not name.startswith("rpmlib("):
            found.append(f"{name} {sense} {version}" if sense and version else name)
    return tuple(dict.fromkeys(found))


def _check_source(file: BinaryIO, size_bytes: int, stop: threading.Event | None = None) -> SourcePackage:
    is_source_lead = _read_lead(file, size_bytes)
    signature = _read_header(file, size_bytes, "signature", _SIGNATURE_MAX_BYTES)
    file.seek(-len(signature.raw) % 8, 1)
    start = file.tell()
    header_and_payload = signature.number(_SIG_LONGSIZE)
    if header_and_payload is None:
        header_and_payload = signature.number(_SIG_SIZE)
    if header_and_payload is not None and size_bytes < start + header_and_payload:
        raise _truncated(size_bytes, start + header_and_payload)
    header = _read_header(file, size_bytes, "header", _HEADER_MAX_BYTES)
    verified = [*_verify_header(signature, header)]
    if not is_source_lead or _SOURCERPM in header.entries:
        raise BadRpm("is a binary RPM, not a src.rpm; give the source package it was built from")
    nevra = _nevra(header, "src")
    if _NOSOURCE in header.entries or _NOPATCH in header.entries:
        raise BadRpm("is a nosrc.rpm: some of its sources are not inside, so it cannot be built")
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
            raise _truncated(size_bytes, LEAD_BYTES)
        case Lead.FOREIGN:
            raise BadRpm("is not an RPM package")


def _read_header(file: BinaryIO, size_bytes: int, what: str, max_bytes: int) -> _Header:
    at = file.tell()
    start = file.read(_HEADER_START.size)
    if len(start) < _HEADER_START.size:
        raise _truncated(size_bytes, at + _HEADER_START.size)
    magic, entry_count, data_bytes = _HEADER_START.unpack(start)
    if magic != _HEADER_MAGIC:
        raise BadRpm(f"is not an RPM package: its {what} does not start as one")
    if entry_count > _ENTRIES_MAX or data_bytes > max_bytes:
        raise BadRpm(f"has a damaged {what}: {entry_count} tags in {data_bytes} bytes are more than any has")
    index_bytes = entry_count * _INDEX_ENTRY.size
    end = at + _HEADER_START.size + index_bytes + data_bytes
    if end > size_bytes:
        raise _truncated(size_bytes, end)
    index, data = file.read(index_bytes), file.read(data_bytes)
    if len(index) < index_bytes or len(data) < data_bytes:
        raise _truncated(size_bytes, end)
    entries: dict[int, tuple[int, int, int]] = {}
    for tag, kind, offset, count in _INDEX_ENTRY.iter_unpack(index):
        if offset > data_bytes or count > data_bytes:
            raise BadRpm(f"has a damaged {what}: tag {tag} points outside of it")
        if tag in entries:
            raise BadRpm(f"has a damaged {what}: tag {tag} is there twice")
        entries[tag] = (kind, offset, count)
    return _Header(entries=entries, data=data, raw=start + index + data)


def _verify_header(signature: _Header, header: _Header) -> Iterator[str]:
    for tag, algorithm in ((_SIG_SHA256, "sha256"), (_SIG_SHA1, "sha1")):
        wanted = signature.text(tag)
        if wanted is None:
            continue
        found = hashlib.new(algorithm, header.raw, usedforsecurity=False).hexdigest()
        if found != wanted.lower():
            raise BadRpm(f"is damaged: its header's {algorithm} is {found}, not {wanted!r}")
        yield f"header {algorithm}"


def _verify_payload(file: BinaryIO, header: _Header, stop: threading.Event | None) -> Iterator[str]:
    wanted = header.text(_PAYLOAD_DIGEST)
    number = header.number(_PAYLOAD_DIGEST_ALGORITHM)
    if wanted is None:
        return
    algorithm = _OPENPGP_HASHES.get(8 if number is None else number)
    if algorithm is None:
        raise BadRpm(f"has a payload digest of unknown kind {number}")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := file.read(_CHUNK_BYTES):
        if stop is not None and stop.is_set():
            raise LeaseLost("stopped while a source package was checked")
        digest.update(chunk)
    if digest.hexdigest() != wanted.lower():
        raise BadRpm(f"is damaged or truncated: its payload's {algorithm} is {digest.hexdigest()}, not {wanted!r}")
    yield f"payload {algorithm}"


def _nevra(header: _Header, arch: str) -> Nevra:
    parts = []
    for tag, word in ((_NAME, "name"), (_VERSION, "version"), (_RELEASE, "release")):
        text = header.text(tag)
        if text is None or not _PLAIN_NAME.fullmatch(text) or (tag != _NAME and "-" in text):
            raise BadRpm(f"has a header whose {word} is {text!r:.80}, which RPM does not allow")
        parts.append(text)
    name, version, release = parts
    if sum(map(len, (*parts, arch))) + len("--..rpm") > _FILE_NAME_MAX_BYTES:
        raise BadRpm(f"has a name, version and release of more than the {_FILE_NAME_MAX_BYTES} bytes of a file name")
    return Nevra(name=name, epoch=header.number(_EPOCH) or 0, version=version, release=release, arch=arch)


def _truncated(size_bytes: int, wanted_bytes: int) -> BadRpm:
    return BadRpm(f"is truncated: it has {size_bytes} bytes, its header says {wanted_bytes}")
