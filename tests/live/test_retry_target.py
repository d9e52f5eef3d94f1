"""A retry on a real farm uses the target as it was when the build was asked for, whatever its file says by then."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import Farm
from farm.client import BuildHandle
from farm.config import Settings
from farm.model.artifact import ArtifactKind
from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.targets.load import SHIPPED
from farm.up.embedded import running_farm
from tests.fetching import repository
from tests.up import run_farm

pytestmark = pytest.mark.live
WITHIN_S = 120.0
_SPEC = """\
Name: flavoured
Version: 1
Release: 1
Summary: says a macro of the target, and fails
License: MIT
BuildArch: noarch
%description
x
%build
echo its flavour is %{flavour}
test -e fixed
%files
"""


@pytest.fixture
def settings(tmp_path: Path, demo_distribution: Path) -> Settings:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    (tmp_path / "data/demo").mkdir(parents=True)
    (tmp_path / "data/demo/distribution").symlink_to(demo_distribution)
    (tmp_path / "targets").mkdir()
    flavour(tmp_path / "targets", "old")
    return Settings.from_env({"FARM_DATA": str(tmp_path / "data"), "FARM_TARGETS": str(tmp_path / "targets")})


@pytest.fixture
def farm(settings: Settings) -> Iterator[Farm]:
    with running_farm(settings, build_slots=1), Farm.connect(settings) as farm:
        yield farm


def flavour(targets: Path, word: str) -> None:
    text = (SHIPPED / "demo.toml").read_text()
    (targets / "demo.toml").write_text(text.replace("[macros]", f'[macros]\nflavour = "{word}"'))


def failed(build: BuildHandle) -> Build:
    found = build.wait(timeout_s=WITHIN_S)
    assert found.outcome is Outcome.FAILED, found.reason
    return found


def said(farm: Farm, build: Build) -> bytes:
    return b"".join(farm.log(build.id, step="build"))


def recorded(farm: Farm, build: Build) -> str:
    """By the provenance of the last attempt."""
    (record,) = (file.artifact for file in farm.artifacts(build.id) if file.artifact.name == "provenance.json")
    assert record.kind is ArtifactKind.RECORD
    return str(json.loads(farm.read(record))["target_sha256"])


def test_a_retry_has_the_target_that_the_build_was_asked_for_with(
    farm: Farm, settings: Settings, tmp_path: Path
) -> None:
    source = repository(tmp_path / "flavoured", {"flavoured.spec": _SPEC.encode()})
    build = farm.enqueue(git=str(source), target="demo", arches=["x86_64"])
    first = failed(build)
    assert b"its flavour is old" in said(farm, first)
    assert first.target_sha256 == recorded(farm, first)

    flavour(tmp_path / "targets", "new")
    time.sleep(2)  # the scheduler looks at a target's file once a second
    farm.retry(build.id)
    second = failed(build)
    assert [len(step.attempts) for step in second.steps if step.kind == "build"] == [2]
    assert b"its flavour is old" in said(farm, second)
    assert second.target_sha256 == recorded(farm, second) == first.target_sha256

    other = failed(farm.enqueue(git=str(source), target="demo", arches=["x86_64"]))
    assert b"its flavour is new" in said(farm, other)
    assert other.target_sha256 == recorded(farm, other) != first.target_sha256

    (tmp_path / "targets/demo.toml").write_text("distribution = ")
    shown = run_farm(settings, "status", str(build.id), "--json")
    assert json.loads(shown.stdout)["build"]["target_sha256"] == first.target_sha256
    assert (first.target_sha256 or "?")[:12] in "".join(run_farm(settings, "status", str(build.id)).stdout.split())
