"""What tests of every kind share: an environment without the farm's settings, the demo distribution, and a Pulp."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp
from tests import distribution
from tests.pulp_server import local_pulp

#: Tests that speak to Pulp themselves send a password with every request, which costs a third of a second by default.
_HASHERS = [f"django.contrib.auth.hashers.{name}PasswordHasher" for name in ("MD5", "PBKDF2")]


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


@pytest.fixture(scope="session")
def pulp() -> Iterator[LocalPulp]:
    """One real Pulp with two workers for all tests that ask for it; each uses names of its own, and leaves it running.

    Skips where none can be made; fails instead where CI is set.
    """
    with ExitStack() as stack:
        try:
            started = stack.enter_context(local_pulp(settings={"PASSWORD_HASHERS": _HASHERS}))
        except PulpError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield started
