"""A worker stays registered as long as it lives, whatever happens around it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.broker.leases import Leases
from farm.config import Settings
from tests.redis_server import redis_server
from tests.waiting import until
from workers.agent import register
from workers.agent.register import Register
from workers.isolation.facts import HostFacts


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path)})
    with redis_server(settings.socket):
        yield settings


def test_a_host_that_cannot_be_looked_at_for_a_moment_is_looked_at_again(
    settings: Settings, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when /tmp is full: nothing can be tried there."""
    looks = threading.Semaphore(2)
    host_facts = register.host_facts

    def look(settings: Settings) -> HostFacts:
        if looks.acquire(blocking=False):
            raise OSError(28, "No space left on device")
        return host_facts(settings)

    monkeypatch.setattr(register, "host_facts", look)
    registered = Register(settings)
    registered.start(name="build@one", queues=("build.x86_64",), slots=2)
    try:
        until(leases.workers, "the worker to be known")
    finally:
        registered.stop()
    assert leases.workers() == ()


def test_a_worker_whose_disk_has_no_space_for_one_more_step_takes_none_and_says_why(
    settings: Settings, leases: Leases
) -> None:
    taken = {"build.x86_64": True, "publish": True}
    full = replace(settings, disk_reserve_bytes=2**60)
    registered = Register(full)
    registered.start(
        name="all@one",
        queues=tuple(taken),
        slots=2,
        is_consuming=lambda queue: taken[queue],
        consume=lambda queue, is_on: taken.update({queue: is_on}),
    )
    try:
        until(lambda: taken == {"build.x86_64": False, "publish": True}, "it to take no more builds")
        until(lambda: {worker.queues: worker.consumes for worker in leases.workers()} == _TOLD, "it to say so")
        assert all("free some, or lower" in (worker.unfit or "") for worker in leases.workers())
    finally:
        registered.stop()


_TOLD = {("build.x86_64",): (), ("publish",): ("publish",)}
