"""The upload step brings each package to the repositories it belongs in, and to no other."""

import gzip
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import GIVEN, BadSource, LeaseLost, NotFound, RepositoryTrouble
from farm.formats.rpm.format import RpmFormat
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.outcome import Outcome
from farm.model.target import Limits, RepositorySource, Target
from farm.model.work import LogFile, Work
from farm.repositories import (
    RepositoryFile,
    RepositoryKind,
    RepositoryName,
    RepositoryPackage,
    open_repositories,
)
from farm.repositories.room import metadata_bytes
from farm.steps.logs import LogsInput, LogsResult
from farm.steps.upload import UploadInput
from tests.artifacts import path_of
from tests.rpms import make_rpm, read_repository
from workers.core.context import StepContext
from workers.core.log import StepLog
from workers.steps import logs, upload

INDEX = RpmFormat().index
BOTH = (Arch.X86_64, Arch.AARCH64)


def artifact(nevra: str | None) -> Artifact:
    return Artifact(name="a.rpm", kind=ArtifactKind.RPM, sha256="0" * 64, size_bytes=1, identity=nevra)


def given(*nevras: str, arches: tuple[Arch, ...] = (Arch.X86_64,)) -> UploadInput:
    return UploadInput(srpm=artifact("a-1-1.src"), rpms=tuple(artifact(nevra) for nevra in nevras), arches=arches)


def plan(work: UploadInput) -> list[tuple[str, list[str]]]:
    return [
        (name.path, [filename for _, filename in content])
        for name, content in upload.destinations("t", work, RpmFormat()).items()
    ]


def test_source_debug_and_binary_packages_go_to_their_repositories_in_that_order() -> None:
    work = given("a-2:1-1.x86_64", "a-debuginfo-2:1-1.x86_64", "a-debugsource-2:1-1.x86_64", "a-doc-2:1-1.noarch")
    assert plan(work) == [
        ("t/source", ["a-1-1.src.rpm"]),
        ("t/x86_64/debug", ["a-debuginfo-1-1.x86_64.rpm", "a-debugsource-1-1.x86_64.rpm"]),
        ("t/x86_64/os", ["a-1-1.x86_64.rpm", "a-doc-1-1.noarch.rpm"]),
    ]


def test_noarch_packages_go_to_every_arch() -> None:
    assert plan(given("a-1-1.noarch", arches=BOTH))[1:] == [
        ("t/x86_64/os", ["a-1-1.noarch.rpm"]),
        ("t/aarch64/os", ["a-1-1.noarch.rpm"]),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kernel-debuginfo-common-x86_64", "debug"),
        ("hello-libs-debuginfo", "debug"),
        ("elfutils-debuginfod", "os"),
        ("elfutils-debuginfod-client", "os"),
        ("debugsource", "os"),
    ],
)
def test_debug_packages_are_told_by_their_names(name: str, kind: str) -> None:
    assert plan(given(f"{name}-1-1.x86_64"))[1][0] == f"t/x86_64/{kind}"


@pytest.mark.parametrize("nevra", [None, "", "a", "../a-1-1.x86_64", "a-1-1.aarch64", "a-1-1.src", "a\n-1-1.x86_64"])
def test_a_package_for_other_arches_is_refused(nevra: str | None) -> None:
    with pytest.raises(BadSource) as refused:
        upload.destinations(
            "t", UploadInput(srpm=artifact("a-1-1.src"), rpms=(artifact(nevra),), arches=BOTH[:1]), RpmFormat()
        )
    assert str(refused.value).isprintable()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StepContext]:
    (tmp_path / "work").mkdir()
    settings = Settings(data=tmp_path / "data")
    with StepLog(tmp_path / "log", limit_bytes=10_000) as log:
        yield StepContext(
            attempt="1.upload.x86_64.1",
            workdir=tmp_path / "work",
            log=log,
            store=DirectoryStore(settings.artifacts),
            settings=settings,
            limits=Limits(),
            deadline=time.monotonic() + 60,
        )


def work_for(context: StepContext, tmp_path: Path, arches: tuple[Arch, ...] = BOTH) -> Work[UploadInput]:
    def stored(name: str, arch: str) -> Artifact:
        path = make_rpm(tmp_path, name, arch=arch)
        kind = ArtifactKind.SRPM if arch == "src" else ArtifactKind.RPM
        return context.store.put(path, name=path.name, kind=kind, identity=f"{name}-1-1.{arch}")

    target = Target(
        name="demo",
        distribution="demo",
        release="1",
        arches=BOTH,
        repositories=(RepositorySource(name="r", baseurl="file:///nowhere"),),
        packages=(),
    )
    return Work(
        attempt=context.attempt,
        kind="upload",
        build_id=1,
        package="hello",
        target=target,
        options=BuildOptions(),
        limits=Limits(),
        input=UploadInput(
            srpm=stored("hello", "src"),
            rpms=(stored("hello", "noarch"), stored("hello-debuginfo", "noarch")),
            arches=arches,
        ),
    )


def test_an_upload_makes_one_version_in_each_repository_and_repeating_it_none(
    context: StepContext, tmp_path: Path
) -> None:
    work = work_for(context, tmp_path)
    result = upload.run(work, context)
    assert result.outcome is Outcome.SUCCEEDED
    assert result.output is not None
    names = ["demo/source", "demo/x86_64/debug", "demo/aarch64/debug", "demo/x86_64/os", "demo/aarch64/os"]
    assert [(name, number) for name, number, _ in result.output.versions] == [(name, 1) for name in names]
    assert result.output.versions[-1][2] == open_repositories(context.settings).url(
        RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64), 1
    )
    assert upload.run(work, context).output == result.output
    binary = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64)
    assert read_repository(open_repositories(context.settings).url(binary)) == {"hello-1-1.noarch.rpm"}
    assert b"demo/aarch64/os version 1 has hello-1-1.noarch.rpm" in context.log.path.read_bytes()
    assert [phase.name for phase in result.phases] == ["download", "check", "publish"]


def test_an_artifact_that_the_store_does_not_have_is_trouble_before_anything_is_published(
    context: StepContext, tmp_path: Path
) -> None:
    work = work_for(context, tmp_path)
    path_of(context.store, work.input.rpms[1].sha256).unlink()
    with pytest.raises(NotFound):
        upload.run(work, context)
    assert open_repositories(context.settings).current(RepositoryName(target="demo", kind=RepositoryKind.SOURCE)) == 0


def test_a_repository_with_as_much_metadata_as_it_may_have_takes_no_more_packages(
    context: StepContext, tmp_path: Path
) -> None:
    """So many packages that no build root can load the repository would end all builds of the target."""
    work = work_for(context, tmp_path, arches=(Arch.X86_64,))
    assert upload.run(work, context).outcome is Outcome.SUCCEEDED
    binary = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
    repositories = open_repositories(context.settings)
    size_bytes = metadata_bytes(repositories.url(binary), INDEX, context.settings)
    assert size_bytes is not None
    opened = [gzip.decompress(path.read_bytes()) for path in _metadata_of(repositories.url(binary, 1))]
    assert size_bytes == sum(len(text) for text in opened)
    full = replace(context, settings=replace(context.settings, repository_metadata_bytes=size_bytes))
    more = replace(work, input=replace(work.input, rpms=_more(context, tmp_path)))
    with pytest.raises(RepositoryTrouble, match="MiB of metadata, and takes packages up to") as refused:
        upload.run(more, full)
    assert refused.value.remote == GIVEN, "no publisher's host is to blame"
    assert repositories.current(binary) == 1
    roomy = replace(context, settings=replace(context.settings, repository_metadata_bytes=size_bytes + 10_000))
    assert upload.run(more, roomy).outcome is Outcome.SUCCEEDED
    assert repositories.current(binary) == 2


def test_the_size_of_a_repository_behind_http_is_known_where_its_index_is_open(
    context: StepContext, tmp_path: Path
) -> None:
    upload.run(work_for(context, tmp_path), context)
    binary = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.X86_64)
    url = open_repositories(context.settings).url(binary)
    handler = partial(SimpleHTTPRequestHandler, directory=urlsplit(url).path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        assert metadata_bytes(base, INDEX, context.settings) == metadata_bytes(url, INDEX, context.settings)
        assert metadata_bytes(f"{base}none/", INDEX, context.settings) is None
        server.shutdown()
    assert metadata_bytes(base, INDEX, context.settings) is None


def _metadata_of(url: str) -> Iterator[Path]:
    return Path(urlsplit(url).path).glob("repodata/*.xml.gz")


def _more(context: StepContext, tmp_path: Path) -> tuple[Artifact, ...]:
    path = make_rpm(tmp_path, "more", arch="noarch")
    return (context.store.put(path, name=path.name, kind=ArtifactKind.RPM, identity="more-1-1.noarch"),)


def test_an_attempt_that_was_stopped_publishes_nothing(context: StepContext, tmp_path: Path) -> None:
    work = work_for(context, tmp_path)
    context.stop.set()
    with pytest.raises(LeaseLost):
        upload.run(work, context)
    assert open_repositories(context.settings).current(RepositoryName(target="demo", kind=RepositoryKind.SOURCE)) == 0


def stored_log(context: StepContext, tmp_path: Path, attempt: str, name: str, content: bytes) -> LogFile:
    (path := tmp_path / "a log").write_bytes(content)
    return LogFile(attempt=attempt, artifact=context.store.put(path, name=name, kind=ArtifactKind.LOG))


def published_logs(context: StepContext) -> dict[str, bytes]:
    root = context.settings.repositories_dir / "demo/logs"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_logs_alone_go_below_the_builds_number_and_no_package_repository_is_touched(
    context: StepContext, tmp_path: Path
) -> None:
    stored = (
        stored_log(context, tmp_path, "1.fetch.1", "fetch.log", b"fetched"),
        stored_log(context, tmp_path, "1.build.x86_64.2", "build.x86_64.log", b"built"),
    )
    work = replace(work_for(context, tmp_path), input=LogsInput(logs=stored, batch=1))
    result = logs.run(work, context)
    name = RepositoryName(target="demo", kind=RepositoryKind.LOGS)
    url = f"{open_repositories(context.settings).url(name)}1/"
    assert result.output == LogsResult(url=url)
    assert published_logs(context) == {
        "1/fetch.1/fetch.log": b"fetched",
        "1/build.x86_64.2/build.x86_64.log": b"built",
    }
    assert logs.run(work, context).output == result.output
    assert f"below {url}" in context.log.path.read_text()
    assert not (context.settings.repositories_dir / "demo/source").exists()


def test_a_log_that_is_not_kept_or_has_an_evil_name_keeps_nothing_from_being_published(
    context: StepContext, tmp_path: Path
) -> None:
    good = stored_log(context, tmp_path, "1.fetch.1", "fetch.log", b"good")
    gone = replace(good, artifact=replace(good.artifact, name="gone.log", sha256="0" * 64))
    evil = replace(good, artifact=replace(good.artifact, name="../../../evil"))
    later = stored_log(context, tmp_path, "1.fetch.1", "fetch.log", b"better")
    work = work_for(context, tmp_path)
    work = replace(work, input=replace(work.input, logs=(good, gone, evil, later)))
    assert upload.run(work, context).outcome is Outcome.SUCCEEDED
    assert published_logs(context) == {"1/fetch.1/fetch.log": b"better"}
    assert context.log.path.read_text().count("left out") == 2


class Recording:
    """A back end that takes everything and remembers its labels."""

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, str]] = {}
        self.keep: set[int] = set()

    def prepare(self, name: RepositoryName, packages: Sequence[RepositoryPackage], *, stop: Event) -> None:
        pass

    def add(self, name: RepositoryName, packages: Sequence[RepositoryPackage], *, keep: int, stop: Event) -> int:
        self.labels |= {package.filename: dict(package.labels) for package in packages}
        self.keep.add(keep)
        return 1

    def add_files(self, name: RepositoryName, files: Sequence[RepositoryFile], *, stop: Event) -> str:
        self.labels |= {file.name: dict(file.labels) for file in files}
        return "file:///"

    def url(self, name: RepositoryName, version: int) -> str:
        return "file:///"


def test_labels_say_where_everything_came_from(context: StepContext, tmp_path: Path) -> None:
    work = work_for(context, tmp_path)
    log = stored_log(context, tmp_path, "1.build.x86_64.2", "build.x86_64.log", b"built")
    once = stored_log(context, tmp_path, "1.fetch.1", "fetch.log", b"fetched")
    given = replace(work.input, batch=7, srpm_by="1.srpm.1", built_by="1.build.x86_64.2", logs=(log, once))
    work = replace(work, input=given)
    backend = Recording()
    upload.publish(work, backend, context)  # type: ignore[arg-type]  # what publishing uses of one
    common = {"build": "1", "batch": "7"}
    built = {**common, "attempt": "1.build.x86_64.2"}
    assert backend.labels == {
        "hello-1-1.src.rpm": {**common, "arch": "src", "attempt": "1.srpm.1"},
        "hello-debuginfo-1-1.noarch.rpm": {**built, "arch": "noarch"},
        "hello-1-1.noarch.rpm": {**built, "arch": "noarch"},
        "1/build.x86_64.2/build.x86_64.log": {**built, "arch": "x86_64"},
        "1/fetch.1/fetch.log": {**common, "attempt": "1.fetch.1"},
    }
    assert backend.keep == {work.target.keep_versions}
