"""Fixtures of the contract tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.repositories.base import RepositoryBackend
from tests.redis_server import redis_server
from tests.repository_backends import BACKENDS


@pytest.fixture(scope="session")
def together_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with redis_server(tmp_path_factory.mktemp("together") / "redis.sock") as socket:
        yield socket


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> RepositoryBackend:
    return BACKENDS[request.param](tmp_path, request)
