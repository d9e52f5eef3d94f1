"""Sources that are small to send and large to read: the worker's memory stays small, and the end is in words."""

import subprocess
import sys
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import pytest

from farm.model.outcome import Outcome
from farm.model.target import Limits
from tests.fetching import Answer, Desk, http_server, repository, spec
from tests.packages import git
from workers.core.context import Ended
from workers.sources.tree import Budget
from workers.steps import srpm

pytestmark = pytest.mark.live

_MEMORY_MAX_KIB = 400 * 1024
_CPU_MAX_S = 45  # of the fetch and of the processes that it waited for; a busy machine takes much longer
# The peak that getrusage tells includes that of the test process that it was forked from; VmHWM begins at the exec.
_FETCH = """
import sys, os, pathlib, tests.fetching as f
from workers.core.context import Ended
try:
    f.Desk(folder=pathlib.Path(sys.argv[1]), wall_s=float(sys.argv[3])).git(sys.argv[2])
    print("succeeded")
except Ended as ended:
    print(ended.outcome, ended.reason)
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0], sum(os.times()[:4]))
"""


def _fetched(tmp_path: Path, repo: Path, *, wall_s: float = 60) -> str:
    """The end of a fetch, in a process of its own, whose memory and processor time can be measured."""
    argv = [sys.executable, "-c", _FETCH, str(tmp_path / "desk"), str(repo), str(wall_s)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    words, used = done.stdout.strip().rsplit("\n", 1)
    peak_kib, cpu_s = used.split()
    assert int(peak_kib) < _MEMORY_MAX_KIB, words
    assert float(cpu_s) < _CPU_MAX_S
    return words


class _Bomb:
    """A repository that is made of objects, without a checkout."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        git(folder, "init", "--quiet", "--initial-branch=main")
        self.empty = self.made("hash-object", "-w", "--stdin", given=b"")

    def made(self, *args: str, given: bytes) -> str:
        done = subprocess.run(["git", "-C", self.folder, *args], input=given, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def tree(self, *lines: str) -> str:
        return self.made("mktree", given="".join(f"{line}\n" for line in lines).encode())

    def files(self, count: int) -> str:
        return self.tree(*(f"100644 blob {self.empty}\t{number:07}" for number in range(count)))

    def folders(self, inner: str, count: int) -> str:
        return self.tree(*(f"040000 tree {inner}\t{number:03}" for number in range(count)))

    def millions(self) -> str:
        return self.folders(self.folders(self.files(150), 150), 150)

    def done(self, spec_text: bytes, *lines: str) -> Path:
        blob = self.made("hash-object", "-w", "--stdin", given=spec_text)
        root = self.tree(f"100644 blob {blob}\thello.spec", *lines)
        commit = git(self.folder, "commit-tree", "-m", "x", root)
        git(self.folder, "update-ref", "refs/heads/main", commit)
        return self.folder


def test_a_tree_of_millions_beside_the_spec_is_not_looked_at(tmp_path: Path) -> None:
    bomb = _Bomb(tmp_path / "bomb")
    assert _fetched(tmp_path, bomb.done(spec(), f"040000 tree {bomb.millions()}\tx")) == "succeeded"


def test_a_tree_of_millions_below_the_sources_is_not_looked_at(tmp_path: Path) -> None:
    bomb = _Bomb(tmp_path / "bomb")
    many = [f"100644 blob {bomb.empty}\tf{number:04}" for number in range(900)]
    sources = bomb.tree(f"040000 tree {bomb.millions()}\tx", *many)
    assert _fetched(tmp_path, bomb.done(spec(), f"040000 tree {sources}\tSOURCES")) == "succeeded"


def test_a_tarball_of_a_tree_of_millions_is_refused(tmp_path: Path) -> None:
    bomb = _Bomb(tmp_path / "bomb")
    repo = bomb.done(spec(sources=("hello-1.0.tar",)), f"040000 tree {bomb.millions()}\tx")
    words = _fetched(tmp_path, repo)
    assert words.startswith("failed git ls-tree of ")
    assert "no package needs so many" in words


def test_a_folder_of_very_many_files_is_refused(tmp_path: Path) -> None:
    bomb = _Bomb(tmp_path / "bomb")
    assert "no package needs so many" in _fetched(
        tmp_path, bomb.done(spec(), f"040000 tree {bomb.files(200_000)}\tSOURCES")
    )


def test_a_tree_that_is_very_deep_is_refused(tmp_path: Path) -> None:
    bomb = _Bomb(tmp_path / "bomb")
    inner = bomb.files(1)
    for _ in range(300):
        inner = bomb.tree(f"040000 tree {inner}\td")
    path = "d/" * 300
    repo = bomb.done(spec(sources=(f"{path}0000000",)), f"040000 tree {inner}\td")
    assert "more than 64 folders deep" in _fetched(tmp_path, repo)


def test_very_many_submodules_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget.__init__, "__defaults__", (200_000, 5_000, 3))
    monkeypatch.setattr(Budget, "submodules", 3)
    library = repository(tmp_path / "library", {"a": b"a"})
    commit = git(library, "rev-parse", "HEAD")
    repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=("hello-1.0.tar",))})
    (repo / ".gitmodules").write_text(
        "".join(f'[submodule "{n}"]\n\tpath = m{n}\n\turl = {library}\n' for n in range(5))
    )
    for number in range(5):
        git(repo, "update-index", "--add", "--cacheinfo", f"160000,{commit},m{number}")
    git(repo, "add", ".gitmodules")
    git(repo, "commit", "--quiet", "--message=Submodules")
    with pytest.raises(Ended, match="more than 3 submodules to look at") as ended:
        Desk(folder=tmp_path / "desk").git(repo)
    assert ended.value.outcome is Outcome.OVER_LIMIT


def test_a_list_of_very_many_sources_is_refused(tmp_path: Path) -> None:
    lines = b"".join(b"%032x  f%x\n" % (number, number) for number in range(60_000))
    words = _fetched(tmp_path, repository(tmp_path / "repo", {"hello.spec": spec(), "sources": lines}))
    assert words == "over_limit sources has more than 20000 lines; no package has so many sources"


def test_the_body_of_a_redirect_is_not_read(tmp_path: Path) -> None:
    """It may never end."""
    sent = 0

    def redirect(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(302)
        request.send_header("Location", "/other.tar")
        request.end_headers()
        with suppress(OSError):
            while sent < 2**30:
                sent += request.wfile.write(bytes(2**20))

    with http_server() as server:
        server.answers |= {"/x.tar": redirect, "/other.tar": Answer(b"x")}
        repo = repository(tmp_path / "repo", {"hello.spec": spec(sources=(server.url("/x.tar"),))})
        Desk(folder=tmp_path / "desk").git(repo)
    assert sent < 64 * 2**20, "more than the sockets hold"


@pytest.mark.parametrize(
    "text",
    [
        b"\n" * 4_000_000,
        b"".join(b"%%global a%06d x\n" % number for number in range(100_000)),
        b"%global a " + b"x" * 8000 + b"\n" + b"Source: %a\n" * 60_000,
        b"%global aa %aa%aa\n" * 400_000,
        b"Source: " + b"%a" * 4_000_000,
    ],
    ids=["lines", "macros", "sources", "doubling", "long"],
)
def test_a_large_spec_is_read_in_little_memory(tmp_path: Path, text: bytes) -> None:
    _fetched(tmp_path, repository(tmp_path / "repo", {"hello.spec": spec() + text}))


def test_a_spec_that_rpm_reads_for_hours_ends_with_the_step_in_little_memory(tmp_path: Path) -> None:
    """The time that rpm takes for a continued line grows with the square of its length."""
    repo = repository(tmp_path / "repo", {"hello.spec": spec() + b"\\\n" * 1_000_000})
    assert _fetched(tmp_path, repo, wall_s=10).startswith("timed_out reading the spec did not end ")


def test_git_runs_within_the_steps_memory(tmp_path: Path) -> None:
    """One file that a delta or a compressor makes large: git holds it in memory."""
    repo = repository(tmp_path / "repo", {"hello.spec": spec(), "zeros.tar": bytes(200 * 2**20)})
    with http_server() as server:
        server.repositories = tmp_path
        desk = Desk(folder=tmp_path / "desk", limits=Limits(memory_bytes=48 * 2**20))
        with pytest.raises(Ended) as ended:
            desk.git(server.url("/git/repo"))
    assert repo.exists()
    assert ended.value.outcome in (Outcome.OVER_LIMIT, Outcome.FAILED)


# --- the archive that the srpm step unpacks ---------------------------------------------------------------------------


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path


def _unpack(tmp_path: Path, archive: Path, limit_bytes: int = 2**30) -> Ended:
    with pytest.raises(Ended) as ended:
        srpm._unpack(archive, tmp_path / "out", threading.Event(), limit_bytes)
    return ended.value


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_with_a_header_of_megabytes_is_refused(tmp_path: Path, form: int) -> None:
    archive = _tar(tmp_path / "a.tar", (tarfile.TarInfo("x" * 3_000_000), b""), form=form)
    ended = _unpack(tmp_path, archive)
    assert ended.outcome is Outcome.OVER_LIMIT
    assert "a header in the archive has" in ended.reason


def test_an_archive_that_is_larger_than_the_disk_limit_is_refused(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", (tarfile.TarInfo("a"), bytes(2000)), (tarfile.TarInfo("b"), bytes(2000)))
    assert _unpack(tmp_path, archive, 3000).outcome is Outcome.OVER_LIMIT
