"""A src.rpm is told from everything else by its head, with strict bounds."""

import hashlib
import io
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.formats.rpm import rpmfile

_STRING, _ARRAY, _INT32, _INT64 = 6, 8, 4, 5
_PAYLOAD = b"payload" * 100
_Entries = dict[int, tuple[int, bytes]]


def _text(value: str) -> tuple[int, bytes]:
    return _STRING, value.encode() + b"\0"


def _header(entries: _Entries) -> bytes:
    index, data = b"", b""
    for tag, (kind, value) in sorted(entries.items()):
        data += bytes(-len(data) % 8)
        index += struct.pack(">IIII", tag, kind, len(data), 1)
        data += value
    return b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", len(entries), len(data)) + index + data


def _package(tags: _Entries | None = None, *, kind: int = 1, signature: _Entries | None = None) -> bytes:
    """The bytes of a source package with every digest right; `tags` and `signature` come over the usual ones."""
    usual: _Entries = {
        1000: _text("hello"),
        1001: _text("1.0"),
        1002: _text("1.demo"),
        1003: (_INT32, struct.pack(">I", 2)),
        5092: (_ARRAY, hashlib.sha256(_PAYLOAD).hexdigest().encode() + b"\0"),
        5093: (_INT32, struct.pack(">I", 8)),
    }
    header = _header({**usual, **(tags or {})})
    signs: _Entries = {
        269: _text(hashlib.sha1(header).hexdigest()),
        273: _text(hashlib.sha256(header).hexdigest()),
        1000: (_INT32, struct.pack(">I", len(header) + len(_PAYLOAD))),
    }
    signed = _header({**signs, **(signature or {})})
    lead = struct.pack(">4sBBHH66sHH16s", b"\xed\xab\xee\xdb", 3, 0, kind, 1, b"hello-1.0-1", 1, 5, b"")
    return lead + signed + bytes(-len(signed) % 8) + header + _PAYLOAD


def _why(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "x.src.rpm"
    path.write_bytes(content)
    with pytest.raises(rpmfile.BadRpm) as refused:
        rpmfile.check_source(path)
    return str(refused.value)


def test_a_whole_source_package_is_named_and_verified(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(_package())
    found = rpmfile.check_source(path)
    assert str(found.nevra) == "hello-2:1.0-1.demo.src"
    assert found.verified == ("header sha256", "header sha1", "payload sha256")


def test_a_long_size_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(_package(signature={270: (_INT64, struct.pack(">Q", len(_package()) - 384))}))
    assert "says" in _why(tmp_path, path.read_bytes())


@pytest.mark.parametrize("content", [b"", b"\xed", b"hello world" * 20, b"PK\x03\x04" + bytes(200)])
def test_any_other_file_is_not_an_rpm(tmp_path: Path, content: bytes) -> None:
    assert _why(tmp_path, content) == "is not an RPM package"


def test_a_lead_alone_is_truncated(tmp_path: Path) -> None:
    assert _why(tmp_path, _package()[:50]).startswith("is truncated: it has 50 bytes, its header says 96")


@pytest.mark.parametrize("size", [96, 100, 112, 150, 300, 700, 1000])
def test_a_package_cut_anywhere_is_truncated(tmp_path: Path, size: int) -> None:
    content = _package()[:size]
    assert _why(tmp_path, content).startswith(f"is truncated: it has {size} bytes, its header says ")


def test_bytes_behind_the_payload_are_refused(tmp_path: Path) -> None:
    assert "its header says" in _why(tmp_path, _package() + b"x")


@pytest.mark.parametrize("content", [_package(kind=0), _package({1044: _text("hello-1.0-1.src.rpm")})])
def test_a_binary_package_is_called_one(tmp_path: Path, content: bytes) -> None:
    assert _why(tmp_path, content).startswith("is a binary RPM, not a src.rpm")


def test_a_package_without_its_sources_is_refused(tmp_path: Path) -> None:
    assert _why(tmp_path, _package({1051: (_INT32, bytes(4))})).startswith("is a nosrc.rpm")


def test_damage_to_header_or_payload_is_seen(tmp_path: Path) -> None:
    good = _package()
    assert "payload's sha256" in _why(tmp_path, good[:-1] + b"X")
    assert "header's sha256" in _why(tmp_path, good.replace(b"1.demo", b"2.demo"))


@pytest.mark.parametrize("name", ["", "../x", "a b", "x\n", "-x", "x\x1b[2J"])
def test_a_name_that_rpm_does_not_allow_is_refused(tmp_path: Path, name: str) -> None:
    assert "whose name is" in _why(tmp_path, _package({1000: _text(name)}))


@pytest.mark.parametrize(
    ("tag", "text"), [(1000, "n" * 230), (1000, "_x"), (1002, ".1"), (1001, "~1"), (1001, "^1"), (1002, "_")]
)
def test_a_name_that_rpm_allows_is_taken(tmp_path: Path, tag: int, text: str) -> None:
    """Each was tried with rpmbuild 4.18."""
    path = tmp_path / "a.src.rpm"
    path.write_bytes(_package({tag: _text(text)}))
    assert text in str(rpmfile.check_source(path).nevra)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    assert "255 bytes of a file name" in _why(tmp_path, _package({1000: _text("a" * 250)}))


def test_a_macro_that_is_not_defined_is_named(tmp_path: Path) -> None:
    assert "the release '%autorelease', with a macro" in _why(tmp_path, _package({1002: _text("%autorelease")}))


def test_huge_counts_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    start = _package()[:96] + b"\x8e\xad\xe8\x01" + bytes(4)
    assert "rpm itself takes at most" in _why(tmp_path, start + struct.pack(">II", 2**32 - 1, 16) + bytes(100))
    assert "rpm itself takes at most" in _why(tmp_path, start + struct.pack(">II", 1, 2**32 - 1) + bytes(100))


def test_a_tag_of_the_wrong_kind_is_damage(tmp_path: Path) -> None:
    assert "not a string" in _why(tmp_path, _package({1000: (_INT32, bytes(4))}))
    assert "not a number" in _why(tmp_path, _package({1003: _text("2")}))


class _Counting(io.BytesIO):
    """Fails a reader that asks for more than there can be."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= 2**20
        return super().read(size)


def _survives(content: bytes) -> None:
    said = "is whole"
    try:
        rpmfile._check_source(_Counting(content), len(content))
    except rpmfile.BadRpm as refused:
        said = str(refused)
    assert said.startswith(("is ", "has "))
    assert said.isprintable()


@given(
    st.lists(st.tuples(st.integers(0, len(_package()) - 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.none() | st.integers(0, len(_package())),
)
def test_no_mutation_makes_the_reader_fall(changes: list[tuple[int, bytes]], cut: int | None) -> None:
    content = bytearray(_package())
    for at, new in changes:
        content[at : at + len(new)] = new
    _survives(bytes(content[:cut]))


@given(st.binary(max_size=300))
def test_no_bytes_behind_a_lead_make_the_reader_fall(rest: bytes) -> None:
    _survives(_package()[:96] + rest)
    _survives(_package()[:112] + rest)


@pytest.mark.parametrize(
    ("start", "lead"),
    [
        (_package(), rpmfile.Lead.SOURCE),
        (_package(kind=0), rpmfile.Lead.BINARY),
        (_package()[:4] + b"\2" + _package()[5:], rpmfile.Lead.OLD),
        (_package()[: rpmfile.LEAD_BYTES - 1], rpmfile.Lead.TRUNCATED),
        (_package()[:2], rpmfile.Lead.TRUNCATED),
        (_package()[:1], rpmfile.Lead.FOREIGN),
        (b"", rpmfile.Lead.FOREIGN),
        (b"PK\x03\x04" + bytes(200), rpmfile.Lead.FOREIGN),
    ],
)
def test_the_lead_tells_the_kind_of_a_file(start: bytes, lead: rpmfile.Lead) -> None:
    assert rpmfile.read_lead(start) is lead


def test_a_large_header_is_read_in_little_memory_and_a_larger_one_is_refused_in_words(tmp_path: Path) -> None:
    """rpm's own limit is 256 MiB: 250,000 files have 39 MB. The holes of this file are its data."""
    path = tmp_path / "a.src.rpm"
    for data_bytes, expected in ((200 * 2**20, "is a binary RPM"), (2**28, "rpm itself takes at most 65535 tags in")):
        with path.open("wb") as file:
            file.write(_package()[:3] + b"\xdb\x03\x00\x00\x00" + bytes(88))
            file.write(b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 0, 0))
            file.write(b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 65_000, data_bytes))
            file.write(b"".join(struct.pack(">IIII", 2000 + n, 6, 0, 1) for n in range(65_000)))
            file.truncate(file.tell() + data_bytes)
        tracemalloc.start()
        with pytest.raises(rpmfile.BadRpm, match=expected):
            rpmfile.check_source(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 32 * 2**20
