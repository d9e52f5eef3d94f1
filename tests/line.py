"""Steps one after the other with everything real, and what they may not leave behind. Needs root."""

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.artifacts import open_store
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import ArtifactKind
from farm.model.build import BuildOptions
from farm.model.source import Source, SourceKind
from farm.model.target import Limits, Target
from farm.model.work import AnyResult, Work
from farm.steps.build import BuildInput
from farm.steps.fetch import FetchInput, FetchResult
from farm.steps.srpm import SrpmInput, SrpmResult
from tests.artifacts import content_of
from tests.fetching import repository
from tests.leftovers import inside
from tests.packages import make_git
from workers.isolation import cgroups
from workers.steps.runner import run_step

LIMITS = Limits(
    wall_s=60, silence_s=60, log_bytes=2**20, memory_bytes=512 * 2**20, disk_bytes=256 * 2**20, processes=500
)


@dataclass
class Line:
    """The steps one after the other, as `workers.by_hand` runs them, until one does not succeed.

    `limits` are those of the build step.
    """

    settings: Settings
    target: Target
    folder: Path
    ended_in: str = "fetch"
    log: bytes = b""
    stop: threading.Event | None = None

    def git(self, name: str, *, defines: tuple[tuple[str, str], ...] = (), **limits: int) -> AnyResult:
        source = Source(kind=SourceKind.GIT, url=str(make_git(name, self.folder)), reader_uid=os.getuid())
        return self.run(source, BuildOptions(defines=defines), replace(LIMITS, **limits))

    def spec(self, *, head: str = "", build: str = ":", **limits: int) -> AnyResult:
        """A noarch package `sly` with lines of the test's own before its name and in its %build."""
        text = f"""{head}
Name: sly
Version: 1
Release: 1
Summary: s
License: MIT
BuildArch: noarch
%description
s
%build
{build}
%files
"""
        source = Source(
            kind=SourceKind.GIT,
            url=str(repository(self.folder / "sly", {"sly.spec": text.encode()})),
            reader_uid=os.getuid(),
        )
        return self.run(source, BuildOptions(), replace(LIMITS, **limits))

    def srpm(self, path: Path) -> AnyResult:
        stored = open_store(self.settings).put(path, name="given.src.rpm", kind=ArtifactKind.SRPM)
        source = Source(kind=SourceKind.SRPM, sha256=stored.sha256, filename=path.name)
        return self.run(source, BuildOptions(), LIMITS)

    def run(self, source: Source, options: BuildOptions, limits: Limits) -> AnyResult:
        result = self._step("fetch", FetchInput(source=source, arch=Arch.X86_64), options, LIMITS)
        if isinstance(fetched := result.output, FetchResult):
            order = SrpmInput(archive=fetched.archive, spec=fetched.spec, commit_at=fetched.commit_at, arch=Arch.X86_64)
            result = self._step("srpm", order, options, LIMITS)
        if isinstance(made := result.output, SrpmResult):
            build = BuildInput(
                srpm=made.srpm,
                identity=made.identity,
                build_requires=made.build_requires,
                requires_arch=made.arch,
                arch=Arch.X86_64,
                repositories=(),
            )
            result = self._step("build", build, options, limits)
        return result

    def _step(self, kind: str, order: object, options: BuildOptions, limits: Limits) -> AnyResult:
        work: Work[Any] = Work(
            attempt=f"1.{kind}.1",
            kind=kind,
            build_id=1,
            package="bad",
            target=self.target,
            options=options,
            limits=limits,
            input=order,
        )
        self.ended_in = kind
        result = run_step(work, self.settings, stop=self.stop)
        (log,) = (artifact for artifact in result.artifacts if artifact.kind is ArtifactKind.LOG)
        self.log = content_of(open_store(self.settings), log.sha256)
        return result


def leftovers(settings: Settings) -> list[str]:
    mounts = [entry for entry in Path("/proc/self/mounts").read_text().splitlines() if str(settings.data) in entry]
    mine = f"-{os.getpid()}-"
    groups = [str(path) for root in cgroups.place().folders for path in root.glob("farm-*") if mine in path.name]
    return [*mounts, *groups, *map(str, settings.work.iterdir()), *map(str, inside(settings))]
