"""rpm tells the sources of a spec: macros, branches, includes, lists, arches, and rpm's own words where it fails."""

import codecs
import re
from dataclasses import replace
from pathlib import Path

import pytest

from farm.errors import NetworkTrouble
from farm.model.arch import Arch
from farm.model.build import BuildOptions
from tests.fetching import Answer, Desk, Server, repository
from workers.core.context import Ended

pytestmark = pytest.mark.live


@pytest.fixture
def server(server: Server) -> Server:
    for name in ("a-1.tar", "b-1.tar", "get", "more.inc", "last.inc", "version"):
        server.answers[f"/{name}"] = Answer(name.encode())
    return server


def _spec(tags: str, tail: str = "", *, head: str = "") -> bytes:
    about = "Name: a\nVersion: 1\nRelease: 1\nSummary: s\nLicense: MIT\n"
    return f"{head}\n{about}{tags}\n%description\nd\n{tail}".encode()


def _fetch(desk: Desk, tmp_path: Path, text: bytes, **files: bytes) -> set[str]:
    """The files beside the spec."""
    tree = {"a.spec": text, **{name.replace("__", "."): content for name, content in files.items()}}
    return set(desk.content(desk.git(repository(tmp_path / "repo", dict(tree))))) - {"a.spec"}


def _why(desk: Desk, tmp_path: Path, text: bytes) -> str:
    return desk.git_refusal(repository(tmp_path / "repo", {"a.spec": text}))


@pytest.mark.parametrize(
    ("head", "tags", "tail", "name"),
    [
        ("", "Source0: {at}/%{{name}}-%{{version}}%{{?prever}}.tar", "", "a-1.tar"),
        ("", "Source0: {at}/a-1%{{?rc:-rc%{{rc}}}}.tar", "", "a-1.tar"),
        ("%global v %(echo 1)", "Source: {at}/a-%{{v}}.tar", "", "a-1.tar"),
        ("", '%{{lua:print("Source7: {at}/a-1.tar\\n")}}', "", "a-1.tar"),
        ("%if 0\n%global v 2\n%else\n%global v 1\n%endif", "Source0: {at}/a-%{{v}}.tar", "", "a-1.tar"),
        ("%{{!?v:%global v 1}}", "Patch3: {at}/a-%{{v}}.tar", "", "a-1.tar"),
        ("%global urls %{{expand:\nSource0: {at}/a-1.tar\n}}", "%urls", "", "a-1.tar"),
        ("", "Source0: {at}/get?file=thing-1.tar.gz", "", "thing-1.tar.gz"),
        ("", "Source0: {at}/get#/other-1.tar", "", "other-1.tar"),
        ("", "BuildArch: noarch", "%sourcelist\n{at}/a-1.tar\n", "a-1.tar"),
        ("", "", "%{{!?plain:\n%patchlist\n{at}/a-1.tar\n}}\n", "a-1.tar"),
    ],
    ids=["undefined", "block", "shell", "lua", "branch", "unless", "lines", "equals", "named", "list", "around"],
)
def test_rpm_expands_the_spec(
    desk: Desk, tmp_path: Path, server: Server, head: str, tags: str, tail: str, name: str
) -> None:
    head, tags, tail = (text.format(at=server.url("")) for text in (head, tags, tail))
    assert _fetch(desk, tmp_path, _spec(tags, tail, head=head)) == {name}


def test_text_and_branches_that_are_not_taken_name_nothing(desk: Desk, tmp_path: Path, server: Server) -> None:
    url = server.url("/b-1.tar")
    tags = f"%bcond_with snapshot\n%if %{{with snapshot}}\nSource0: {url}\n%else\nSource0: x.txt\n%endif"
    assert _fetch(desk, tmp_path, _spec(tags, f"Source1: {url}\n"), x__txt=b"") == {"x.txt"}
    assert server.seen == []
    asked = replace(desk, options=BuildOptions(with_=("snapshot",)))
    assert _fetch(asked, tmp_path / "with", _spec(tags)) == {"b-1.tar"}


def test_a_file_of_the_tree_is_not_downloaded(desk: Desk, tmp_path: Path, server: Server) -> None:
    assert _fetch(desk, tmp_path, _spec(f"Source0: {server.url('/a-1.tar')}"), **{"a-1__tar": b"own"}) == {"a-1.tar"}
    assert server.seen == []


def test_an_included_file_names_sources(desk: Desk, tmp_path: Path, server: Server) -> None:
    text = _spec("Source9: more.inc\n%include %{SOURCE9}")
    found = _fetch(desk, tmp_path, text, more__inc=f"Source0: {server.url('/a-1.tar')}\n".encode())
    assert found == {"more.inc", "a-1.tar"}


def test_included_files_are_downloaded_in_rounds(desk: Desk, tmp_path: Path, server: Server) -> None:
    server.answers["/more.inc"] = Answer(f"Source2: {server.url('/last.inc')}\n%include %{{SOURCE2}}\n".encode())
    server.answers["/last.inc"] = Answer(f"Source3: {server.url('/b-1.tar')}\n".encode())
    text = _spec(f"Source1: {server.url('/more.inc')}\n%include %{{SOURCE1}}")
    assert _fetch(desk, tmp_path, text) == {"more.inc", "last.inc", "b-1.tar"}
    assert server.seen == ["/more.inc", "/last.inc", "/b-1.tar"]


def test_a_spec_may_read_a_downloaded_source(desk: Desk, tmp_path: Path, server: Server) -> None:
    server.answers["/version"] = Answer(b"1\n")
    text = _spec(f"Source0: {server.url('/version')}\nSource1: {server.url('')}/a-%(cat %{{SOURCE0}} || echo 0).tar")
    server.answers["/a-0.tar"] = Answer(b"before")
    assert _fetch(desk, tmp_path, text) >= {"version", "a-1.tar"}


def test_every_arch_of_the_build_is_asked_for(desk: Desk, tmp_path: Path, server: Server) -> None:
    text = _spec(f"Source0: x\n%ifarch aarch64\nSource1: {server.url('/a-1.tar')}\n%endif")
    assert _fetch(desk, tmp_path, text, x=b"") == {"x"}
    both = replace(desk, arches=(Arch.X86_64, Arch.AARCH64))
    assert _fetch(both, tmp_path / "both", text, x=b"") == {"x", "a-1.tar"}
    assert "Source1 is named for aarch64 alone" in both.log


def test_a_spec_that_is_not_for_another_arch_is_asked_for_its_own(desk: Desk, tmp_path: Path) -> None:
    text = _spec("Source0: x\n%ifarch aarch64\n%{error:not here}\n%endif")
    both = replace(desk, arches=(Arch.X86_64, Arch.AARCH64))
    assert _fetch(both, tmp_path, text, x=b"") == {"x"}


def test_withheld_sources_are_refused_in_words(desk: Desk, tmp_path: Path) -> None:
    why = _why(desk, tmp_path, _spec("Source0: x\nSource1: y.bin\nNoSource: 1"))
    assert why.startswith("the spec withholds Source1 (NoSource, NoPatch), which makes a nosrc.rpm")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ("Nonsense: x", "line 7: Unknown tag: Nonsense: x"),
        ("Source0: a\nSource0: b", "Source0 defined multiple times|source 0 defined multiple times"),
        ("%include %{_sourcedir}/no.inc", "Unable to open /builddir/in/no.inc: No such file.*; commit no.inc, or give"),
        ("%if 1", "Unclosed %if"),
        ("Source0: http://127.0.0.1/x/", r"Source0 http://127.0.0.1/x/ does not end with a name"),
        ("Source0: ftp://127.0.0.1/x", r"Source0 ftp://127.0.0.1/x is at a URL that is neither http nor https"),
    ],
    ids=["tag", "twice", "include", "if", "slash", "scheme"],
)
def test_rpms_own_message_is_the_reason(desk: Desk, tmp_path: Path, tags: str, words: str) -> None:
    with pytest.raises(Ended, match=words):
        _fetch(desk, tmp_path, _spec(tags))


def test_bytes_that_a_spec_should_not_have_are_named_in_rpms_message(desk: Desk, tmp_path: Path) -> None:
    latin_1 = _spec("", "%changelog\n* Mon Jan 05 2026 Jos@ <a@b> - 1-1\n- x\n").replace(b"@ <", b"\xe9 <")
    assert r"invalid utf-8 encoding in Changelogname: Jos\xe9 <a@b>" in _why(desk, tmp_path / "1", latin_1)
    marked = _why(desk, tmp_path / "2", codecs.BOM_UTF8 + _spec("").lstrip())
    assert marked.endswith("Unknown tag: \\ufeffName: a (a byte order mark; save the file without one)")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("%(git describe --tags)", r"the spec calls git, .*Empty tag: Version: \(sh: .*git: command not found\)\)$"),
        ("%(git rev-parse HEAD 2>/dev/null)", r"the spec calls git, .*\(line 3: Empty tag: Version:\)$"),
        ("%(cat no-such-file)", r"^line 3: Empty tag: Version: \(cat: no-such-file: No such file or directory\)$"),
    ],
    ids=["git", "quiet-git", "cat"],
)
def test_an_empty_version_is_explained_by_the_program_that_failed(
    desk: Desk, tmp_path: Path, version: str, words: str
) -> None:
    assert re.search(words, _why(desk, tmp_path, _spec("").replace(b"Version: 1", f"Version: {version}".encode())))


def test_a_dead_host_is_named_only_where_it_is_needed(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NetworkTrouble, match=r"http://127\.0\.0\.1:9/x\.tar"):
        _fetch(desk, tmp_path, _spec("Source0: http://127.0.0.1:9/x.tar"))
    assert _fetch(desk, tmp_path / "not", _spec("%if 0\nSource0: http://127.0.0.1:9/x.tar\n%endif")) == set()
