"""One of each message that crosses Redis: work, reports, what workers say of themselves."""

from datetime import UTC, datetime

from farm import queues, wire
from farm.formats.rpm.settings import RpmSettings
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions, Phase
from farm.model.outcome import Outcome
from farm.model.source import Source, SourceKind
from farm.model.target import Limits, RepositorySource, Target
from farm.model.work import AnyWork, LogFile, PinnedRepository, StepResult, Work
from farm.model.worker import WorkerFacts
from farm.steps.build import BuildInput, BuildResult
from farm.steps.fetch import FetchInput, FetchResult
from farm.steps.srpm import SrpmInput, SrpmResult
from farm.steps.upload import UploadInput, UploadResult

#: The step types that a successful build goes through, in their order.
KINDS = ("fetch", "srpm", "build", "upload")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
FILE = Artifact(
    name="hello-1-1.src.rpm", kind=ArtifactKind.SRPM, sha256="ab" * 32, size_bytes=9, identity="hello-1-1.src"
)
PACKAGE = Artifact(
    name="hello-1-1.x86_64.rpm", kind=ArtifactKind.RPM, sha256="cd" * 32, size_bytes=9, identity="hello-1-1.x86_64"
)
TARGET = Target(
    name="demo",
    distribution="demo",
    release="1",
    arches=(Arch.X86_64, Arch.PPC64LE),
    repositories=(RepositorySource(name="demo", baseurl="file:///demo/{arch}", gpgcheck=False),),
    packages=("demo-build",),
    table=RpmSettings(macros=(("dist", ".demo1"),)).table,
)
INPUTS: dict[str, object] = {
    "fetch": FetchInput(source=Source(kind=SourceKind.GIT, url="https://x/hello.git", ref="v1"), arch=Arch.X86_64),
    "srpm": SrpmInput(archive=FILE, spec="hello.spec", commit_at=1, arch=Arch.X86_64),
    "build": BuildInput(
        srpm=FILE,
        identity="hello-1-1.src",
        build_requires=("gcc",),
        arch=Arch.PPC64LE,
        repositories=(PinnedRepository(name="farm", url="file:///r/7", version=7),),
    ),
    "upload": UploadInput(
        srpm=FILE,
        rpms=(PACKAGE,),
        arches=(Arch.X86_64,),
        batch=2,
        srpm_by="1.srpm.1",
        built_by="1.build.x86_64.1",
        logs=(LogFile(attempt="1.build.x86_64.1", artifact=FILE),),
    ),
}
OUTPUTS: dict[str, object] = {
    "fetch": FetchResult(archive=FILE, commit="c0ffee"),
    "srpm": SrpmResult(
        srpm=FILE,
        identity="hello-1-1.src",
        build_requires=(),
        exclusive_arches=("x86_64",),
        exclude_arches=(),
        noarch=False,
    ),
    "build": BuildResult(rpms=(PACKAGE,)),
    "upload": UploadResult(versions=(("demo/x86_64/os", 3, "file:///r/3/"),)),
}


def _label(kind: str) -> str:
    return f"1.{kind}.{Arch.X86_64}.1" if kind in ("build", "upload") else f"1.{kind}.1"


def work_of(kind: str) -> AnyWork:
    return Work(
        attempt=_label(kind),
        kind=kind,
        build_id=1,
        package="hello",
        target=TARGET,
        options=BuildOptions(with_=("x",), defines=(("a", "b"),)),
        limits=Limits(),
        input=INPUTS[kind],
    )


def report_of(kind: str) -> wire.AnyReport:
    now = datetime.now(UTC)
    result = StepResult(
        outcome=Outcome.SUCCEEDED, artifacts=(FILE,), phases=(Phase(name="layer", seconds=0.5),), output=OUTPUTS[kind]
    )
    return wire.Report(
        attempt=_label(kind), token="t", kind=kind, worker="w@h", started_at=now, finished_at=now, result=result
    )


def worker_facts(
    name: str = "build@one",
    *,
    names: tuple[str, ...] = (),
    slots: int = 2,
    version: str = "1",
    unfit: str | None = None,
) -> WorkerFacts:
    """The facts that this worker announces. Without named queues it has its role's: for `build`, that of x86_64."""
    role, _, host = name.partition("@")
    return WorkerFacts(
        name=name,
        host=host,
        queues=names or (queues.build_queue(Arch.X86_64) if role == "build" else role,),
        slots=slots,
        arches=(Arch.X86_64,),
        started_at=WHEN,
        version=version,
        speaks=wire.VERSION,
        unfit=unfit,
    )
