"""The entries of a real queue: those that the scheduler pushes, and those that Celery and kombu push."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from farm.app import app
from farm.config import Settings
from farm.scheduler.dispatch import Dispatcher
from farm.scheduler.messages import publish
from tests.redis_server import redis_server
from tests.unit.test_dispatch import BUILD, FETCH, SRPM, UPLOAD, entry, order


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings.from_env({"FARM_DATA": str(tmp_path_factory.mktemp("farm"))})
    with redis_server(settings.socket):
        yield settings


def test_the_scheduler_pushes_what_kombu_pushes(settings: Settings) -> None:
    pairs = [(FETCH, SRPM), (BUILD, UPLOAD), (UPLOAD, None), (BUILD, None), (FETCH, SRPM)]
    ours = Dispatcher(settings)
    ours.send([order(*pair) for pair in pairs])
    ours.close()
    pushed = taken(settings)
    with app.connection_for_write(settings.broker) as connection:
        for pair in pairs:
            publish(*pair, app.amqp.Producer(connection))
    assert pushed == taken(settings)
    assert {name: len(entries) for name, entries in pushed.items()} == {"source": 2, "build.x86_64": 2, "publish": 1}


def taken(settings: Settings) -> dict[str, list[Any]]:
    """The entries of all queues, in the order in which workers take them; each is emptied."""
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        found: dict[str, list[Any]] = {}
        for queue in ("source", "build.x86_64", "publish"):
            while (text := client.rpop(queue)) is not None:
                one = entry(text)  # type: ignore[arg-type]
                del one["properties"]["delivery_tag"]
                found.setdefault(queue, []).append(one)
        return found


def test_an_entry_is_plain_json(settings: Settings) -> None:
    ours = Dispatcher(settings)
    ours.send([order(FETCH, None)])
    ours.close()
    with redis.Redis.from_url(settings.redis, protocol=2) as client:
        text = client.rpop("source")
    assert isinstance(text, bytes)
    assert text.isascii()
    assert json.loads(text)["content-type"] == "application/json"
