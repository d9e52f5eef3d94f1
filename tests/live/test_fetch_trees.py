"""What a tree may hold besides the sources that a spec names, how people call a commit, and clones that lack files."""

import hashlib
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from tests.fetching import Desk, repository, spec
from tests.packages import commit_all, git, make_git

pytestmark = pytest.mark.live

_TREE = "hello-1.0.tar"


def _members(desk: Desk, folder: Path, **where: str) -> dict[str, bytes]:
    """The files of the tarball of the tree."""
    content = desk.content(desk.git(folder, **where))[_TREE]
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        found = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name.partition("/")[2]: stream.read() for name, stream in found.items() if stream}


# --- Git LFS ---------------------------------------------------------------------------------------------------------


def test_lfs_objects_are_asked_for_by_id_whatever_their_files_are_called(desk: Desk, tmp_path: Path) -> None:
    names = ["icon@2x.png", "my icon.png", "a,b.png", "[x]*?!.png", "-o", "ü\n.png", "\\back", "#1", "same"]
    contents = {f"img/{name}": f"{number % 8}".encode() * 3000 for number, name in enumerate(names)}
    files: dict[str, bytes | str] = {
        "hello.spec": spec(sources=(_TREE,)),
        ".lfsconfig": b"[lfs]\n\tfetchexclude = *\n",
        **{name: _pointer(content) for name, content in contents.items()},
    }
    folder = repository(tmp_path / "repo", files)
    for content in contents.values():
        oid = hashlib.sha256(content).hexdigest()
        path = folder / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = _members(desk, folder)
    assert {name: found[name] for name in contents} == contents


def _pointer(content: bytes) -> bytes:
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


# --- very many files -------------------------------------------------------------------------------------------------


def test_very_many_files_are_read_from_git_in_one_pass(desk: Desk, tmp_path: Path) -> None:
    """git compares each path that a command names with each entry of the tree."""
    names = [f"part {number:04}.txt" for number in range(2500)]
    files: dict[str, bytes | str] = {name: name.encode() for name in names}
    named = {"hello.spec": spec(sources=("all.sh", "link.txt")), "all.sh": b"all", "link.txt": names[7]}
    folder = repository(tmp_path / "repo", {**files, **named})
    content = desk.content(desk.git(folder))
    assert {name: content[name] for name in names} == {name: name.encode() for name in names}
    assert content["link.txt"] == names[7].encode()
    assert content["all.sh"] == b"all"
    assert desk.log.count("$ git archive") == 1


# --- export-subst ----------------------------------------------------------------------------------------------------

_ARCHIVAL = b"node: $Format:%H$\nref-names: $Format:%D$\ndescribe-name: $Format:%(describe:tags=true)$\n"


def test_the_tarball_of_the_tree_has_what_git_archive_fills_in(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "hello.spec": spec(sources=(_TREE,)),
        ".gitattributes": b".git_archival.txt export-subst\ndocs/ export-ignore\n* text eol=crlf ident filter=evil\n",
        ".git_archival.txt": _ARCHIVAL,
        "docs/big.txt": b"$Format:%H$ $Id$\n",
        "lib/.gitattributes": b"version export-subst\n",
        "lib/version": b"$Format:%h %an$",
    }
    folder = repository(tmp_path / "repo", files)
    commit = git(folder, "rev-parse", "HEAD")
    git(folder, "tag", "v1.0")
    git(folder, "tag", "--annotate", "--message=x", "v1.1")
    by_branch, by_commit = _members(desk, folder), _members(desk, folder, ref=commit)
    assert by_branch[".git_archival.txt"].decode().split("\n")[0] == f"node: {commit}"
    assert by_commit[".git_archival.txt"] == f"node: {commit}\nref-names: \ndescribe-name: \n".encode()
    for tag in ("v1.0", "v1.1"):
        said = f"node: {commit}\nref-names: tag: {tag}\ndescribe-name: {tag}\n"
        assert _members(desk, folder, ref=tag)[".git_archival.txt"].decode() == said
    assert by_commit["lib/version"].decode() == f"{commit[:7]} A Maintainer"
    assert by_commit["docs/big.txt"] == files["docs/big.txt"]
    main = _members(desk, folder, ref="main")[".git_archival.txt"].decode()
    assert "ref-names: HEAD -> main\n" in main


def test_files_beside_the_spec_are_filled_in_too(desk: Desk, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "pkg/hello.spec": spec(),
        "pkg/stamp": b"$Format:%H$",
        "pkg/other": b"$Format:%H$",
        ".gitattributes": b"stamp export-subst\n",
    }
    result = desk.git(repository(tmp_path / "repo", files), subdir="pkg")
    found = desk.content(result)
    assert found["stamp"].decode() == result.commit
    assert found["other"] == b"$Format:%H$"


def test_what_git_fills_in_runs_nothing(desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    program = tmp_path / "gpg"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    files: dict[str, bytes | str] = {
        "hello.spec": spec(),
        ".gitattributes": b"* export-subst diff=evil filter=evil\n",
        "stamp": b"$Format:%G?%GS%(trailers)$ $Format:%(describe)$$Format:%(describe)$\n",
    }
    folder = repository(tmp_path / "repo", files)
    for key in ("gpg.program", "gpg.ssh.program", "filter.evil.smudge", "diff.evil.textconv"):
        git(folder, "config", key, str(program))
    git(folder, "commit", "--quiet", "--amend", "--no-gpg-sign", "--message=x\n\ngpgsig: no")
    assert desk.content(desk.git(folder))["stamp"].startswith(b"N")
    assert not mark.exists()


# --- names of commits ------------------------------------------------------------------------------------------------


def test_people_may_call_a_branch_or_tag_as_they_do_in_a_clone(desk: Desk, tmp_path: Path) -> None:
    folder = make_git("hello-c", tmp_path)
    first = git(folder, "rev-parse", "HEAD")
    git(folder, "tag", "v1")
    git(folder, "switch", "--quiet", "--create", "feature/x")
    (folder / "hello.c").write_text("\n")
    second = commit_all(folder, "Change")
    named = {
        **dict.fromkeys(["tags/v1", "refs/tags/v1", "main", "heads/main", "refs/heads/main", "origin/main"], first),
        **dict.fromkeys(["remotes/origin/main", "refs/remotes/origin/main", first[:4], first[:20]], first),
        **dict.fromkeys(["feature/x", "heads/feature/x", "origin/feature/x", second[:10]], second),
    }
    assert {ref: desk.git(folder, ref=ref).commit for ref in named} == named


def test_a_clones_own_remote_branch_is_taken_before_a_branch_of_that_name(desk: Desk, tmp_path: Path) -> None:
    upstream = make_git("hello-c", tmp_path)
    git(tmp_path, "clone", "--quiet", str(upstream), "clone")
    remote = git(upstream, "rev-parse", "HEAD")
    (tmp_path / "clone/hello.c").write_text("\n")
    own = commit_all(tmp_path / "clone", "Not pushed")
    assert desk.git(tmp_path / "clone", ref="origin/main").commit == remote != own


def test_a_name_that_does_not_exist_gets_near_ones(desk: Desk, tmp_path: Path) -> None:
    folder = make_git("hello-c", tmp_path)
    for tag in ("v1.0", "v1.1", "hello-2.0"):
        git(folder, "tag", tag)
    known = "known branches are main; known tags are hello-2.0, v1.0, v1.1"
    for ref, near in {"1.0": "'v1.0'", "upstream/main": "'main'", "mian": "'main'", "V1.1": "'v1.1'"}.items():
        why = desk.git_refusal(folder, ref=ref)
        assert f"did you mean {near}" in why
        assert why.endswith(known)
    assert "did you mean" not in desk.git_refusal(folder, ref="nothing-alike")


def test_the_beginning_of_several_ids_is_not_one(desk: Desk, tmp_path: Path) -> None:
    """Of 200 commits some two share their first four digits, as is likely from 250 objects on."""
    folder = make_git("hello-c", tmp_path)
    ids = [git(folder, "rev-parse", "HEAD")]
    while len({one[:4] for one in ids}) == len(ids):
        message = f"Commit {len(ids)}"
        git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
        ids.append(git(folder, "rev-parse", "HEAD"))
    shared = next(one[:4] for one in ids if sum(other[:4] == one[:4] for other in ids) > 1)
    assert "is the beginning of 2 ids" in desk.git_refusal(folder, ref=shared)


# --- clones that lack files ------------------------------------------------------------------------------------------


def test_a_partial_clone_is_told_what_it_lacks_at_once(desk: Desk, tmp_path: Path) -> None:
    origin = make_git("hello-c", tmp_path / "origin")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{origin}", "clone")
    before = time.process_time()
    why = desk.git_refusal(tmp_path / "clone")
    assert "is a partial clone" in why
    assert "git fetch --refetch --no-filter" in why
    assert time.process_time() - before < 5
    git(tmp_path / "clone", "fetch", "--quiet", "--refetch", "--no-filter")
    assert desk.git(tmp_path / "clone").commit == git(origin, "rev-parse", "HEAD")
