"""Fixtures of live tests: one data folder with the demo's template, for lines of steps; surroundings of fetch steps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.config import Settings
from farm.targets.load import find_target
from tests.fetching import Desk, Server, http_server
from tests.line import Line, leftovers


@pytest.fixture(scope="session")
def line_settings(tmp_path_factory: pytest.TempPathFactory, demo_distribution: Path) -> Settings:
    data = tmp_path_factory.mktemp("farm")
    (data / "demo").mkdir()
    (data / "demo/distribution").symlink_to(demo_distribution)
    return Settings.from_env({"FARM_DATA": str(data)})


@pytest.fixture
def line(line_settings: Settings, tmp_path: Path) -> Iterator[Line]:
    """Afterwards nothing of the build is left: no process, no group, no mount, no work folder."""
    yield Line(line_settings, find_target(line_settings, "demo"), tmp_path)
    assert leftovers(line_settings) == []
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path / "desk")


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server of this test's own."""
    with http_server() as running:
        yield running
