"""A src.rpm from the store or by URL: rpmbuild's is accepted unchanged, any other file is refused with its fault."""

import subprocess
import time
from pathlib import Path

import pytest

from farm.model.artifact import ArtifactKind
from farm.model.source import Source, SourceKind
from farm.model.target import Limits
from tests.artifacts import content_of
from tests.fetching import Answer, Desk, http_server
from tests.packages import make_srpm, package_dir

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def srpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_srpm("hello-noarch", tmp_path_factory.mktemp("srpm"))


@pytest.fixture(scope="module")
def rpm(srpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary package of the same recipe."""
    top = tmp_path_factory.mktemp("rpm")
    folder = package_dir("hello-noarch")
    macros = {"_topdir": top, "_dbpath": top / "db", "_sourcedir": folder}
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    command = ["rpmbuild", "-bb", "--nodeps", *defines, str(folder / "hello-noarch.spec")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (made,) = top.glob("RPMS/noarch/hello-noarch-1*.rpm")
    return made


def _stored(desk: Desk, content: bytes, filename: str = "x.src.rpm") -> Source:
    path = desk.folder / "upload"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    artifact = desk.store.put(path, name="upload", kind=ArtifactKind.SRPM, move=True)
    return Source(kind=SourceKind.SRPM, sha256=artifact.sha256, filename=filename)


def test_a_stored_src_rpm_is_its_own_result(desk: Desk, srpm: Path) -> None:
    source = _stored(desk, srpm.read_bytes())
    result = desk.fetch(source)
    assert (result.archive.sha256, result.archive.name) == (source.sha256, srpm.name)
    assert result.archive.identity == "hello-noarch-1.0-1.src"
    assert result.spec is result.commit is None
    assert "verified: header sha256, header sha1, payload sha256" in desk.log


def test_a_stored_src_rpm_costs_next_to_nothing(desk: Desk, srpm: Path) -> None:
    source = _stored(desk, srpm.read_bytes())
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        desk.fetch(source)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.030


def test_a_src_rpm_comes_by_url(desk: Desk, srpm: Path) -> None:
    with http_server() as server:
        server.answers["/a/x.src.rpm"] = Answer(srpm.read_bytes())
        server.answers["/old"] = Answer(status=301, headers=(("Location", "/a/x.src.rpm"),))
        for path in ("/a/x.src.rpm", "/old?token=s3cret"):
            result = desk.fetch(Source(kind=SourceKind.SRPM, url=server.url(path, login="u:s3cret")))
            assert content_of(desk.store, result.archive.sha256) == srpm.read_bytes()
            assert "s3cret" not in desk.log
        why = desk.refusal(Source(kind=SourceKind.SRPM, url=server.url("/nope", login="u:s3cret")))
        assert why.endswith("/nope answered 404 Not Found")
        assert "s3cret" not in why


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "ftp://h.example/x.src.rpm", "", "http://"])
def test_a_src_rpm_by_any_other_url_is_refused(desk: Desk, url: str) -> None:
    assert "is not an http or https URL" in desk.refusal(Source(kind=SourceKind.SRPM, url=url))


def test_a_truncated_src_rpm_says_how_much_is_missing(desk: Desk, srpm: Path) -> None:
    content = srpm.read_bytes()
    assert desk.refusal(_stored(desk, content[:-100])) == (
        f"x.src.rpm is truncated: it has {len(content) - 100} bytes, its header says {len(content)}"
    )


def test_a_binary_rpm_is_called_one(desk: Desk, rpm: Path) -> None:
    assert desk.refusal(_stored(desk, rpm.read_bytes(), rpm.name)).startswith(f"{rpm.name} is a binary RPM")


def test_a_file_that_is_not_an_rpm_is_named_safely(desk: Desk) -> None:
    assert desk.refusal(_stored(desk, b"hello", "a\x1b[2J\n.src.rpm")) == "a\\x1b[2J\\n.src.rpm is not an RPM package"
    with http_server() as server:
        server.answers["/x.src.rpm"] = Answer(b"<html>not found, says a helpful server</html>")
        assert "is not an RPM package" in desk.refusal(Source(kind=SourceKind.SRPM, url=server.url("/x.src.rpm")))


def test_a_damaged_src_rpm_is_seen(desk: Desk, srpm: Path) -> None:
    content = bytearray(srpm.read_bytes())
    content[-10] ^= 0xFF
    assert "is damaged or truncated: its payload's sha256" in desk.refusal(_stored(desk, bytes(content)))


def test_an_artifact_that_was_not_stored_is_requested(desk: Desk) -> None:
    for sha256 in ("0" * 64, "../../etc/passwd"):
        source = Source(kind=SourceKind.SRPM, sha256=sha256, filename="x.src.rpm")
        assert "x.src.rpm is not in the artifact store" in desk.refusal(source)


def test_a_src_rpm_above_the_limit_is_refused(tmp_path: Path, srpm: Path) -> None:
    desk = Desk(folder=tmp_path / "desk", limits=Limits(disk_bytes=1000))
    assert "disk limit of 1000 bytes" in desk.refusal(_stored(desk, srpm.read_bytes()))
    with http_server() as server:
        server.answers["/x.src.rpm"] = Answer(srpm.read_bytes())
        assert "disk limit of 1000 bytes" in desk.refusal(Source(kind=SourceKind.SRPM, url=server.url("/x.src.rpm")))
