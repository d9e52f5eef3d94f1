"""What crosses Redis comes back as it went, and a version that is not ours is refused."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from farm import wire
from farm.errors import UnknownVersion
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions, Phase, StepKind
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.target import Limits, RepositorySource, Target
from farm.model.work import (
    AnyWork,
    BuildInput,
    BuildResult,
    FetchInput,
    FetchResult,
    LogFile,
    PinnedRepository,
    SrpmInput,
    SrpmResult,
    StepInput,
    StepOutput,
    StepResult,
    UploadInput,
    UploadResult,
    Work,
)

FILE = Artifact(name="hello-1-1.src.rpm", kind=ArtifactKind.SRPM, sha256="ab" * 32, size_bytes=9, nevra="hello-1-1.src")
TARGET = Target(
    name="demo",
    distribution="demo",
    release="1",
    arches=(Arch.X86_64, Arch.PPC64LE),
    repositories=(RepositorySource(name="demo", baseurl="file:///demo/{arch}", gpgcheck=False),),
    packages=("demo-build",),
    macros=(("dist", ".demo1"),),
)
INPUTS: dict[StepKind, StepInput] = {
    StepKind.FETCH: FetchInput(source=Source(kind=SourceKind.GIT, url="https://x/hello.git", ref="v1")),
    StepKind.SRPM: SrpmInput(archive=FILE, spec="hello.spec", commit_at=1, arch=Arch.X86_64),
    StepKind.BUILD: BuildInput(
        srpm=FILE,
        nevra="hello-1-1.src",
        build_requires=("gcc",),
        arch=Arch.PPC64LE,
        repositories=(PinnedRepository(name="farm", url="file:///r/7", version=7),),
    ),
    StepKind.UPLOAD: UploadInput(
        srpm=FILE,
        rpms=(FILE,),
        arches=(Arch.X86_64,),
        batch=2,
        srpm_by="1.srpm.1",
        built_by="1.build.x86_64.1",
        logs=(LogFile(attempt="1.build.x86_64.1", artifact=FILE),),
    ),
}
OUTPUTS: dict[StepKind, StepOutput] = {
    StepKind.FETCH: FetchResult(archive=FILE, commit="c0ffee"),
    StepKind.SRPM: SrpmResult(
        srpm=FILE,
        nevra="hello-1-1.src",
        build_requires=(),
        exclusive_arches=("x86_64",),
        exclude_arches=(),
        noarch=False,
    ),
    StepKind.BUILD: BuildResult(rpms=(FILE,)),
    StepKind.UPLOAD: UploadResult(versions=(("demo/x86_64/os", 3, "file:///r/3/"),)),
}


def _work(kind: StepKind) -> AnyWork:
    return Work(
        attempt=f"1.{kind}.1",
        token="t",
        kind=kind,
        build_id=1,
        package="hello",
        target=TARGET,
        options=BuildOptions(with_=("x",), defines=(("a", "b"),)),
        limits=Limits(),
        input=INPUTS[kind],
    )


def _report(kind: StepKind) -> wire.AnyReport:
    now = datetime.now(UTC)
    result = StepResult(
        outcome=Outcome.SUCCEEDED, artifacts=(FILE,), phases=(Phase(name="layer", seconds=0.5),), output=OUTPUTS[kind]
    )
    return wire.Report(
        attempt=f"1.{kind}.1", token="t", kind=kind, worker="w@h", started_at=now, finished_at=now, result=result
    )


@pytest.mark.parametrize("kind", StepKind)
def test_work_comes_back_as_it_went(kind: StepKind) -> None:
    assert wire.decode_work(wire.encode_work(_work(kind))) == _work(kind)


@pytest.mark.parametrize("kind", StepKind)
def test_a_report_comes_back_as_it_went(kind: StepKind) -> None:
    report = _report(kind)
    assert wire.decode_report(wire.encode_report(report)) == report


def test_trouble_comes_back_as_it_went() -> None:
    trouble = wire.TroubleReport(code="network", retryable=True, message="no route", artifacts=(FILE,))
    report = replace(_report(StepKind.FETCH), result=None, trouble=trouble)
    assert wire.decode_report(wire.encode_report(report)) == report


def test_another_version_is_trouble_that_another_host_may_not_have() -> None:
    document = msgspec.json.decode(wire.encode_work(_work(StepKind.FETCH)))
    document["v"] = wire.VERSION + 1
    with pytest.raises(UnknownVersion) as caught:
        wire.decode_work(msgspec.json.encode(document))
    assert caught.value.retryable


@pytest.mark.parametrize("data", [b"", b"[]", b"wake", b'{"v":2}', b'{"v":2,"kind":"fetch"}', b'{"v":2,"kind":"cook"}'])
def test_what_is_no_report_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode_report(data)


def test_an_input_of_another_step_is_refused() -> None:
    document = msgspec.json.decode(wire.encode_work(_work(StepKind.FETCH)))
    document["kind"] = "build"
    with pytest.raises(ValueError):
        wire.decode_work(msgspec.json.encode(document))
