"""The upload step brings each package to the repositories it belongs in, and to no other."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.artifacts.directory import DirectoryStore
from farm.config import Settings
from farm.errors import BadSource, LeaseLost, NotFound
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions, StepKind
from farm.model.outcome import Outcome
from farm.model.target import Limits, RepositorySource, Target
from farm.model.work import UploadInput, Work
from farm.repositories import RepositoryKind, RepositoryName, open_repositories
from tests.rpms import make_rpm, read_repository
from workers.log import StepLog
from workers.steps import upload
from workers.steps.context import StepContext

BOTH = (Arch.X86_64, Arch.AARCH64)


def artifact(nevra: str | None) -> Artifact:
    return Artifact(name="a.rpm", kind=ArtifactKind.RPM, sha256="0" * 64, size_bytes=1, nevra=nevra)


def given(*nevras: str, arches: tuple[Arch, ...] = (Arch.X86_64,)) -> UploadInput:
    return UploadInput(srpm=artifact("a-1-1.src"), rpms=tuple(artifact(nevra) for nevra in nevras), arches=arches)


def plan(work: UploadInput) -> list[tuple[str, list[str]]]:
    return [
        (name.path, [filename for _, filename in content]) for name, content in upload.destinations("t", work).items()
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
def test_what_is_not_a_package_for_these_arches_is_refused(nevra: str | None) -> None:
    with pytest.raises(BadSource) as refused:
        upload.destinations("t", UploadInput(srpm=artifact("a-1-1.src"), rpms=(artifact(nevra),), arches=BOTH[:1]))
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
        return context.store.put(path, name=path.name, kind=kind, nevra=f"{name}-1-1.{arch}")

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
        token="t",
        kind=StepKind.UPLOAD,
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
    assert result.output.versions == tuple((name, 1) for name in names)
    assert upload.run(work, context).output == result.output
    binary = RepositoryName(target="demo", kind=RepositoryKind.BINARY, arch=Arch.AARCH64)
    assert read_repository(open_repositories(context.settings).url(binary)) == {"hello-1-1.noarch.rpm"}
    assert b"demo/aarch64/os version 1 has hello-1-1.noarch.rpm" in context.log.path.read_bytes()
    assert [phase.name for phase in result.phases] == ["download", "publish"]


def test_an_artifact_that_the_store_does_not_have_is_trouble_before_anything_is_published(
    context: StepContext, tmp_path: Path
) -> None:
    work = work_for(context, tmp_path)
    context.store.open_path(work.input.rpms[1].sha256).unlink()
    with pytest.raises(NotFound):
        upload.run(work, context)
    assert open_repositories(context.settings).current(RepositoryName(target="demo", kind=RepositoryKind.SOURCE)) == 0


def test_an_attempt_that_was_stopped_publishes_nothing(context: StepContext, tmp_path: Path) -> None:
    work = work_for(context, tmp_path)
    context.stop.set()
    with pytest.raises(LeaseLost):
        upload.run(work, context)
    assert open_repositories(context.settings).current(RepositoryName(target="demo", kind=RepositoryKind.SOURCE)) == 0
