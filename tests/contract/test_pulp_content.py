"""Uploads of files to a real Pulp: their requests, repeats and chunks, and hostile RPMs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.pulp.local import LocalPulp
from farm.errors import BadSource
from farm.repositories.base import RepositoryFile, RepositoryKind, RepositoryName, RepositoryPackage
from tests.pulp_watch import NAME, Place, packages, place, publisher_memory
from tests.rpms import make_rpm, sha256

CHUNK_BYTES = 2**20
LARGE_BYTES = 40 * 2**20
LOGS = RepositoryName(target="demo", kind=RepositoryKind.LOGS)
UPLOAD = "/packages/upload/"


@pytest.fixture(scope="module")
def farm(pulp: LocalPulp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(pulp, tmp_path_factory.mktemp("farm"), pulp_chunk_bytes=CHUNK_BYTES) as made:
        made.backend.add(NAME, packages(tmp_path_factory.mktemp("first"), "first"))
        yield made


def labelled(package: RepositoryPackage) -> RepositoryPackage:
    labels = {"build": "12", "arch": "x86_64", "attempt": "12.build.1", "batch": "3"}
    return RepositoryPackage(path=package.path, sha256=package.sha256, filename=package.filename, labels=labels)


def test_a_large_package_goes_up_in_chunks_and_never_lies_in_memory(farm: Place, tmp_path: Path) -> None:
    (given,) = [labelled(one) for one in packages(tmp_path, "large", payload_bytes=LARGE_BYTES)]
    uploads = farm.sql("SELECT count(*) FROM core_upload")
    farm.proxy.forget()
    grown_bytes = publisher_memory(farm.settings, packages(tmp_path, "small"), [given])
    chunks = farm.proxy.requests("PUT", "/uploads/")
    assert len(chunks) == LARGE_BYTES // CHUNK_BYTES + 1
    assert max(request.body_bytes for request in farm.proxy.requests()) < CHUNK_BYTES * 1.1
    assert grown_bytes < 8 * CHUNK_BYTES, "the file was held in memory"
    assert (given.filename, given.sha256) in farm.served()
    found = farm.sql(
        "SELECT pulp_labels::text FROM core_content c JOIN rpm_package p ON p.content_ptr_id = c.pulp_id "
        'WHERE p."pkgId" = %s',
        given.sha256,
    )
    assert '"build"=>"12"' in found[0]
    assert farm.sql("SELECT count(*) FROM core_upload") == uploads, "Pulp keeps the chunks beside the package"


@pytest.mark.parametrize("more_bytes", [-1, 0, 1])
def test_a_file_about_as_large_as_a_chunk_arrives_whole(farm: Place, tmp_path: Path, more_bytes: int) -> None:
    (plain,) = packages(tmp_path, "plain")
    size_bytes = CHUNK_BYTES + more_bytes - plain.path.stat().st_size
    (given,) = packages(
        tmp_path, f"edge{more_bytes + 1}x", payload_bytes=size_bytes, summary=plain.sha256[:16].encode()
    )
    assert given.path.stat().st_size - CHUNK_BYTES in range(more_bytes - 16, more_bytes + 17)
    farm.backend.add(NAME, [given])
    assert (given.filename, given.sha256) in farm.served()


def test_a_large_log_goes_up_in_chunks_with_its_labels(farm: Place, tmp_path: Path) -> None:
    uploads = farm.sql("SELECT count(*) FROM core_upload")
    path = tmp_path / "log"
    path.write_bytes(b"a line of it\n" * (3 * CHUNK_BYTES // 13))
    log = RepositoryFile(path=path, sha256=sha256(path), name="12/build.log", labels={"build": "12"})
    farm.proxy.forget()
    farm.backend.add_files(LOGS, [log])
    assert len(farm.proxy.requests("PUT", "/uploads/")) == 3
    assert farm.sql("SELECT count(*) FROM core_upload") == uploads


def test_a_package_that_pulp_has_is_not_sent_again(farm: Place, tmp_path: Path) -> None:
    given = packages(tmp_path, "once", 3)
    farm.proxy.forget()
    farm.backend.add(NAME, given)
    assert len(farm.proxy.requests("POST", UPLOAD)) == 3
    farm.proxy.forget()
    other = RepositoryName(target="other", kind=RepositoryKind.BINARY, arch=NAME.arch)
    farm.backend.add(other, given[:1])
    farm.backend.add(NAME, [*given, *packages(tmp_path, "new")])
    assert len(farm.proxy.requests("POST", UPLOAD)) == 1


def test_a_file_name_that_is_not_the_header_s_is_refused_before_anything_is_published(
    farm: Place, tmp_path: Path
) -> None:
    before, versions = farm.served(), farm.versions()
    (good,) = packages(tmp_path, "good")
    (evil,) = packages(tmp_path, "evil")
    other = tmp_path / "other-1-1.noarch.rpm"
    shutil.copy(evil.path, other)
    renamed = RepositoryPackage(path=other, sha256=evil.sha256, filename=other.name)
    for _ in range(2):  # the second time Pulp has it already
        with pytest.raises(BadSource, match="evil0-1-1"):
            farm.backend.add(NAME, [good, renamed])
    assert farm.served() == before
    assert farm.versions() == versions


HOSTILE = {
    "summary": [b"a\x1b[2J", b"a\x01", b"a\xff", b"<a>&]]>", b"a\nb"],
    "version": ["1\x1b[2J", "1\n2", "1 2", "<1>&"],
}


def test_control_characters_in_a_header_stay_out_of_metadata_and_messages(farm: Place, tmp_path: Path) -> None:
    for number, (field, value) in enumerate((field, value) for field, values in HOSTILE.items() for value in values):
        (folder := tmp_path / str(number)).mkdir()
        made = make_rpm(folder, f"hostile{number}", **{field: value})  # type: ignore[arg-type]
        package = RepositoryPackage(path=made, sha256=sha256(made), filename=f"hostile{number}-1-1.noarch.rpm")
        before = farm.served()
        try:
            farm.backend.add(NAME, [package])
        except BadSource as error:  # the package is to blame, not the farm
            said = str(error)
            assert said.isprintable()
            assert farm.served() == before
        else:
            assert field == "summary"
            assert sum(farm.served().values()) == sum(before.values()) + 1
