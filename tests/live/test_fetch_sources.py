"""Where specs and their sources come from: trees, layouts, lookasides, URLs, the tree itself, submodules, Git LFS."""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from farm.errors import LeaseLost, NetworkTrouble
from farm.formats.rpm.settings import Lookaside, LookasideForm
from farm.model.target import Limits
from tests.fetching import Answer, Desk, Server, put, repository, spec
from tests.packages import COMMIT_AT, commit_all, git, make_git
from workers.core.context import Ended

pytestmark = pytest.mark.live

_TARBALL = b"\x1f\x8b not really a tarball"
_SHA1, _SHA512 = hashlib.sha1(_TARBALL).hexdigest(), hashlib.sha512(_TARBALL).hexdigest()
_SOURCES = f"SHA512 (hello-1.0.tar.gz) = {_SHA512}\n".encode()
_ALMA = f"{_SHA1}  SOURCES/hello-1.0.tar.gz\n".encode()


# --- the spec --------------------------------------------------------------------------------------------------------


def test_no_spec_and_two_specs_say_how_to_choose(desk: Desk, tmp_path: Path) -> None:
    none = repository(tmp_path / "none", {"README": b"x"})
    assert desk.git_refusal(none).startswith("no spec in the tree or its SPECS at commit")
    two = make_git("two-specs", tmp_path)
    assert desk.git_refusal(two) == "2 specs in the tree: one.spec, two.spec; say which with `spec`, or `subdir`"
    assert desk.git(two, spec="two.spec").spec == "two.spec"
    assert "one.spec" not in desk.content(desk.git(two, spec="two.spec"))


@pytest.mark.parametrize("name", ["no-such.spec", "README", "../x.spec", "/etc/x.spec", "a/../../x.spec"])
def test_a_named_spec_must_be_one_in_the_tree(desk: Desk, tmp_path: Path, name: str) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "README": b"x"})
    assert desk.git_refusal(repo, spec=name).startswith("spec '")


@pytest.mark.parametrize("subdir", ["nope", "..", "/etc", "a/../..", "hello.spec"])
def test_a_subdir_must_be_a_folder_of_the_tree(desk: Desk, tmp_path: Path, subdir: str) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec()})
    assert desk.git_refusal(repo, subdir=subdir).startswith(f"subdir '{subdir}' is not ")


def test_a_subdir_has_the_package(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"a/hello.spec": spec(), "a/x.conf": b"x", "b/other.spec": spec(), "y": b"y"}
    repo = repository(tmp_path / "repo", files)
    assert sorted(desk.content(desk.git(repo, subdir="./a/"))) == ["hello.spec", "x.conf"]
    assert sorted(desk.content(desk.git(repo, spec="b/other.spec"))) == ["other.spec"]


def test_specs_and_sources_folders_are_brought_together(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"SPECS/hello.spec": spec(sources=("x.conf",)), "SOURCES/x.conf": b"x", "y": b"y"}
    found = desk.content(desk.git(repository(tmp_path / "repo", files)))
    assert sorted(found) == ["hello.spec", "x.conf"]


def test_a_spec_that_is_not_utf8_comes_through_unchanged(desk: Desk, tmp_path: Path) -> None:
    repo = make_git("non-utf8-spec", tmp_path)
    name = "non-utf8-spec.spec"
    assert desk.content(desk.git(repo))[name] == (repo / name).read_bytes()


# --- files that the tree has, and files that are nowhere -------------------------------------------------------------


def test_sources_named_with_a_folder_or_a_dot_are_taken(desk: Desk, tmp_path: Path) -> None:
    text = spec(sources=("files/x.conf", ".hellorc"))
    repo = repository(tmp_path / "repo", {"hello.spec": text, "files/x.conf": b"x", ".hellorc": b"y", ".fmf": b"z"})
    assert sorted(desk.content(desk.git(repo))) == [".hellorc", "hello.spec", "x.conf"]


def test_a_source_that_is_nowhere_is_named(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=("x.conf",))})
    assert desk.git_refusal(repo) == (
        "Source0 x.conf is not in the tree and is no URL; "
        "commit the file, list it in `sources`, or give its URL in the spec"
    )


@pytest.mark.parametrize("place", ["", "SOURCES/"])
def test_a_source_that_is_a_link_to_nothing_is_told_from_one_that_is_nowhere(
    desk: Desk, tmp_path: Path, place: str
) -> None:
    files: dict[str, bytes | str] = {"hello.spec": spec(sources=("x.conf",)), f"{place}x.conf": "y.conf"}
    assert desk.git_refusal(repository(tmp_path / "repo", files)) == (
        "Source0 x.conf is a symlink to 'y.conf', which is no file in the tree; commit that file"
    )


# --- lookasides ------------------------------------------------------------------------------------------------------


def test_the_fedora_form_comes_from_the_lookaside(desk: Desk, tmp_path: Path, server: Server) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=("hello-1.0.tar.gz",)), "sources": _SOURCES})
    desk.lookaside = Lookaside(form=LookasideForm.SOURCES, base_url=server.url("/pkgs"))
    path = f"/pkgs/hello/hello-1.0.tar.gz/sha512/{_SHA512}/hello-1.0.tar.gz"
    server.answers[path] = Answer(_TARBALL, headers=(("Content-Encoding", "gzip"),))
    first = desk.git(repo)
    assert desk.content(first)["hello-1.0.tar.gz"] == _TARBALL
    assert desk.git(repo).archive == first.archive
    assert server.seen == [path], "the second time it is in the cache"
    assert "in the cache" in desk.log


def test_the_lookaside_may_go_by_the_repositorys_name(desk: Desk, tmp_path: Path, server: Server) -> None:
    md5 = hashlib.md5(_TARBALL).hexdigest()
    files: dict[str, bytes | str] = {"hello.spec": spec(), "sources": f"{md5}  hello-1.0.tar.gz\n".encode()}
    repo = repository(tmp_path / "hello2.git", files)
    desk.lookaside = Lookaside(form=LookasideForm.SOURCES, base_url=server.url("/pkgs"))
    server.answers[f"/pkgs/hello2/hello-1.0.tar.gz/md5/{md5}/hello-1.0.tar.gz"] = Answer(_TARBALL)
    assert desk.content(desk.git(repo))["hello-1.0.tar.gz"] == _TARBALL


def test_the_almalinux_form_comes_from_the_lookaside(desk: Desk, tmp_path: Path, server: Server) -> None:
    files: dict[str, bytes | str] = {"SPECS/hello.spec": spec(sources=("hello-1.0.tar.gz",)), ".hello.metadata": _ALMA}
    repo = repository(tmp_path / "repo", files)
    desk.lookaside = Lookaside(form=LookasideForm.METADATA, base_url=server.url("/"))
    server.answers[f"/{_SHA1}"] = Answer(_TARBALL)
    assert desk.content(desk.git(repo))["hello-1.0.tar.gz"] == _TARBALL


def test_a_wrong_checksum_is_never_kept(desk: Desk, tmp_path: Path, server: Server) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), ".hello.metadata": _ALMA})
    desk.lookaside = Lookaside(form=LookasideForm.METADATA, base_url=server.url("/"))
    server.answers[f"/{_SHA1}"] = Answer(b"something else")
    assert f"but hello-1.0.tar.gz must have sha1 {_SHA1}" in desk.git_refusal(repo)
    assert [path for path in (desk.settings.cache / "downloads").rglob("*") if path.is_file()] == []


def test_a_file_in_the_tree_is_held_against_the_list(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"hello.spec": spec(), "sources": _SOURCES, "hello-1.0.tar.gz": _TARBALL}
    repo = repository(tmp_path / "repo", files)
    desk.git(repo)
    assert "checksum is right" in desk.log
    (repo / "hello-1.0.tar.gz").write_bytes(b"changed")
    commit_all(repo, "Change")
    assert "hello-1.0.tar.gz in the tree has sha512" in desk.git_refusal(repo)


def test_a_listed_file_without_any_address_says_so(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "sources": _SOURCES})
    assert "the target demo has no lookaside" in desk.git_refusal(repo)


def test_a_list_that_does_not_parse_names_the_line(desk: Desk, tmp_path: Path) -> None:
    half = b"\xff\xfe rubbish\n" + _SOURCES
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "sources": half})
    assert desk.git_refusal(repo).startswith("sources, line 1: ")


def test_an_upstream_file_with_the_name_of_a_list_is_a_file_unless_the_target_has_a_lookaside(
    desk: Desk, tmp_path: Path
) -> None:
    files: dict[str, bytes | str] = {"hello.spec": spec(), "sources": b"# what it is made of\nmain.c\nutil.c\n"}
    repo = repository(tmp_path / "repo", files)
    assert desk.content(desk.git(repo))["sources"] == files["sources"]
    assert "sources has no line of a list of sources" in desk.log
    desk.lookaside = Lookaside(base_url="http://127.0.0.1:9/", form=LookasideForm.SOURCES)
    assert desk.git_refusal(repo).startswith("sources, line 2: ")


# --- URLs ------------------------------------------------------------------------------------------------------------


def test_a_source_url_is_downloaded_and_its_checksum_noted(desk: Desk, tmp_path: Path, server: Server) -> None:
    url = server.url("/archive/abc?token=s3cret#/%{name}-%{version}.tar.gz", login="user:s3cret")
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(url,))})
    server.answers["/archive/abc"] = Answer(_TARBALL)
    assert desk.content(desk.git(repo))["hello-1.0.tar.gz"] == _TARBALL
    assert f"sha256 {hashlib.sha256(_TARBALL).hexdigest()}; no checksum recorded" in desk.log
    assert "s3cret" not in desk.log
    assert server.authorizations == ["Basic dXNlcjpzM2NyZXQ="]


def test_a_source_url_is_held_against_the_list(desk: Desk, tmp_path: Path, server: Server) -> None:
    text = spec(sources=(server.url("/hello-1.0.tar.gz"),))
    repo = repository(tmp_path / "repo", {"hello.spec": text, "sources": _SOURCES})
    server.answers["/hello-1.0.tar.gz"] = Answer(_TARBALL)
    desk.git(repo)
    assert "checksum is right" in desk.log


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refused_download_is_the_packages_fault(desk: Desk, tmp_path: Path, server: Server, status: int) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(server.url("/x.tar"),))})
    server.answers["/x.tar"] = Answer(status=status)
    assert f"/x.tar answered {status}" in desk.git_refusal(repo)


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=429), Answer(b"x" * 1000, cut=500)])
def test_a_failing_server_is_the_networks_fault(desk: Desk, tmp_path: Path, server: Server, answer: Answer) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(server.url("/x.tar"),))})
    server.answers["/x.tar"] = answer
    with pytest.raises(NetworkTrouble, match=r"/x\.tar"):
        desk.git(repo)
    assert not list((desk.settings.cache / "downloads").rglob("*.part"))


@pytest.mark.parametrize("to", ["/loop", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_end_and_stay_with_http(desk: Desk, tmp_path: Path, server: Server, to: str) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(server.url("/loop"),))})
    server.answers["/loop"] = Answer(status=302, headers=(("Location", to),))
    assert "/loop cannot be downloaded" in desk.git_refusal(repo)


def test_a_url_of_another_scheme_is_not_fetched(desk: Desk, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=("ftp://h.example/x.tar",))})
    assert "Source0 ftp://h.example/x.tar is at a URL that is neither http nor https" in desk.git_refusal(repo)


@pytest.mark.parametrize("size", [200_001, 150_000])
def test_downloads_are_limited_together(tmp_path: Path, server: Server, size: int) -> None:
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=200_000))
    urls = tuple(server.url(f"/{name}.tar") for name in "ab")
    server.answers |= {f"/{name}.tar": Answer(bytes(size)) for name in "ab"}
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=urls)})
    assert "larger than the step's disk limit of 200000 bytes allows" in desk.git_refusal(repo)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["stopped", "timed out"])
def test_a_server_that_never_answers_holds_nothing_up(tmp_path: Path, server: Server, how: str) -> None:
    asked, release = threading.Event(), threading.Event()
    desk = Desk(folder=tmp_path / "desk", wall_s=60 if how == "stopped" else 2)

    def hang(_: object) -> None:
        asked.set()
        if how == "stopped":
            desk.stop.set()
        release.wait(30)

    server.answers["/x.tar"] = hang
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(server.url("/x.tar"),))})
    try:
        with pytest.raises(LeaseLost if how == "stopped" else Ended):
            desk.git(repo)
        assert asked.is_set()
    finally:
        release.set()


# --- the tree as a tarball -------------------------------------------------------------------------------------------


def _unpacked(name: str, content: bytes) -> dict[str, tarfile.TarInfo]:
    plain = {".gz": gzip.decompress, ".xz": lzma.decompress, "bz2": bz2.decompress, "tar": bytes}[name[-3:]](content)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return {member.name: member for member in tar}


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "tar.bz2", "tar"])
def test_a_missing_tarball_is_made_of_the_whole_commit(tmp_path: Path, ending: str) -> None:
    name = f"hello-1.0.{ending}"
    files: dict[str, bytes | str] = {
        "packaging/hello.spec": spec(sources=("%{name}-%{version}." + ending,)),
        "src/main.c": b"int main;\n",
        "src/link": "../../anywhere",
        "configure": b"#!/bin/sh\n",
    }
    repo = repository(tmp_path / "repo", files)
    (repo / "configure").chmod(0o755)
    commit_all(repo, "Executable")
    first, second = (Desk(folder=tmp_path / desk) for desk in "ab")
    result = first.git(repo, subdir="packaging")
    assert second.git(f"file://{repo}", spec="packaging/hello.spec").archive == result.archive
    members = _unpacked(name, first.content(result)[name])
    assert list(members) == [
        f"hello-1.0/{path}" for path in ("configure", "packaging/hello.spec", "src/link", "src/main.c")
    ]
    assert members["hello-1.0/configure"].mode == 0o755
    assert members["hello-1.0/src/link"].linkname == "../../anywhere"
    assert {member.mtime for member in members.values()} == {int(COMMIT_AT.timestamp())}


def test_a_tarball_that_is_there_is_not_made(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"hello.spec": spec(sources=("hello-1.0.tar.gz",)), "hello-1.0.tar.gz": _TARBALL}
    assert desk.content(desk.git(repository(tmp_path / "repo", files)))["hello-1.0.tar.gz"] == _TARBALL


# --- names that no file can have -------------------------------------------------------------------------------------

_LONG = "é" * 128
_LONGEST = "é" * 127


def _with_long_name(folder: Path, name: str, **of_spec: tuple[str, ...]) -> Path:
    """Git's trees can hold what no file system does."""
    repo = repository(folder, {"hello.spec": spec(**of_spec)})
    blob = git(repo, "hash-object", "-w", "hello.spec")
    git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    git(repo, "commit", "--quiet", "--message=Long")
    return repo


def test_a_file_with_too_long_a_name_is_refused_only_where_the_spec_names_it(desk: Desk, tmp_path: Path) -> None:
    assert sorted(desk.content(desk.git(_with_long_name(tmp_path / "a", _LONG)))) == ["hello.spec"]
    assert "left out, its name is too long for a file" in desk.log
    named = _with_long_name(tmp_path / "b", f"x/{_LONG}", sources=(f"x/{_LONG}",))
    assert "is longer than a file's can be" in desk.git_refusal(named)
    assert _LONGEST in desk.content(desk.git(_with_long_name(tmp_path / "c", _LONGEST)))


def test_a_spec_with_as_long_a_name_as_there_is_can_be_kept(desk: Desk, tmp_path: Path) -> None:
    name = "a" * 245 + ".spec"
    fetched = desk.git(repository(tmp_path / "a", {name: spec()}))
    assert (fetched.spec, len(fetched.archive.name)) == (name, 200 + len("-0123456789ab.tar"))


def test_a_source_with_too_long_a_name_is_not_downloaded(desk: Desk, tmp_path: Path, server: Server) -> None:
    listed = f"SHA512 ({_LONG}) = {_SHA512}\n".encode()
    for number, files in enumerate(
        ({"hello.spec": spec(sources=(server.url(f"/{_LONG}"),))}, {"hello.spec": spec(), "sources": listed})
    ):
        assert "is longer than a file's can be" in desk.git_refusal(repository(tmp_path / f"{number}", dict(files)))
    assert server.seen == []


# --- submodules and LFS ----------------------------------------------------------------------------------------------


def _with_submodule(tmp_path: Path, url: str) -> Path:
    library = repository(tmp_path / "library", {"lib.c": b"int lib;\n"})
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=("hello-1.0.tar",))})
    put(repo, {".gitmodules": f'[submodule "x"]\n\tpath = vendor/lib\n\turl = {url}\n'.encode()})
    commit = git(library, "rev-parse", "HEAD")
    git(repo, "add", ".gitmodules")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/lib")
    git(repo, "commit", "--quiet", "--message=Submodule")
    return repo


def test_submodules_are_part_of_the_made_tarball(desk: Desk, tmp_path: Path) -> None:
    found = desk.content(desk.git(_with_submodule(tmp_path, "../library")))["hello-1.0.tar"]
    assert "hello-1.0/vendor/lib/lib.c" in _unpacked("hello-1.0.tar", found)


@pytest.mark.parametrize("url", ["ext::sh -c 'touch /tmp/no'", "-x", "file://elsewhere/x"])
def test_a_submodule_with_a_bad_url_is_refused(desk: Desk, tmp_path: Path, url: str) -> None:
    assert "is not a git URL that the farm fetches" in desk.git_refusal(_with_submodule(tmp_path, url))


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (b"[foo]\n\tpath = vendor/lib\n\turl = ../library\n", ".gitmodules has no url for the submodule"),
        (b"[submodule]\n\tpath = vendor/lib\n", ".gitmodules has no url for the submodule"),
        (b'[submodule "x"]\n\tpath\n\turl\n', ".gitmodules has no url for the submodule"),
        (b'[submodule "x"\n\tpath = vendor/lib\n', "git cannot read .gitmodules of"),
        (b'[submodule "%b"]\n' % (b"x" * 2000) + b"\ta\n" * 2000, "writes more than 1048576 bytes"),
    ],
    ids=["other-section", "no-name", "no-values", "does-not-parse", "says-too-much"],
)
def test_a_gitmodules_that_says_nothing_is_the_packages_fault(
    desk: Desk, tmp_path: Path, modules: bytes, words: str
) -> None:
    repo = _with_submodule(tmp_path, "../library")
    put(repo, {".gitmodules": modules})
    git(repo, "add", ".gitmodules")
    git(repo, "commit", "--quiet", "--message=Odd")
    assert words in desk.git_refusal(repo)


def test_a_submodule_of_a_remote_may_not_read_this_machine(desk: Desk, tmp_path: Path, server: Server) -> None:
    _with_submodule(tmp_path, str(tmp_path / "library"))
    server.repositories = tmp_path
    with pytest.raises(Ended, match="may not be a path on this machine"):
        desk.git(server.url("/git/repo"))


def test_a_package_inside_a_submodule_is_refused_with_words(desk: Desk, tmp_path: Path) -> None:
    why = desk.git_refusal(_with_submodule(tmp_path, "../library"), subdir="vendor/lib/x")
    assert "is in the submodule 'vendor/lib'; give the submodule's own URL instead" in why


def _with_lfs(tmp_path: Path) -> tuple[Path, str]:
    oid = hashlib.sha256(_TARBALL).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(_TARBALL)}\n".encode()
    files: dict[str, bytes | str] = {"hello.spec": spec(sources=("hello.tar",)), "hello.tar": pointer}
    return repository(tmp_path / "repo", files), oid


@pytest.mark.skipif(shutil.which("git-lfs") is not None, reason="git-lfs is installed")
def test_lfs_without_git_lfs_names_the_file(desk: Desk, tmp_path: Path) -> None:
    repo, _ = _with_lfs(tmp_path)
    assert desk.git_refusal(repo).startswith("hello.tar: kept in Git LFS, and this worker has no git-lfs")


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_lfs_files_come_whole_or_not_at_all(desk: Desk, tmp_path: Path) -> None:
    repo, oid = _with_lfs(tmp_path)
    assert desk.git_refusal(repo).endswith(f"does not have hello.tar ({oid})")
    put(repo / ".git/lfs/objects" / oid[:2] / oid[2:4], {oid: _TARBALL})
    assert desk.content(desk.git(repo))["hello.tar"] == _TARBALL
