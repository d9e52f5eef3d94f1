"""The group commit on a real Redis: the leader publishes for all that wait, also if others die or give up."""

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from farm.config import Settings
from farm.errors import LeaseLost
from farm.repositories.pulp.together import Together
from tests.pulp_watch import kill
from tests.redis_server import redis_server
from tests.waiting import until

KEY = "farm/demo/x86_64/os"
WITHIN_S = 30.0


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with TemporaryDirectory(prefix="farm-r-") as folder, redis_server(Path(folder) / "redis.sock") as socket:
        yield Settings(data=tmp_path, broker_url=f"redis+socket://{socket}")


class Publishing:
    """Counts its calls, remembers their arguments, and waits before it returns if it is told to."""

    def __init__(self, *, open_: bool = True, poison: str = "") -> None:
        self.door, self.entered, self.poison = threading.Event(), threading.Event(), poison
        self.calls: list[dict[str, str]] = []
        if open_:
            self.door.set()

    def __call__(self, units: Mapping[str, str]) -> int:
        self.calls.append(dict(units))
        self.entered.set()
        assert self.door.wait(WITHIN_S)
        if self.poison and self.poison in units:
            raise ValueError(f"{self.poison} is not taken")
        return len(self.calls)


def waiting(settings: Settings) -> int:
    """How many have said what they want to have published."""
    with redis.Redis.from_url(settings.redis) as client:
        return int(client.hlen(f"farm:publish:{KEY}"))  # type: ignore[arg-type]


def lives(client: redis.Redis, name: str) -> bool:
    """Whether a request to publish it is still waiting."""
    now_s = client.time()[0]  # type: ignore[index]
    entries = [json.loads(text) for text in client.hvals(f"farm:publish:{KEY}")]  # type: ignore[union-attr]
    return any(name in (one["units"] or {}) and one["until_s"] > now_s for one in entries)


def add(settings: Settings, name: str, publish: Callable[[Mapping[str, str]], int], stop: threading.Event) -> int:
    return Together(settings, alone_after=(ValueError,)).publish(KEY, {name: f"prn:{name}"}, publish, stop)


def test_one_publishes_for_all_that_wait_and_they_get_its_number(settings: Settings) -> None:
    publishing, stop = Publishing(open_=False), threading.Event()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(add, settings, "p0", publishing, stop)
        assert publishing.entered.wait(WITHIN_S)
        rest = [pool.submit(add, settings, f"p{number}", publishing, stop) for number in range(1, 8)]
        until(lambda: waiting(settings) == 8, "not all wait")
        publishing.door.set()
        assert first.result(WITHIN_S) == 1
        assert {one.result(WITHIN_S) for one in rest} == {2}
    assert [len(call) for call in publishing.calls] == [1, 7]
    assert waiting(settings) == 0


def test_a_leader_waits_for_files_that_are_being_brought(settings: Settings) -> None:
    publishing, stop = Publishing(), threading.Event()
    with redis.Redis.from_url(settings.redis) as client:
        client.set(f"farm:publish-took:{KEY}", "15")  # so long may a leader wait
    with ThreadPoolExecutor(1) as pool:
        with Together(settings).coming(KEY):
            first = pool.submit(add, settings, "p0", publishing, stop)
            until(lambda: waiting(settings) == 2, "the leader does not wait")
            assert not publishing.entered.wait(0.2)
        assert first.result(WITHIN_S) == 1
    assert publishing.calls == [{"p0": "prn:p0"}]


def test_a_process_killed_while_it_brings_is_not_waited_for(settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis) as client:
        now_s = client.time()[0]  # type: ignore[index]
        entry = {"came_s": now_s, "until_s": now_s - 1, "units": None}
        client.hset(f"farm:publish:{KEY}", "dead", json.dumps(entry))
        client.set(f"farm:publish-took:{KEY}", str(WITHIN_S))
    publishing = Publishing()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(add, settings, "p0", publishing, threading.Event()).result(WITHIN_S / 3) == 1


def test_a_refused_package_fails_its_own_addition_only(settings: Settings) -> None:
    publishing, stop = Publishing(open_=False, poison="p3"), threading.Event()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(add, settings, "p0", publishing, stop)
        assert publishing.entered.wait(WITHIN_S)
        rest = [pool.submit(add, settings, f"p{number}", publishing, stop) for number in range(1, 6)]
        until(lambda: waiting(settings) == 6, "not all wait")
        publishing.door.set()
        assert first.result(WITHIN_S) == 1
        failed = [one.exception(WITHIN_S) for one in rest]
    assert [number for number, error in enumerate(failed, 1) if error is not None] == [3]


def test_one_that_was_stopped_is_not_published_by_another(settings: Settings) -> None:
    publishing, stop, theirs = Publishing(open_=False), threading.Event(), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(add, settings, "p0", publishing, stop)
        assert publishing.entered.wait(WITHIN_S)
        stopped, last = (
            pool.submit(add, settings, "gone", publishing, theirs),
            pool.submit(add, settings, "p1", publishing, stop),
        )
        until(lambda: waiting(settings) == 3, "not all wait")
        theirs.set()
        with pytest.raises(LeaseLost):
            stopped.result(2)
        publishing.door.set()
        assert [first.result(WITHIN_S), last.result(WITHIN_S)] == [1, 2]
    assert not any("gone" in call for call in publishing.calls)


def _lead_for_ever(settings: Settings) -> None:
    add(settings, "dead", lambda _: threading.Event().wait() and 0, threading.Event())


def test_a_killed_leader_is_replaced_and_its_own_request_is_not_published(settings: Settings) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=_lead_for_ever, args=(settings,), daemon=True)
    process.start()
    with redis.Redis.from_url(settings.redis) as client:
        until(lambda: client.exists(f"farm:publishing:{KEY}"), "nobody leads")
        publishing, stop = Publishing(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(add, settings, "p0", publishing, stop)
            until(lambda: waiting(settings) == 2, "not all wait")
            kill(process)
            # It expires by itself, and here soon. The dead one's request counts for as long as it would be renewed.
            assert 0 < client.ttl(f"farm:publishing:{KEY}") <= 15  # type: ignore[operator]
            until(lambda: not lives(client, "dead"), "what a dead one wants counts for ever")
            client.expire(f"farm:publishing:{KEY}", 1)
            assert adding.result(WITHIN_S) == 1
    assert publishing.calls == [{"p0": "prn:p0"}]
    process.join()


def test_with_a_broker_that_is_away_each_publishes_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, broker_url=f"redis+socket://{tmp_path}/no.sock")
    publishing = Publishing()
    assert add(settings, "p0", publishing, threading.Event()) == 1
    assert add(settings, "p1", publishing, threading.Event()) == 2


def test_a_broker_that_dies_during_a_publication_fails_no_build(tmp_path: Path) -> None:
    publishing, stop = Publishing(open_=False), threading.Event()
    with ThreadPoolExecutor(4) as pool:
        with TemporaryDirectory(prefix="farm-r-") as folder, redis_server(Path(folder) / "redis.sock") as socket:
            settings = Settings(data=tmp_path, broker_url=f"redis+socket://{socket}")
            first = pool.submit(add, settings, "p0", publishing, stop)
            assert publishing.entered.wait(WITHIN_S)
            rest = [pool.submit(add, settings, f"p{number}", publishing, stop) for number in range(1, 4)]
            until(lambda: waiting(settings) == 4, "not all wait")
        publishing.door.set()
        assert all(one.result(WITHIN_S) for one in (first, *rest))
    assert {name for call in publishing.calls for name in call} == {"p0", "p1", "p2", "p3"}
