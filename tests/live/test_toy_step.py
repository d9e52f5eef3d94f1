"""A step type that the farm does not know is added by one module and two lines: it runs after the upload of each arch,
in a real root, on a whole farm with Redis and Celery, and is failed, retried, and cancelled as any other.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packages import make_srpm
from tests.up import BASE, FARM, Up, farm_up
from tests.waiting import until

pytestmark = pytest.mark.live
WITHIN_S = 120.0
ENV = {**BASE, "FARM_EXTENSIONS": "tests.toy_smoke", "PYTHONPATH": str(Path(__file__).parents[2])}


class Farm:
    """The command line of a running farm, in processes of their own: this one must not learn the step type."""

    def __init__(self, up: Up, data: Path, folder: Path) -> None:
        self.up = up
        self.env = {**ENV, "FARM_DATA": str(data), "FARM_OWNER": "ann"}
        self.folder = folder

    def says(self, *words: str, code: int = 0) -> str:
        done = subprocess.run([FARM, *words], env=self.env, capture_output=True, text=True, timeout=WITHIN_S)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def build(self, package: str, *, wait: bool = True, code: int = 0, **macros: str) -> int:
        srpm = make_srpm(package, self.folder)
        defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
        words = ["build", "--srpm", str(srpm), "--target", "demo", "--arch", "x86_64", *defines]
        self.says(*words, *(["--wait"] if wait else []), code=code)
        return int(self.list()[0]["id"])

    def list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.says("list", "--json"))["builds"]
        return found

    def steps(self, build: int) -> dict[str, dict[str, Any]]:
        document = json.loads(self.says("status", str(build), "--json"))
        return {f"{step['step']} {step['arch'] or ''}".strip(): step for step in document["build"]["steps"]}

    def outcome(self, build: int) -> str | None:
        found: str | None = json.loads(self.says("status", str(build), "--json"))["build"]["outcome"]
        return found


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Iterator[Farm]:
    if os.geteuid() != 0:
        pytest.skip("build roots need root")
    data = tmp_path_factory.mktemp("s") / "d"
    (data / "demo").mkdir(parents=True)
    (data / "demo/distribution").symlink_to(demo_distribution)
    with farm_up(data, env={**ENV, "FARM_UPLOAD_LOGS": "yes"}) as up:
        yield Farm(up, data, tmp_path_factory.mktemp("srpms"))


def test_the_step_runs_after_the_upload_in_a_root_with_the_packages_of_the_build(farm: Farm) -> None:
    build = farm.build("hello-c", smoke_command="echo it says; /usr/bin/hello-c")
    steps = farm.steps(build)
    assert list(steps) == ["fetch", "srpm", "build x86_64", "upload x86_64", "smoke x86_64"]
    assert {step["outcome"] for step in steps.values()} == {"succeeded"}
    assert steps["smoke x86_64"]["attempts"][0]["label"] == f"{build}.smoke.x86_64.1"
    assert "it says" in farm.says("log", str(build), "--step", "smoke")


def test_a_step_that_does_not_succeed_ends_the_build_so_and_a_retry_runs_it_alone(farm: Farm) -> None:
    """It needs a package that has not been built, until a build makes it."""
    build = farm.build("hello-noarch", code=11, smoke_wants="libgreet", smoke_command="test -e /usr/lib/libgreet")
    steps = farm.steps(build)
    assert (steps["upload x86_64"]["outcome"], steps["smoke x86_64"]["outcome"]) == ("succeeded", "unresolvable")
    assert "libgreet" in steps["smoke x86_64"]["reason"]
    assert steps["logs x86_64"]["outcome"] == "succeeded", "the logs of a step of any type are published"
    farm.build("libgreet")
    farm.says("retry", str(build), "--wait")
    attempts = {name: len(step["attempts"]) for name, step in farm.steps(build).items()}
    assert (attempts["upload x86_64"], attempts["smoke x86_64"]) == (1, 2)
    assert farm.outcome(farm.build("hello-c", code=10, smoke_command="false")) == "failed"
    assert "is not a step; there are fetch, srpm, build, upload, logs, smoke" in farm.says(
        "retry", str(build), "--step", "taste", code=2
    )


def test_a_step_that_runs_is_cancelled(farm: Farm) -> None:
    build = farm.build("hello-c", wait=False, smoke_command="sleep 600")
    until(lambda: farm.steps(build).get("smoke x86_64", {}).get("status") == "running", "the step to run", WITHIN_S)
    farm.says("cancel", str(build))
    assert farm.outcome(build) == "cancelled"
    assert farm.steps(build)["smoke x86_64"]["outcome"] == "cancelled"
    until(lambda: "sleep 600" not in _running(), "the command to end", 20)


def _running() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
