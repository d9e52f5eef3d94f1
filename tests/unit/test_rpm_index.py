"""The content of an RPM's header is hostile: it is published as well-formed XML, or refused with a message."""

import gzip
import threading
from functools import partial
from pathlib import Path

import createrepo_c
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farm.errors import BadSource, LeaseLost
from farm.formats.index import Edition, Entry, Given
from farm.formats.rpm.index import RpmIndex
from farm.repositories.staging import check_stop
from tests.rpms import make_rpm, sha256

INDEX = RpmIndex()


def read(path: Path, *, stop: threading.Event | None = None) -> Entry:
    location = f"packages/{path.name}"
    check = partial(check_stop, stop)
    return INDEX.read(
        Given(path=path, sha256=sha256(path), location=location, shown="'x.rpm'", check_stop=check),
    )


def write(folder: Path, *entries: Entry, number: int = 1) -> None:
    groups = [INDEX.group([one]) for one in entries]
    INDEX.write(folder, groups, Edition(number=number, packages=len(entries), published_at_s=1))


def _entry(package: createrepo_c.Package) -> Entry:
    return tuple(text.encode() for text in createrepo_c.xml_dump(package))


def test_a_package_is_read_the_same_whenever_it_is_read(tmp_path: Path) -> None:
    """The time of publication is not in it."""
    path = make_rpm(tmp_path)
    first = read(path)
    path.touch()
    assert read(path) == first
    assert b'<location href="packages/hello-1-1.noarch.rpm"/>' in first[0]


def test_a_large_package_is_read_like_any_other(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    with path.open("r+b") as file:
        file.truncate(70 * 2**20)
    digest = sha256(path)
    found = createrepo_c.package_from_rpm(str(path), createrepo_c.SHA256, "packages/hello-1-1.noarch.rpm", None, 10)
    found.time_file = found.time_build
    assert read(path) == _entry(found)
    assert found.pkgId == digest


def test_reading_a_large_package_can_be_stopped(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    with path.open("r+b") as file:
        file.truncate(70 * 2**20)
    stop = threading.Event()
    stop.set()
    with pytest.raises(LeaseLost):
        read(path, stop=stop)


@pytest.mark.parametrize("summary", [b"\x1b[31mred", b"a\x01b", b"\x0c"])
def test_control_characters_in_a_header_are_refused(tmp_path: Path, summary: bytes) -> None:
    with pytest.raises(BadSource, match="has the control character 0x"):
        read(make_rpm(tmp_path, summary=summary))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(summary=st.binary(max_size=40) | st.sampled_from([b"</package>", b"]]>", b"&#0;", b"<!--", "größe".encode()]))
def test_whatever_a_summary_says_the_metadata_stays_readable(tmp_path: Path, summary: bytes) -> None:
    try:
        xml = read(make_rpm(tmp_path, summary=summary.replace(b"\0", b"")))
    except BadSource:
        return
    folder = tmp_path / "repodata"
    folder.mkdir(exist_ok=True)
    write(folder, xml)
    seen: list[createrepo_c.Package] = []
    (path,) = folder.glob("*-primary.xml.gz")
    createrepo_c.xml_parse_primary(str(path), pkgcb=seen.append)
    assert [package.name for package in seen] == ["hello"]
    path.unlink()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(at=368, byte=128)
@given(at=st.integers(0, 450), byte=st.integers(0, 255))
def test_a_changed_byte_anywhere_is_read_or_refused(tmp_path: Path, at: int, byte: int) -> None:
    path = make_rpm(tmp_path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data)
    try:
        xml = read(path)
    except BadSource as refused:
        assert str(refused).isprintable()  # noqa: PT017 - a changed byte may well do no harm
    else:
        assert xml[0].startswith(b"<package")


def test_metadata_is_made_of_gzip_members_that_read_as_one(tmp_path: Path) -> None:
    write(tmp_path, *(read(make_rpm(tmp_path, name)) for name in ("one", "two")), number=7)
    (path,) = tmp_path.glob("*-other.xml.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<otherdata')
    assert 'packages="2"' in text
    assert text.endswith("</otherdata>")
    assert createrepo_c.Repomd(str(tmp_path / "repomd.xml")).revision == "7"


def test_the_same_packages_make_the_same_bytes(tmp_path: Path) -> None:
    xml = read(make_rpm(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, xml)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second


def test_a_large_file_may_have_a_header_of_any_size_that_rpm_takes(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, "large", summary=b"y" * (65 * 2**20))
    with path.open("ab") as file:
        file.write(b"payload")
    given = Given(path=path, sha256=sha256(path), location=path.name, shown="large", check_stop=lambda: None)
    assert len(RpmIndex().read(given)[0]) > 65 * 2**20
