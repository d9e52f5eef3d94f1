"""Dist-git's lists of tarballs are read in their three forms, and refused in any other."""

import pytest

from farm.formats.rpm.settings import Lookaside, LookasideForm
from workers.core.context import Ended
from workers.formats.rpm import lookaside

_MD5, _SHA1, _SHA256, _SHA512 = "a" * 32, "b" * 40, "c" * 64, "d" * 128


@pytest.mark.parametrize(
    ("line", "name", "algorithm", "digest"),
    [
        (f"SHA512 (hello-1.0.tar.gz) = {_SHA512}", "hello-1.0.tar.gz", "sha512", _SHA512),
        (f"SHA256 (a (1).zip) = {_SHA256}", "a (1).zip", "sha256", _SHA256),
        (f"MD5 (x) = {_MD5.upper()}", "x", "md5", _MD5),
        (f"{_MD5}  hello-1.0.tar.gz", "hello-1.0.tar.gz", "md5", _MD5),
        (f"{_SHA1} SOURCES/hello-1.0.tar.gz", "hello-1.0.tar.gz", "sha1", _SHA1),
        (f"{_SHA256} SOURCES/x", "x", "sha256", _SHA256),
        (f"{_SHA512} *x", "x", "sha512", _SHA512),
    ],
)
def test_each_form_is_read(line: str, name: str, algorithm: str, digest: str) -> None:
    (found,) = lookaside.parse(f"# list\n\n{line}\n".encode(), where="sources")
    assert (found.name, found.checksum.algorithm, found.checksum.hexdigest) == (name, algorithm, digest)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"SHA512 (x) = abc",
        f"SHA512 (x) = {_SHA1}".encode(),
        f"SHA512 (../x) = {_SHA512}".encode(),
        f"{_SHA1}  ..".encode(),
        f"{_SHA1}  SOURCES/".encode(),
        f"{_SHA1}  a\x1b[2Jb".encode(),
        b"abcdef  x",
        f"{_SHA1}  ".encode(),
        f"MD5 (x) = {_MD5}\nMD5 (x) = {'b' * 32}".encode(),
    ],
)
def test_a_line_in_no_form_is_refused_with_its_place(line: bytes) -> None:
    with pytest.raises(Ended, match=r"sources, line [12]"):
        lookaside.parse(line, where="sources")


def test_a_line_given_twice_counts_once() -> None:
    assert len(lookaside.parse(f"{_MD5}  x\n{_MD5}  x\n".encode(), where="sources")) == 1


def test_addresses_are_made_as_each_cache_has_them() -> None:
    (found,) = lookaside.parse(f"SHA512 (a b.tar) = {_SHA512}".encode(), where="sources")
    fedora = Lookaside(form=LookasideForm.SOURCES, base_url="https://src.example/repo/pkgs/")
    assert (
        lookaside.url_of(fedora, "hello", found)
        == f"https://src.example/repo/pkgs/hello/a%20b.tar/sha512/{_SHA512}/a%20b.tar"
    )
    alma = Lookaside(form=LookasideForm.METADATA, base_url="https://sources.example")
    assert lookaside.url_of(alma, "hello", found) == f"https://sources.example/{_SHA512}"
