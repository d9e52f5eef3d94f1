"""The build requirements of a source package are read with strict bounds, whatever its header holds."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.formats.rpm import rpmfile

_STRING, _ARRAY, _INT32 = 6, 8, 4
_NAME, _VERSION, _RELEASE, _ARCH, _SOURCERPM = 1000, 1001, 1002, 1022, 1044
_FLAGS, _REQUIRES, _VERSIONS, _EXCLUDE, _EXCLUSIVE = 1048, 1049, 1050, 1059, 1061
_LESS, _GREATER, _EQUAL = 2, 4, 8
_Entries = dict[int, tuple[int, int, bytes]]


def _texts(*values: str) -> tuple[int, int, bytes]:
    return _ARRAY, len(values), b"".join(value.encode() + b"\0" for value in values)


def _numbers(*values: int) -> tuple[int, int, bytes]:
    return _INT32, len(values), struct.pack(f">{len(values)}I", *values)


def _text(value: str) -> tuple[int, int, bytes]:
    return _STRING, 1, value.encode() + b"\0"


def _header(entries: _Entries) -> bytes:
    index, data = b"", b""
    for tag, (kind, count, value) in sorted(entries.items()):
        data += bytes(-len(data) % 4)
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += value
    return b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", len(entries), len(data)) + index + data


def _package(tags: _Entries | None = None) -> bytes:
    usual: _Entries = {
        _NAME: _text("hello"),
        _VERSION: _text("1.0"),
        _RELEASE: _text("1.t1"),
        _ARCH: _text("x86_64"),
        _REQUIRES: _texts("gcc", "(a or b)", "libfoo-devel", "bar", "rpmlib(FileDigests)", "gcc"),
        _VERSIONS: _texts("", "", "2:1.4", "3", "4.6.0-1", ""),
        _FLAGS: _numbers(0, 0, _GREATER | _EQUAL, _LESS, _LESS | _EQUAL, 0),
    }
    signature = _header({})
    lead = struct.pack(">4sBBHH66sHH16s", b"\xed\xab\xee\xdb", 3, 0, 1, 1, b"hello-1.0-1", 1, 5, b"")
    return lead + signature + bytes(-len(signature) % 8) + _header({**usual, **(tags or {})})


def _read(folder: Path, content: bytes) -> rpmfile.SourceTags:
    path = folder / "x.src.rpm"
    path.write_bytes(content)
    return rpmfile.read_source_tags(path)


def test_requirements_are_as_a_spec_writes_them_without_those_on_rpm(tmp_path: Path) -> None:
    found = _read(tmp_path, _package())
    assert str(found.nevra) == "hello-1.0-1.t1.src"
    assert found.requires == ("gcc", "(a or b)", "libfoo-devel >= 2:1.4", "bar < 3")
    assert (found.arch, found.exclusive_arches, found.exclude_arches) == ("x86_64", (), ())


def test_arches_are_as_the_spec_says_them(tmp_path: Path) -> None:
    found = _read(tmp_path, _package({_EXCLUSIVE: _texts("x86_64", "s390x"), _EXCLUDE: _texts("noarch")}))
    assert (found.exclusive_arches, found.exclude_arches) == (("x86_64", "s390x"), ("noarch",))


def test_a_requirement_is_one_printable_line(tmp_path: Path) -> None:
    tags = {_REQUIRES: _texts("a\n b\u202e"), _VERSIONS: _texts(""), _FLAGS: _numbers(0)}
    assert _read(tmp_path, _package(tags)).requires == ("a b\\xe2\\x80\\xae",)


@pytest.mark.parametrize(
    "tags",
    [
        {_FLAGS: _numbers(0)},
        {_REQUIRES: _texts("gcc")},
        {_REQUIRES: _numbers(1)},
        {_REQUIRES: (_ARRAY, 10_000, b"a\0")},
        {_VERSIONS: (_ARRAY, 6, b"x" * 4000)},
        {_FLAGS: (_INT32, 10_000, bytes(24))},
        {_EXCLUSIVE: _numbers(1)},
    ],
)
def test_lists_that_do_not_fit_are_damage(tags: _Entries, tmp_path: Path) -> None:
    with pytest.raises(rpmfile.BadRpm, match="has a damaged header"):
        _read(tmp_path, _package(tags))


def test_a_binary_package_is_none(tmp_path: Path) -> None:
    with pytest.raises(rpmfile.BadRpm, match="is a binary RPM"):
        _read(tmp_path, _package({_SOURCERPM: _text("hello-1.0-1.src.rpm")}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.integers(96, len(_package()) - 1), st.binary(min_size=1, max_size=8)), max_size=6))
def test_no_mutation_makes_the_reader_fall(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(_package())
    for at, new in changes:
        content[at : at + len(new)] = new
    try:
        assert len(_read(tmp_path, bytes(content)).requires) <= 6
    except rpmfile.BadRpm as refused:
        assert str(refused).startswith(("is ", "has "))  # noqa: PT017 - either end is right, and this says of which kind
