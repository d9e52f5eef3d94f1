"""A step that is stopped while it gets a large source package does not wait for the whole package."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from farm.errors import LeaseLost
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.target import Limits, Target
from farm.model.work import Work
from farm.steps.build import BuildInput
from farm.steps.srpm import SrpmInput
from tests.fetching import Desk
from workers.core.context import StepContext
from workers.steps import build, srpm

_LARGE_BYTES = 40 * 2**20
_STOPPED = "stopped while an artifact was copied"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StepContext]:
    """With a work folder on another file system than the store, so that nothing in it can be a hard link."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    stop = threading.Event()
    stop.set()
    given = Desk(folder=tmp_path / "desk", stop=stop).context()
    with given.log, TemporaryDirectory(dir=shared) as folder:
        yield replace(given, workdir=Path(folder))


def _stored(context: StepContext, tmp_path: Path) -> Artifact:
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(_LARGE_BYTES)
    return context.store.put(path, name="large-1-1.src.rpm", kind=ArtifactKind.SRPM)


def _work(kind: str, given: SrpmInput | BuildInput) -> Work[Any]:
    target = Target(name="t", distribution="t", release="1", arches=(Arch.X86_64,), repositories=(), packages=())
    return Work(
        attempt="1.x.1",
        kind=kind,
        build_id=1,
        package="large",
        target=target,
        options=BuildOptions(),
        limits=Limits(),
        input=given,
    )


def test_the_srpm_step_is_stopped_while_it_gets_a_source_package(context: StepContext, tmp_path: Path) -> None:
    given = SrpmInput(archive=_stored(context, tmp_path), spec=None, commit_at=None, arch=Arch.X86_64)
    with pytest.raises(LeaseLost, match=_STOPPED):
        srpm.run(_work("srpm", given), context)
    assert list(context.workdir.iterdir()) == []


def test_the_build_step_is_stopped_while_it_gets_a_source_package(context: StepContext, tmp_path: Path) -> None:
    srpm_artifact = _stored(context, tmp_path)
    given = BuildInput(
        srpm=srpm_artifact, identity="large-1-1.src", build_requires=(), arch=Arch.X86_64, repositories=()
    )
    with pytest.raises(LeaseLost, match=_STOPPED):
        build.run(_work("build", given), context)
    assert [path for path in context.workdir.rglob("*") if path.is_file()] == []
