"""RPMs made of bytes, without rpmbuild: headers as small, as many or as evil as a test needs. No payload.

And a reader of repositories that believes nothing.
"""

import gzip
import hashlib
import struct
from pathlib import Path
from urllib.parse import unquote, urlsplit

import createrepo_c

_STRING, _INT32, _STRING_ARRAY, _I18N = 6, 4, 8, 9
_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
_SIG_SIZE = 1000
_NAME, _VERSION, _RELEASE, _SUMMARY, _DESCRIPTION, _BUILD_TIME, _SIZE = 1000, 1001, 1002, 1004, 1005, 1006, 1009
_EPOCH = 1003
_LICENSE, _GROUP, _OS, _ARCH, _SOURCE_RPM, _FORMAT = 1014, 1016, 1021, 1022, 1044, 1124
_ORDER = {"primary": 0, "filelists": 1, "other": 2}
_HEADER_I18N, _SOURCE_PACKAGE = 100, 1106
#: How a source package and a binary one begin; too little for an RPM.
LEAD = b"\xed\xab\xee\xdb\x03\x00\x00\x01" + bytes(88)
BINARY_LEAD = b"\xed\xab\xee\xdb\x03\x00\x00\x00" + bytes(88)


def make_rpm(
    folder: Path,
    name: str = "hello",
    *,
    version: str = "1",
    release: str = "1",
    arch: str = "noarch",
    summary: bytes = b"a test",
    epoch: int | None = None,
) -> Path:
    """An RPM named as rpmbuild would; `arch` "src" makes a source package. Other content for another `summary`."""
    tags: list[tuple[int, int, bytes | int]] = [
        (_HEADER_I18N, _STRING_ARRAY, b"C"),
        (_NAME, _STRING, name.encode()),
        (_VERSION, _STRING, version.encode()),
        (_RELEASE, _STRING, release.encode()),
        (_SUMMARY, _I18N, summary),
        (_DESCRIPTION, _I18N, b"made by a test"),
        (_BUILD_TIME, _INT32, 1_700_000_000),
        (_SIZE, _INT32, 0),
        (_LICENSE, _STRING, b"MIT"),
        (_GROUP, _I18N, b"Unspecified"),
        (_OS, _STRING, b"linux"),
        (_ARCH, _STRING, b"noarch" if arch == "src" else arch.encode()),
    ]
    if epoch is not None:
        tags.append((_EPOCH, _INT32, epoch))
    tags.append((_SOURCE_PACKAGE, _INT32, 1) if arch == "src" else (_SOURCE_RPM, _STRING, b"hello-1-1.src.rpm"))
    tags.sort()
    header = _header(tags)
    signature = _header([(_SIG_SIZE, _INT32, len(header))])
    signature += b"\0" * (-len(signature) % 8)
    lead = struct.pack(
        ">4s2B2H66s2H16x", b"\xed\xab\xee\xdb", 3, 0, int(arch == "src"), 1, f"{name}-{version}".encode()[:65], 1, 5
    )
    path = folder / f"{name}-{version}-{release}.{arch}.rpm"
    path.write_bytes(lead + signature + header)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _header(tags: list[tuple[int, int, bytes | int]]) -> bytes:
    index, store = b"", b""
    for tag, kind, value in tags:
        if isinstance(value, int):
            store += b"\0" * (-len(store) % 4)
            data = struct.pack(">I", value)
        else:
            data = value + b"\0"
        index += struct.pack(">4I", tag, kind, len(store), 1)
        store += data
    return _MAGIC + struct.pack(">2I", len(tags), len(store)) + index + store


def read_repository(url: str) -> set[str]:
    """The file names in a repository that a client finds at `url`, after all digests, sizes and counts were checked."""
    root = Path(unquote(urlsplit(url).path))
    repomd = createrepo_c.Repomd(str(root / "repodata/repomd.xml"))
    for record in repomd.records:
        path = root / record.location_href
        assert sha256(path) == record.checksum, f"{record.type} is not what repomd.xml says"
        assert path.stat().st_size == record.size
        assert len(gzip.decompress(path.read_bytes())) == record.size_open
    reader = createrepo_c.RepositoryReader.from_metadata_files(
        *(str(root / record.location_href) for record in sorted(repomd.records, key=lambda record: _ORDER[record.type]))
    )
    packages = list(reader.iter_packages())
    assert reader.package_count() == len(packages)
    for package in packages:
        assert sha256(root / package.location_href) == package.pkgId
    return {Path(package.location_href).name for package in packages}
