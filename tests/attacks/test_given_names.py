"""A source package under a name that a worker's own files have.

The name comes from another host, and the file in the work folder may be the artifact store's own under a second name.
"""

import os
from pathlib import Path

import pytest

from farm.artifacts import open_store
from farm.config import Settings
from farm.model.arch import Arch
from farm.model.artifact import Artifact, ArtifactKind
from farm.model.build import BuildOptions
from farm.model.work import Work
from farm.steps.build import BuildInput
from farm.targets.load import find_target
from tests.artifacts import content_of
from tests.packages import make_srpm
from workers.steps.runner import run_step

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="build roots need root, and the store gives links to root alone"),
]


@pytest.mark.parametrize("name", ["root.json", "provenance.json", "publishable", "results"])
def test_no_name_of_a_source_package_has_a_worker_write_into_the_artifact_store(
    tmp_path: Path, demo_distribution: Path, name: str
) -> None:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path / "d")})
    (settings.data / "demo").mkdir(parents=True)
    (settings.data / "demo/distribution").symlink_to(demo_distribution)
    store, target = open_store(settings), find_target(settings, "demo")
    stored = store.put(make_srpm("hello-noarch", tmp_path), name="a.src.rpm", kind=ArtifactKind.SRPM)
    before = content_of(store, stored.sha256)
    srpm = Artifact(name=name, kind=ArtifactKind.SRPM, sha256=stored.sha256, size_bytes=stored.size_bytes)
    given = BuildInput(
        srpm=srpm, identity="hello-noarch-1.0-1.src", build_requires=(), arch=Arch.X86_64, repositories=()
    )
    result = run_step(
        Work(
            attempt="1.build.x86_64.1",
            kind="build",
            build_id=1,
            package="hello-noarch",
            target=target,
            options=BuildOptions(),
            limits=target.limits,
            input=given,
        ),
        settings,
    )
    assert {one.name for one in result.artifacts} >= {"root.json", "provenance.json"}
    assert content_of(store, stored.sha256) == before
