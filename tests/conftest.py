"""What tests of every kind share: an environment without the farm's settings, and the demo distribution."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import distribution


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of whoever runs it, and none leaves the process in another folder."""
    for key in [key for key in os.environ if key.startswith("FARM_") and not key.startswith("FARM_TEST_")]:
        monkeypatch.delenv(key)
    before = Path.cwd()
    yield
    assert Path.cwd() == before, "a test left the process in another folder"


@pytest.fixture(scope="session")
def demo_distribution() -> Path:
    """The folder with <arch>/repodata. Skips where it can neither be found nor made; fails instead where CI is set."""
    try:
        return distribution.demo_distribution()
    except RuntimeError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
