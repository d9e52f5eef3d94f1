"""The words as types: identity, outcome of a whole, credentials that never show."""

import pytest

from farm.model.arch import Arch
from farm.model.nevra import Nevra
from farm.model.outcome import Outcome, combine
from farm.model.source import Source, SourceKind, has_mask, without_credentials


@pytest.mark.parametrize(
    "text", ["bash-5.2-1.demo1.x86_64", "a-b-c-1:2~rc1-3^git.el9.noarch", "perl-4:5.36-1.src", "gcc-c++-12-1.aarch64"]
)
def test_a_nevra_comes_back_as_it_was(text: str) -> None:
    assert str(Nevra.parse(text)) == text


@pytest.mark.parametrize("text", ["", "bash", "bash-5.2.x86_64", "a/b-1-1.noarch", "a-1-1.noarch\n", "a b-1-1.noarch"])
def test_a_bad_nevra_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Nevra.parse(text)


def test_the_epoch_is_not_in_the_file_name() -> None:
    assert Nevra.parse("a-1:2-3.noarch").filename == "a-2-3.noarch.rpm"


def test_the_worst_part_is_the_whole() -> None:
    assert combine([Outcome.SUCCEEDED, Outcome.FAILED]) is Outcome.FAILED
    assert combine([Outcome.SUCCEEDED, Outcome.EXCLUDED]) is Outcome.SUCCEEDED
    assert combine([Outcome.EXCLUDED, Outcome.EXCLUDED]) is Outcome.EXCLUDED
    assert combine([Outcome.FAILED, Outcome.ERRORED]) is Outcome.ERRORED
    assert combine([Outcome.TIMED_OUT, Outcome.OVER_LIMIT, Outcome.FAILED]) is Outcome.OVER_LIMIT
    assert all(combine([outcome]) is outcome for outcome in Outcome), "each has its place"
    with pytest.raises(ValueError):
        combine([])


def test_every_arch_has_a_foreign_spelling() -> None:
    assert {arch.debian for arch in Arch} == {"amd64", "arm64", "ppc64el"}
    assert {arch.oci for arch in Arch} == {"amd64", "arm64", "ppc64le"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host/x.git", "https://***@host/x.git"),
        ("https://token@host:8443/x", "https://***@host:8443/x"),
        ("https://a:b@c@host/x", "https://***@host/x"),
        ("https://host/x?ref=1&access_token=abc&x=2", "https://host/x?ref=1&access_token=***&x=2"),
        ("https://a:b@host/x?PRIVATE-TOKEN=a%26b#f", "https://***@host/x?PRIVATE-TOKEN=***#f"),
        (
            "https://host/x?X-Amz-Credential=a&X-Amz-Signature=b",
            "https://host/x?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("https://host/x?sig=a;key=b&apikey=c", "https://host/x?sig=***;key=***&apikey=***"),
        ("https://host/get?file=keyboard-1.src.rpm&monkey=1", "https://host/get?file=keyboard-1.src.rpm&monkey=1"),
        ("https://host/token=1/x", "https://host/token=1/x"),
        ("git@host:x.git", "git@host:x.git"),
        ("https://host/x", "https://host/x"),
        ("/srv/git/x", "/srv/git/x"),
        ("https://[::1", "(a URL that does not parse)"),
    ],
)
def test_credentials_in_a_url_are_never_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    assert has_mask(shown) == ("***" in shown)


def test_a_package_has_a_name_before_its_spec_was_read() -> None:
    assert Source(kind=SourceKind.GIT, url="https://x/y/hello.git/").guessed_name == "hello"
    assert Source(kind=SourceKind.GIT, url="git@host:hello.git").guessed_name == "hello"
    assert Source(kind=SourceKind.SRPM, sha256="0", filename="a-1-1.src.rpm").guessed_name == "a-1-1"
