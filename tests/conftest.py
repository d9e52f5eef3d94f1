"""What tests of every kind share: an environment without the farm's settings, and the demo distribution."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_MAKE_TIMEOUT_S = 1800


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
    """The folder with <arch>/repodata of the demo distribution: FARM_TEST_DISTRIBUTION, or one that is made once and
    kept in the user's cache. Skips where neither can be had, and fails instead of that with CI in the environment."""
    if given := os.environ.get("FARM_TEST_DISTRIBUTION"):
        assert (Path(given) / "x86_64/repodata/repomd.xml").is_file(), f"FARM_TEST_DISTRIBUTION={given} has no repodata"
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farm-tests/distribution"
    command = [sys.executable, "-m", "deploy.demo.distribution", "--arch", "x86_64", "--output", str(cache)]
    made = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_MAKE_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if made.returncode:
        message = f"the demo distribution cannot be made: {made.stderr[-500:]}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return cache
