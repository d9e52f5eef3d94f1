"""A request is checked before anything is written: sources, options, names."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.client.user import local_actor
from farm.config import Settings
from farm.errors import BadRequest, BadSource, UnknownArch
from farm.formats.rpm.format import RpmFormat
from farm.formats.rpm.options import parse_define
from farm.model.actor import Actor, Role
from farm.model.source import Source, SourceKind
from farm.service.request import (
    PRIORITY_MAX,
    TIMEOUT_MAX_S,
    RequestArguments,
    arch_named,
    check_owner,
    check_priority,
    make_options,
    make_request,
    step_kind,
)
from farm.service.source import SRPM_MAX_BYTES, check_source, check_srpm, git_source, store_srpm
from tests.artifacts import content_of
from tests.rpms import BINARY_LEAD, LEAD

RPM = RpmFormat()


@pytest.mark.parametrize("wrong", [{"target": "demo", "tagret": "demo"}, {"git": "https://example.org/hello.git"}])
def test_an_argument_that_no_request_has_or_that_is_missing_is_a_type_error(wrong: RequestArguments) -> None:
    with pytest.raises(TypeError, match=r"'tagret' is not an argument|lacks its argument 'target'"):
        make_request(Settings.from_env({}), pytest.fail, uid=None, **wrong)


def git_url(git: str | Path) -> str | None:
    return git_source(git, RPM, ref=None, subdir=None, spec=None).url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hello.git",
        "https://me:secret@example.org/hello.git",
        "http://127.0.0.1:8000/a%20b.git",
        "ssh://git@example.org:2222/~ann/hello.git",
        "git://example.org/hello",
        "file:///srv/git/hello.git",
        "git@example.org:rpms/hello.git",
        "example.org:hello",
    ],
)
def test_every_form_of_address_that_git_has_is_taken_as_it_is(url: str) -> None:
    assert git_url(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "empty"),
        ("-uevil", "dash"),
        ("--upload-pack=touch /tmp/x", "dash"),
        ("ext::sh -c touch% /tmp/x", "does not exist"),
        ("ftp://example.org/x", "no URL of https"),
        ("https://", "no URL of https"),
        ("ssh://-oProxyCommand=x/y", "no URL of https"),
        ("https://example.org/x.git?private_token=abc", r"x\.git\?private_token=\*\*\*' has credentials in its query"),
        ("https://example.org/a\nb", "unprintable"),
        ("https://example.org/\x1b[31m", "unprintable"),
        ("no/such/folder", "does not exist"),
        ("x" * 3000, "too long"),
    ],
)
def test_a_url_without_a_git_repository_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadSource, match=why) as raised:
        git_url(url)
    assert "\x1b" not in str(raised.value)


def test_credentials_in_a_refused_url_are_not_repeated() -> None:
    with pytest.raises(BadSource) as raised:
        git_url("ftp://me:secret@example.org/x")
    assert "secret" not in str(raised.value)


def test_a_local_repository_becomes_an_absolute_file_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my hello" / ".git").mkdir(parents=True)
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        assert git_url("my hello") == f"file://{tmp_path}/my%20hello"
    assert git_url(tmp_path / "my hello") == f"file://{tmp_path}/my%20hello"
    bare = tmp_path / "bare.git"
    (bare / "objects").mkdir(parents=True)
    (bare / "HEAD").touch()
    assert git_url(f"{tmp_path}/./bare.git") == f"file://{bare}"


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="is not a git repository"):
        git_url(tmp_path)


@pytest.mark.parametrize("ref", ["main", "v2.10", "refs/tags/v1", "feature/a-b", "0" * 40, "v1+git~"[:-1]])
def test_a_ref_that_git_allows_is_taken(ref: str) -> None:
    assert git_source("https://example.org/a", RPM, ref=ref, subdir=None, spec=None).ref == ref


@pytest.mark.parametrize(
    "ref", ["-x", "--exec=x", "a b", "a..b", "a~1", "a^", "a:b", "@{0}", "@", "a\n", "a\\b", "x.lock"]
)
def test_a_ref_that_git_does_not_allow_is_refused(ref: str) -> None:
    with pytest.raises(BadSource, match="--ref"):
        git_source("https://example.org/a", RPM, ref=ref, subdir=None, spec=None)


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x", "a//b", "-x", "", "a\0b"])
def test_a_path_that_leaves_the_tree_is_refused(path: str) -> None:
    with pytest.raises(BadSource, match="--subdir"):
        git_source("https://example.org/a", RPM, ref=None, subdir=path, spec=None)
    with pytest.raises(BadSource, match="--spec"):
        git_source("https://example.org/a", RPM, ref=None, subdir=None, spec=f"{path}/../x.spec")


def test_a_spec_is_named_as_one() -> None:
    source = git_source("https://example.org/a", RPM, ref=None, subdir="packages/a/", spec="a.spec")
    assert (source.subdir, source.spec) == ("packages/a", "a.spec")
    with pytest.raises(BadSource, match=r"does not end in \.spec"):
        git_source("https://example.org/a", RPM, ref=None, subdir=None, spec="Makefile")


# --- src.rpms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not an RPM package"),
        (b"PK\x03\x04" + bytes(200), "is not an RPM package"),
        (b"\xed\xab", "is truncated: it has 2 bytes"),
        (LEAD[:50], "is truncated: it has 50 bytes"),
        (BINARY_LEAD, "is a binary RPM, not a src.rpm"),
    ],
)
def test_a_file_that_is_no_src_rpm_is_refused_by_its_first_bytes(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.src.rpm"
    path.write_bytes(content)
    with pytest.raises(BadSource, match=why) as raised:
        check_srpm(path, RPM)
    assert str(path) in str(raised.value)


def test_anything_but_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="does not exist"):
        check_srpm(tmp_path / "gone.src.rpm", RPM)
    with pytest.raises(BadSource, match="not a regular file"):
        check_srpm(tmp_path, RPM)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s"))
        with pytest.raises(BadSource, match="not a regular file"):
            check_srpm(tmp_path / "s", RPM)


def test_a_file_that_is_too_large_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.src.rpm"
    with path.open("wb") as file:
        file.write(LEAD)
        file.truncate(SRPM_MAX_BYTES + 1)
    with pytest.raises(BadSource, match=f"at most {SRPM_MAX_BYTES}"):
        check_srpm(path, RPM)


@pytest.mark.parametrize("url", ["https://example.org/a.src.rpm", "http://127.0.0.1:1/a.src.rpm"])
def test_a_src_rpm_by_url_is_left_to_the_fetch_step(url: str, tmp_path: Path) -> None:
    assert store_srpm(check_srpm(url, RPM), DirectoryStore(tmp_path)) == Source(kind=SourceKind.SRPM, url=url)


@pytest.mark.parametrize("url", ["ftp://example.org/a", "https:///a", "https://x/\n", "gopher://x/y"])
def test_a_url_that_cannot_be_downloaded_is_refused(url: str) -> None:
    with pytest.raises(BadSource, match="--srpm"):
        check_srpm(url, RPM)


def test_a_local_src_rpm_goes_into_the_artifact_store(tmp_path: Path) -> None:
    path = tmp_path / "a-1-1.src.rpm"
    path.write_bytes(LEAD)
    link = tmp_path / "link.src.rpm"
    link.symlink_to(path)
    store = DirectoryStore(tmp_path / "store")
    for given, name in ((path, path.name), (path.as_uri(), path.name), (str(link), "link.src.rpm")):
        source = store_srpm(check_srpm(given, RPM), store)
        assert (source.kind, source.filename, source.url) == (SourceKind.SRPM, name, None)
        assert content_of(store, source.sha256 or "") == LEAD
    assert path.stat().st_nlink == 1


def test_a_file_name_that_does_not_print_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.src.rpm"
    path.write_bytes(LEAD)
    with pytest.raises(BadSource, match="rename the file") as raised:
        store_srpm(check_srpm(path, RPM), DirectoryStore(tmp_path / "store"))
    assert "\x1b" not in str(raised.value)


def test_sources_made_by_hand_are_checked_too() -> None:
    check_source(git_source("https://example.org/a", RPM, ref="v1", subdir="x", spec="a.spec"), RPM, None)
    check_source(Source(kind=SourceKind.SRPM, url="https://example.org/a.src.rpm"), RPM, None)
    check_source(Source(kind=SourceKind.SRPM, sha256="0" * 64, filename="a.src.rpm"), RPM, None)
    for bad in (
        Source(kind=SourceKind.GIT),
        Source(kind=SourceKind.GIT, url="ext::x"),
        Source(kind=SourceKind.GIT, url="https://example.org/a", ref="-x"),
        Source(kind=SourceKind.SRPM),
        Source(kind=SourceKind.SRPM, url="ftp://x/y"),
        Source(kind=SourceKind.SRPM, url="/etc/passwd"),
    ):
        with pytest.raises(BadSource):
            check_source(bad, RPM, os.geteuid())


@pytest.mark.parametrize(
    "source",
    [
        Source(kind=SourceKind.GIT, url="file:///no/such"),
        Source(kind=SourceKind.GIT, url="/no/such"),
        Source(kind=SourceKind.GIT, url="no-such"),
        Source(kind=SourceKind.SRPM, url="file:///no/such"),
        Source(kind=SourceKind.SRPM, url="/no/such"),
        Source(kind=SourceKind.SRPM, url="FILE:///no/such"),
        Source(kind=SourceKind.SRPM, url=" file:///no/such"),
        Source(kind=SourceKind.GIT, url="File:///no/such"),
    ],
    ids=lambda source: f"{source.kind} {source.url}",
)
def test_an_actor_without_a_user_here_learns_nothing_of_paths_on_this_machine(source: Source) -> None:
    with pytest.raises(BadSource, match="for its users alone"):
        check_source(source, RPM, None)


def test_a_request_of_an_actor_without_a_user_here_reads_no_local_file(tmp_path: Path) -> None:
    path = tmp_path / "a-1-1.src.rpm"
    path.write_bytes(LEAD)
    settings = Settings.from_env({})
    for given in (
        path,
        path.as_uri(),
        path.as_uri().replace("file", "FILE"),
        f" {path.as_uri()}",
        "/no/such",
        "no:such",
    ):
        with pytest.raises(BadSource, match="for its users alone"):
            make_request(settings, pytest.fail, uid=None, target="demo", srpm=given)
    for git in (tmp_path, tmp_path.as_uri(), "/no/such", "no-such"):
        with pytest.raises(BadSource, match="for its users alone"):
            make_request(settings, pytest.fail, uid=None, target="demo", git=git)
    check_source(git_source("user@example.org:a.git", RPM), RPM, None)


def test_only_root_asks_for_the_rights_of_another_user() -> None:
    source = Source(kind=SourceKind.GIT, url="file:///srv/a.git", reader_uid=1234)
    check_source(source, RPM, 0)
    check_source(source, RPM, 1234)
    with pytest.raises(BadSource, match="only root may ask for another user"):
        check_source(source, RPM, 1235)
    with pytest.raises(BadSource, match="only root may ask for another user"):
        check_source(replace(source, url="https://example.org/a.git"), RPM, None)


# --- options ----------------------------------------------------------------------------------------------------


def test_options_are_kept_in_order() -> None:
    options = make_options(RPM, with_=["a"], without=["b"], defines=[("zzz", "1 2"), ("dist", ".el9")], timeout_s=60)
    assert options.defines == (("zzz", "1 2"), ("dist", ".el9"))
    assert (options.with_, options.without, options.timeout_s) == (("a",), ("b",), 60)


@pytest.mark.parametrize("name", ["", "a b", "a-b", "%(id)", "a;b", "a\n", "é"])
def test_a_bad_name_of_a_condition_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="--with "):
        make_options(RPM, with_=[name])
    with pytest.raises(BadRequest, match="--without "):
        make_options(RPM, without=[name])


def test_a_condition_is_not_both_on_and_off() -> None:
    with pytest.raises(BadRequest, match="both --with and --without"):
        make_options(RPM, with_=["a", "tests"], without=["tests"])


@pytest.mark.parametrize(
    "text", ["", "dist", "dist ", "ab 1", "1ab x", "a-bc x", "foo() x", "%dist x", "dist a\nb", "dist \x1b"]
)
def test_a_bad_macro_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="--define"):
        parse_define(text)


def test_a_define_is_a_name_and_the_rest() -> None:
    assert parse_define(" dist  .el9 x ") == ("dist", ".el9 x")


@pytest.mark.parametrize("timeout_s", [0, -1, TIMEOUT_MAX_S + 1])
def test_a_limit_out_of_range_is_refused(timeout_s: int) -> None:
    with pytest.raises(BadRequest, match="--timeout"):
        make_options(RPM, timeout_s=timeout_s)


def test_a_priority_out_of_range_is_refused() -> None:
    check_priority(PRIORITY_MAX)
    for priority in (PRIORITY_MAX + 1, -PRIORITY_MAX - 1):
        with pytest.raises(BadRequest, match="--priority"):
            check_priority(priority)


def test_the_local_actor_is_named_by_the_setting_then_the_user(tmp_path: Path) -> None:
    unset = Settings.from_env({"FARM_DATA": str(tmp_path)})
    named = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_OWNER": "team"})
    assert local_actor(named) == Actor(name="team", roles=frozenset({Role.ADMIN}), uid=os.geteuid())
    assert local_actor(unset).name
    with pytest.raises(BadRequest, match="owner"):
        local_actor(replace(named, owner="a\x1b"))


def test_an_owner_has_a_short_printable_name() -> None:
    assert check_owner("ann") == "ann"
    for bad in ("", "a\x1b", "x" * 65):
        with pytest.raises(BadRequest, match="owner"):
            check_owner(bad)


def test_unknown_steps_and_arches_are_named_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="there are fetch, srpm, build, upload"):
        step_kind("compile")
    with pytest.raises(UnknownArch, match="there are x86_64, aarch64, ppc64le"):
        arch_named("arm64")
    assert (step_kind(None), arch_named(None)) == (None, None)


def test_a_text_is_no_list_of_conditions() -> None:
    with pytest.raises(BadRequest, match=r"--with takes a list of names, and 'tests' is a text; give \['tests'\]"):
        make_options(RPM, with_="tests")


def test_a_url_that_does_not_parse_is_no_source() -> None:
    with pytest.raises(BadSource, match="is not a URL: Invalid IPv6 URL"):
        check_srpm("https://me:secret@[::1/x.src.rpm", RPM)
