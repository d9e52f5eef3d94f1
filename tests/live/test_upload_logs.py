"""A real farm that publishes logs: they land for packages that build, and for those that do not."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import Farm
from farm.config import Settings
from farm.model.build import Build
from farm.model.outcome import Outcome
from farm.up.embedded import running_farm
from tests.packages import make_git, make_srpm

pytestmark = pytest.mark.live
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Farm]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("f")
    (data / "demo").mkdir()
    (data / "demo" / "distribution").symlink_to(demo_distribution)
    settings = Settings.from_env({"FARM_DATA": str(data), "FARM_UPLOAD_LOGS": "yes", "FARM_OWNER": "tester"})
    with running_farm(settings, build_slots=1), Farm.connect(settings) as farm:
        yield farm


def built(farm: Farm, package: str, tmp_path: Path) -> tuple[Build, dict[str, bytes]]:
    """The finished build of a package of tests/data, and its published logs, by attempt and name."""
    if package == "does-not-parse":  # so rpmbuild makes no src.rpm of it
        handle = farm.enqueue(git=make_git(package, tmp_path), target="demo", arches=["x86_64"])
    else:
        handle = farm.enqueue(srpm=make_srpm(package, tmp_path), target="demo", arches=["x86_64"])
    build = handle.wait(timeout_s=WITHIN_S)
    folder = farm.settings.repositories_dir / f"demo/logs/{build.id}"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return build, {str(path.relative_to(folder)): path.read_bytes() for path in files}


def provenance(logs: dict[str, bytes]) -> list[tuple[str, int]]:
    """The farm's own repositories that the build was given."""
    found = json.loads(logs["build.x86_64.1/provenance.json"])["repositories"]
    return [(one["name"], one["version"]) for one in found]


@pytest.mark.parametrize(
    ("package", "outcome", "attempts"),
    [
        ("does-not-parse", Outcome.FAILED, {"fetch.1"}),
        ("fails-build", Outcome.FAILED, {"fetch.1", "srpm.1", "build.x86_64.1"}),
        ("unresolvable", Outcome.UNRESOLVABLE, {"fetch.1", "srpm.1", "build.x86_64.1"}),
    ],
)
def test_the_logs_of_a_build_that_fails_land(
    farm: Farm, tmp_path: Path, package: str, outcome: Outcome, attempts: set[str]
) -> None:
    build, logs = built(farm, package, tmp_path)
    assert build.outcome is outcome, build.reason
    assert {name.partition("/")[0] for name in logs} == attempts
    step = next(one for one in build.steps if one.kind == "logs")
    assert (step.counts, step.outcome) == (False, Outcome.SUCCEEDED)


def test_a_build_is_given_the_version_that_the_one_before_made_and_a_rollback_counts(
    farm: Farm, tmp_path: Path
) -> None:
    first, logs = built(farm, "libgreet", tmp_path)
    assert (first.outcome, provenance(logs)) == (Outcome.SUCCEEDED, [])
    assert b"greet" in logs["build.x86_64.1/build.x86_64.log"]
    second, logs = built(farm, "uses-libgreet", tmp_path)
    assert (second.outcome, provenance(logs)) == (Outcome.SUCCEEDED, [("farm-demo-x86_64", 1)])
    assert farm.rollback("demo", to=0, arch="x86_64").after.packages == 0
    third, _ = built(farm, "uses-libgreet", tmp_path)
    assert third.outcome is Outcome.UNRESOLVABLE
    farm.retry(first, step="upload")
    farm.wait(first, timeout_s=WITHIN_S)
    fourth, logs = built(farm, "uses-libgreet", tmp_path)
    assert (fourth.outcome, provenance(logs)) == (Outcome.SUCCEEDED, [("farm-demo-x86_64", 4)])
