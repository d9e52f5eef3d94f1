"""A real Redis at its memory limit: clients get a message, and running builds are not harmed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from farm.broker.leases import Leases, Touch
from farm.cli.main import app
from farm.client import Farm
from farm.config import Settings
from farm.errors import BrokerFull, FarmError, FarmNotRunning
from farm.model.build import BuildRequest
from farm.model.source import Source, SourceKind
from farm.store.store import Store
from tests.filled_redis import FilledRedis
from tests.messages import work_of
from tests.redis_server import redis_server

WORK = work_of("fetch")
URL = "https://example.org/hello.git"
REQUEST = BuildRequest(source=Source(kind=SourceKind.GIT, url=URL), target="demo", arches=())


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path), "FARM_OWNER": "ann"})
    with redis_server(settings.socket):
        Store.open(settings.database, create=True).close()
        yield settings


@pytest.fixture
def filled(settings: Settings) -> Iterator[FilledRedis]:
    with FilledRedis(settings) as filled:
        yield filled


def test_enqueueing_names_the_limit_and_writes_nothing(settings: Settings, filled: FilledRedis) -> None:
    with Farm.connect(settings) as farm:
        filled.fill()
        with pytest.raises(BrokerFull) as error:
            farm.enqueue(git=URL, target="demo")
        assert str(error.value) == (
            "the farm's broker is at its memory limit (maxmemory 4.00M, noeviction): nothing was enqueued; "
            "raise maxmemory on that Redis, or delete other data in it"
        )
        with pytest.raises(BrokerFull):
            farm.enqueue_many([REQUEST, REQUEST])
        assert farm.builds() == ()


def test_enqueueing_works_again_as_soon_as_there_is_memory(settings: Settings, filled: FilledRedis) -> None:
    with Farm.connect(settings) as farm:
        filled.fill()
        with pytest.raises(BrokerFull):
            farm.enqueue(git=URL, target="demo")
        filled.free()
        farm.enqueue(git=URL, target="demo")
        assert len(farm.builds()) == 1


def test_a_src_rpm_is_not_even_stored(settings: Settings, filled: FilledRedis, tmp_path: Path) -> None:
    with Farm.connect(settings) as farm:
        filled.fill()
        with pytest.raises(BrokerFull):
            farm.enqueue(srpm=tmp_path / "not-looked-at.src.rpm", target="demo")
    assert not settings.artifacts.exists()


def test_builds_can_be_looked_at_and_cancelled_meanwhile(settings: Settings, filled: FilledRedis) -> None:
    with Farm.connect(settings) as farm:
        build = farm.enqueue(git=URL, target="demo")
        filled.fill()
        assert farm.workers() == ()
        assert farm.build(build.id).id == build.id
        assert farm.cancel(build.id).outcome == "cancelled"


def test_the_command_line_says_it_in_one_line_and_with_its_own_exit_code(
    settings: Settings, filled: FilledRedis
) -> None:
    filled.fill()
    words = ["build", "--git", URL, "--target", "demo"]
    result = CliRunner().invoke(app, words, env={"FARM_DATA": str(settings.data)}, prog_name="farm")
    assert result.exit_code == BrokerFull.exit_code
    assert "memory limit (maxmemory 4.00M, noeviction): nothing was enqueued" in result.stderr


def test_a_broker_that_is_away_is_not_called_full(tmp_path: Path) -> None:
    leases = Leases(Settings(data=tmp_path))
    with pytest.raises(FarmNotRunning):
        leases.check_room()


def test_leases_are_renewed_and_claims_lose_no_work(settings: Settings, filled: FilledRedis) -> None:
    leases = Leases(settings)
    try:
        for label in ("1.fetch.1", "2.fetch.1"):
            leases.offer(replace(WORK, attempt=label))
        leases.claim("1.fetch.1", "t", "w", wait_s=1)
        filled.fill()
        assert leases.touch("1.fetch.1", "t") is Touch.HELD
        with pytest.raises(redis.RedisError):
            leases.show_log("1.fetch.1", 0, b"a line of the log")
        try:
            assert leases.claim("2.fetch.1", "t", "w", wait_s=1).attempt == "2.fetch.1"
        except FarmError:
            assert leases.states(["2.fetch.1"])["2.fetch.1"].is_offered
            filled.free()
            assert leases.claim("2.fetch.1", "t", "w", wait_s=1).attempt == "2.fetch.1"
    finally:
        leases.close()
