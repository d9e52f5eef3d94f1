"""RPM as an `Index`: the metadata files of a version of a repository, made from the entries of its packages.

The XML of a package never changes once it was read, so neither does its compressed form. A metadata file is written
as a sequence of gzip members: a head that counts the packages, one member per group of packages, and a foot. RFC
1952 says that such a sequence decompresses to the sequence of contents, and zlib, which libsolv, librepo and
createrepo_c read with, does so. A new version then costs the compression of the groups that changed, and otherwise
only copying bytes. Gzip and not zstd, because dnf and libsolv of EL8 are not always built to read zstd metadata.

Left out on purpose: `open-checksum` (optional; nothing reads it for XML, and it would need all of the XML for every
version) and the SQLite form (nothing has read it since yum).

createrepo_c and librpm parse the header in this process, and it is hostile. A header that makes them crash takes
down the process that publishes, with all uploads that it runs; the repository stays as it was. A build host has read
each package in a sandbox before (workers/formats/rpm/publishable.py), so only one that lies sends such a header.
"""

import gzip
import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import createrepo_c

from farm.errors import BadSource, RepositoryTrouble
from farm.formats.index import Edition, Entry, Given, Group, IndexedPackage
from farm.formats.rpm import rpmfile
from farm.formats.rpm.entry import CHANGELOGS, KINDS, Refused, refused, texts_of
from farm.model.nevra import Nevra
from farm.model.text import clip, printable

_WHOLE_BYTES = 64 * 2**20  # a file of this size is read by createrepo_c within half a second
_CHUNK_BYTES = 2**20
_GZIP_WINDOW = 31  # zlib's largest, with a gzip header, whose time is 0
_GZIP_LEVEL = 5  # measured: within 2 % of the size of 9, at twice its speed

_EPOCH = re.compile(rb'<version epoch="([0-9]{1,10})"')
_OPEN_SIZE = re.compile(rb"<open-size>([0-9]{1,18})</open-size>")

_HEADS = {
    "primary": '<metadata xmlns="http://linux.duke.edu/metadata/common" '
    'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{count}">\n',
    "filelists": '<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="{count}">\n',
    "other": '<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="{count}">\n',
}
_FEET = {"primary": "</metadata>", "filelists": "</filelists>", "other": "</otherdata>"}
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


class RpmIndex:
    """An `Index`. `repomd.xml` names the lists; an entry is the package's XML in each."""

    parts = KINDS
    top = "repodata/repomd.xml"
    tool = f"createrepo_c {createrepo_c.VERSION}"

    def read(self, given: Given) -> Entry:
        return _read_entry(given)

    def edition(self, entry: Entry) -> str:
        """The epoch. The first element of that name is the package's: texts before it are escaped."""
        found = _EPOCH.search(entry[0])
        return found[1].decode() if found else "0"

    def group(self, entries: Iterable[Entry]) -> Group:
        members = [_Member() for _ in KINDS]
        for entry in entries:
            for member, text in zip(members, entry, strict=True):
                member.add(text)
        return Group(
            members=tuple(member.end() for member in members),
            open_sizes_bytes=tuple(member.open_size_bytes for member in members),
        )

    def write(self, folder: Path, groups: Iterable[Group], edition: Edition) -> None:
        _write_version(folder, groups, edition)

    def packages(self, folder: Path) -> tuple[IndexedPackage, ...]:
        primary = next(folder.glob("*-primary.xml.gz"), None)
        if primary is None:
            raise RepositoryTrouble(f"there is no primary metadata in {folder}")
        return _read_primary(primary)

    def size_bytes(self, top: bytes) -> int:
        return sum(int(size) for size in _OPEN_SIZE.findall(top))


class _Member:
    """A member of a gzip file, compressed as its content comes."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        self._pieces: list[bytes] = []
        self.open_size_bytes = 0

    def add(self, content: bytes) -> None:
        self._pieces.append(self._compressor.compress(content))
        self.open_size_bytes += len(content)

    def end(self) -> bytes:
        return b"".join((*self._pieces, self._compressor.flush()))


def _read_entry(given: Given) -> Entry:
    path, shown = str(given.path), given.shown
    try:
        package = _read(given)
        if package.pkgId != given.sha256:
            raise RepositoryTrouble(f"{shown} has sha256 {package.pkgId}, not {given.sha256}; store it again")
        texts = texts_of(package, path, shown)
    except Refused as error:
        raise BadSource(str(error)) from error
    except (OSError, ValueError, SystemError, createrepo_c.CreaterepoCError, rpmfile.BadRpm) as error:
        raise BadSource(str(refused(path, shown, error))) from error
    named = f"{package.name}-{package.version}-{package.release}.{package.arch}.rpm"
    if named != Path(given.location).name:
        raise BadSource(f"{shown} says in its header that it is {named[:300]!a}")
    return texts


def _read(given: Given) -> createrepo_c.Package:
    """createrepo_c reads a whole file for its digest in one call, in which no other thread of this process runs, so of
    a large one it gets the head, and the digest is taken here."""
    path, location = given.path, given.location
    size_bytes = path.stat().st_size
    if size_bytes <= _WHOLE_BYTES:
        return createrepo_c.package_from_rpm(str(path), createrepo_c.SHA256, location, None, CHANGELOGS)
    head_bytes = rpmfile.head_bytes(path)
    with path.open("rb") as file, tempfile.NamedTemporaryFile(prefix="farm-head-") as head:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            given.check_stop()
            digest.update(chunk)
            if head.tell() < head_bytes:
                head.write(chunk)
        head.flush()
        package = createrepo_c.package_from_rpm(head.name, createrepo_c.SHA256, location, None, CHANGELOGS)
    package.pkgId, package.size_package = digest.hexdigest(), size_bytes
    return package


def _read_primary(primary: Path) -> tuple[IndexedPackage, ...]:
    found: list[IndexedPackage] = []

    def keep(package: createrepo_c.Package) -> bool:
        nevra = Nevra(
            name=package.name,
            epoch=int(package.epoch or 0),
            version=package.version,
            release=package.release,
            arch=package.arch,
        )
        found.append(
            IndexedPackage(
                identity=str(nevra),
                filename=package.location_href.rpartition("/")[2],
                sha256=package.pkgId,
                size_bytes=package.size_package,
                source=package.rpm_sourcerpm or "",
            )
        )
        return True

    try:
        createrepo_c.xml_parse_primary(str(primary), pkgcb=keep, do_files=False)
    except (OSError, ValueError, createrepo_c.CreaterepoCError) as error:
        raise RepositoryTrouble(f"{primary} cannot be read: {clip(printable(str(error)), 200)}") from error
    return tuple(sorted(found, key=lambda one: one.filename))


def _write_version(folder: Path, groups: Iterable[Group], edition: Edition) -> None:
    hashes = [hashlib.sha256() for _ in KINDS]
    sizes = [0] * len(KINDS)
    open_sizes = [0] * len(KINDS)
    heads = [(_XML + _HEADS[kind].format(count=edition.packages)).encode() for kind in KINDS]
    feet = [_FEET[kind].encode() for kind in KINDS]
    paths = [folder / f"{kind}.xml.gz" for kind in KINDS]
    with paths[0].open("wb") as primary, paths[1].open("wb") as filelists, paths[2].open("wb") as other:
        files = (primary, filelists, other)

        def write(members: Sequence[bytes], open_sizes_bytes: Sequence[int]) -> None:
            for index, member in enumerate(members):
                files[index].write(member)
                hashes[index].update(member)
                sizes[index] += len(member)
                open_sizes[index] += open_sizes_bytes[index]

        write([_compress(head) for head in heads], [len(head) for head in heads])
        for group in groups:
            write(group.members, group.open_sizes_bytes)
        write([_compress(foot) for foot in feet], [len(foot) for foot in feet])
    repomd = createrepo_c.Repomd()
    repomd.set_revision(str(edition.number))
    for index, kind in enumerate(KINDS):
        name = f"{hashes[index].hexdigest()}-{kind}.xml.gz"
        paths[index].rename(folder / name)
        record = createrepo_c.RepomdRecord(kind, None)
        record.location_href = f"repodata/{name}"
        record.checksum, record.checksum_type = hashes[index].hexdigest(), "sha256"
        record.size, record.size_open = sizes[index], open_sizes[index]
        record.timestamp = edition.published_at_s
        repomd.set_record(record)
    (folder / "repomd.xml").write_text(repomd.xml_dump())


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, _GZIP_LEVEL, mtime=0)
