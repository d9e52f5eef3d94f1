"""Specs are read literally: what stands there is told, what would have to be run is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.formats.rpm import spec

_HEAD = "Name: hello\nVersion: 1.0\n"


def _values(text: str, **defines: str) -> list[str | None]:
    return [source.value for source in spec.read((_HEAD + text).encode(), defines=defines.items()).sources]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Source0: a.tar.gz", "a.tar.gz"),
        ("source:a.tar.gz", "a.tar.gz"),
        ("Source0:\t%{name}-%{version}.tar.gz", "hello-1.0.tar.gz"),
        ("Source0: %name-%version.tgz", "hello-1.0.tgz"),
        ("%global up 2.0\nSource0: x-%{up}.tar", "x-2.0.tar"),
        ("%global a %{b}\n%global b 1\nSource0: x-%{a}", None),
        ("%global b 1\n%define a v%{b}\nSource0: x-%{?a}", "x-v1"),
        ("URL: https://h.example/p\nSource0: %{url}/x.tar.gz", "https://h.example/p/x.tar.gz"),
        ("Source0: x%{?dist}.tar", "x.demo.tar"),
    ],
)
def test_plainly_known_macros_are_expanded(text: str, value: str | None) -> None:
    assert _values(text, dist=".demo") == [value]


@pytest.mark.parametrize(
    "text",
    [
        "Source0: %(id).tar",
        "Source0: %{lua:print('x')}.tar",
        "Source0: %{unknown}.tar",
        "Source0: %{?unknown}.tar",
        "Source0: %{!?x:y}.tar",
        "Source0: %[1+1].tar",
        "Source0: 100%%.tar",
        "Source0: x%",
        "Source0: %{pypi_source x}",
        "%global x %(id)\nSource0: %{x}.tar",
        "%global x() y\nSource0: %{x}.tar",
        "%global x %{x}\nSource0: %{x}",
        "%if 1\n%global x 1\n%else\n%global x 2\n%endif\nSource0: %{x}",
        "%if 1\n%global x 1\n%endif\nSource0: a%{?x}",
        "%global a %b%b%b\n" * 3 + "Source0: %a",
    ],
)
def test_a_value_that_needs_execution_is_none(text: str) -> None:
    (source,) = spec.read((_HEAD + text).encode()).sources
    assert source.value is None
    assert source.filename is None
    assert source.url is None


def test_macros_that_grow_are_given_up() -> None:
    bomb = "%global x0 " + "a" * 1000 + "\n"
    bomb += "".join(f"%global x{n} %{{x{n - 1}}}%{{x{n - 1}}}%{{x{n - 1}}}\n" for n in range(1, 40))
    assert _values(bomb + "Source0: %{x39}") == [None]


def test_sources_and_patches_are_numbered_as_rpm_numbers_them() -> None:
    found = spec.read((_HEAD + "Source: a\nSource5: b\nSource: c\nPatch: d\nPatch1: e\n").encode()).sources
    assert [(item.label, item.value) for item in found] == [
        ("Source0", "a"),
        ("Source5", "b"),
        ("Source6", "c"),
        ("Patch0", "d"),
        ("Patch1", "e"),
    ]


def test_sections_other_than_the_preamble_name_no_sources() -> None:
    text = "%description\nSource0: no\n%prep\nPatch: no\n%package x\nSource1: yes\n%changelog\nSource2: no\n"
    assert _values(text) == ["yes"]


def test_source_and_patch_lists_are_read() -> None:
    text = "%sourcelist\na.tar\n# not this\n\n%{name}.conf\n%patchlist\nfix.patch\n%description\n"
    found = spec.read((_HEAD + text).encode()).sources
    assert [(item.label, item.value) for item in found] == [
        ("Source0", "a.tar"),
        ("Source1", "hello.conf"),
        ("Patch0", "fix.patch"),
    ]


def test_lines_of_a_continued_macro_are_not_tags() -> None:
    assert _values("%global body \\\nSource7: no \\\n  and so on\nSource0: yes") == ["yes"]


def test_sources_inside_if_are_marked() -> None:
    found = spec.read((_HEAD + "%if 0\nSource0: a\n%endif\nSource1: b\n").encode()).sources
    assert [item.is_conditional for item in found] == [True, False]


def test_a_fragment_names_the_file_and_is_not_asked_for() -> None:
    (source,) = spec.read(b"Source0: https://h.example/archive/abc.tar.gz#/hello-1.0.tar.gz\n").sources
    assert source.url == "https://h.example/archive/abc.tar.gz"
    assert source.filename == "hello-1.0.tar.gz"


def test_bytes_that_are_not_utf8_are_fine() -> None:
    found = spec.read(b"Summary: caf\xe9\nName: hello\nVersion: 1\nSource0: %{name}.tar\n")
    assert found.sources[0].value == "hello.tar"


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"])
def test_a_first_source_called_name_version_stands_for_the_tree(ending: str) -> None:
    found = spec.read(f"{_HEAD}Source0: %{{name}}-%{{version}}{ending}\n".encode())
    assert found.archive_of_tree == (f"hello-1.0{ending}", "hello-1.0")


@pytest.mark.parametrize(
    "tag",
    [
        "Source0: https://h.example/hello-1.0.tar.gz",
        "Source0: hello-1.1.tar.gz",
        "Source0: hello-1.0.zip",
        "Source1: hello-1.0.tar.gz",
        "Source0: x/hello-1.0.tar.gz",
        "",
    ],
)
def test_no_other_first_source_does(tag: str) -> None:
    assert spec.read(f"{_HEAD}{tag}\n".encode()).archive_of_tree is None


@given(st.binary(max_size=600) | st.text(alphabet="%{}?!:()\\\nSourcePatch0nameglobalif endif.x", max_size=300))
def test_nothing_in_a_spec_makes_the_reader_fall(content: bytes | str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    for item in spec.read(raw).sources:
        assert item.value is None or "%" not in item.value
