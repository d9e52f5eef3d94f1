"""What contract tests on a Redis of their own share; `settings`, which says what Redis that is, is each file's own."""

from collections.abc import Iterator

import pytest

from farm.config import Settings
from farm.control import Control
from farm.leases import Leases


@pytest.fixture
def leases(settings: Settings) -> Iterator[Leases]:
    leases = Leases(settings)
    yield leases
    leases.close()


@pytest.fixture
def control(settings: Settings) -> Iterator[Control]:
    control = Control(settings)
    yield control
    control.close()
