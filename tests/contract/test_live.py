"""Logs and events that clients follow at the server: complete, in order, bounded, and without a thread for each."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from farm.broker.leases import Leases
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.model.actor import Actor, Role
from farm.model.artifact import ArtifactKind
from farm.model.outcome import Status
from farm.server import live
from farm.service.events import BuildEvent, Listener, Lost
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served, token_for
from tests.waiting import until

EVE = Actor(name="eve", roles=frozenset({Role.READER}))
URL = "https://example.org/hello.git"


class Site:
    """A farm whose build 1 runs, and its server."""

    def __init__(self, driven: DrivenFarm, address: str) -> None:
        self.driven = driven
        self.address = address
        self.leases = Leases(driven.settings)
        self.token = token_for(driven.store, EVE)
        self.headers = {"authorization": f"Bearer {self.token}"}
        self.client = httpx.Client(base_url=f"{address}/api/v1", headers=self.headers, trust_env=False, timeout=60)
        self.shown: dict[str, bytes] = {}

    def start(self) -> str:
        """A new build whose `build` step runs; returns the attempt."""
        build = self.driven.farm.enqueue(git=URL, target="demo", arches=["x86_64"])
        self.driven.to_build(build.id)
        label = f"{build.id}.build.x86_64.1"
        self.driven.start(label)
        return label

    def write(self, label: str, data: bytes) -> None:
        """As the worker shows it."""
        before = self.shown.get(label, b"")
        self.leases.show_log(label, len(before), data)
        self.shown[label] = before + data

    def end(self, label: str, more: bytes = b"") -> bytes:
        """The step ends, and its whole log is kept; some of it was never shown."""
        log = self.shown.get(label, b"") + more
        build_id, kind = label.split(".")[:2]
        files = (self.driven.stored("a.rpm", b"a package", ArtifactKind.RPM, "a-1-1.x86_64"),)
        self.driven.succeed(label, log, files=files)
        self.leases.publish({"build": int(build_id), "step": kind, "status": Status.FINISHED})
        return log

    def follow(self, label: str, **query: Any) -> "Follower":
        return Follower(self, label, query)


class Follower(threading.Thread):
    """Follows a log with one request, as `curl -N` does."""

    def __init__(self, site: Site, label: str, query: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.got, self.headers, self.status = b"", httpx.Headers(), 0
        self._site, self._label, self._query = site, label, query
        self.start()

    def run(self) -> None:
        build, kind, arch, attempt = self._label.split(".")
        query = {"step": kind, "arch": arch, "attempt": attempt, "follow": True} | self._query
        with self._site.client.stream("GET", f"/builds/{build}/log", params=query) as answer:
            self.headers, self.status = answer.headers, answer.status_code
            for data in answer.iter_raw():
                self.got += data

    def has(self, end: bytes) -> None:
        until(lambda: self.got.endswith(end), lambda: f"{end!r}, and there is {self.got[-100:]!r}")

    def whole(self) -> bytes:
        self.join(60)
        assert not self.is_alive()
        return self.got


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # The server ends before the client is closed, and with it all streams, which threads read.
    with driven_farm(tmp_path_factory.mktemp("live")) as driven, ExitStack() as later, served(driven.settings) as at:
        made = Site(driven, at)
        later.callback(made.leases.close)
        later.enter_context(made.client)
        yield made


# --- logs -------------------------------------------------------------------------------------------------------


def test_a_log_is_followed_to_its_end_byte_for_byte(site: Site) -> None:
    label = site.start()
    site.write(label, b"compiling\n")
    early = site.follow(label)
    early.has(b"compiling\n")
    site.write(label, b"\xff\x00 not text\n")
    late, middle = site.follow(label), site.follow(label, offset=4)
    for one in (early, late, middle):
        one.has(b"not text\n")
    whole = site.end(label, b"never shown\n")
    assert (early.whole(), late.whole(), middle.whole()) == (whole, whole, whole[4:])
    assert (early.headers["farm-attempt"], middle.headers["farm-log-offset"]) == (label, "4")


def test_a_log_longer_than_a_server_keeps_is_whole(site: Site) -> None:
    label = site.start()
    line = b"x" * 99 + b"\n"
    follower = site.follow(label)
    for _ in range(3):
        site.write(label, line * 10_000)
    follower.has(line)
    late = site.follow(label)
    whole = site.end(label, line * 60_000)
    assert (follower.whole() == whole, late.whole() == whole) == (True, True)


def test_a_follower_begins_at_a_line_of_the_tail(site: Site) -> None:
    label = site.start()
    site.write(label, b"".join(b"line %d\n" % number for number in range(1000)))
    follower = site.follow(label, tail=20)
    follower.has(b"line 998\nline 999\n")
    assert follower.headers["farm-log-offset"] == str(len(site.shown[label]) - 18)
    whole = site.end(label)
    assert follower.whole() == b"line 998\nline 999\n"
    assert site.follow(label, tail=5).whole() == whole[-5:]
    assert site.follow(label).whole() == whole


def test_followers_hold_no_thread_and_keep_no_one_out(site: Site) -> None:
    label = site.start()
    with httpx.Client(limits=httpx.Limits(max_connections=200), timeout=60) as client:
        site.client, before = client, site.client
        client.base_url, client.headers = before.base_url, before.headers
        followers: list[Follower] = []
        for _ in range(3):  # more than 32 may not wait at once
            followers += (site.follow(label) for _ in range(20))
            for one in followers:
                until(lambda one=one: one.status, "the answer to begin")
        site.write(label, b"begun\n")
        for one in followers:
            one.has(b"begun\n")
        assert sum(one.name.startswith("request") for one in threading.enumerate()) <= 16
        assert before.get("/whoami").json()["name"] == "eve"
        whole = site.end(label)
        assert {one.whole() for one in followers} == {whole}
        site.client = before


def test_one_actor_and_all_together_have_a_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    label = site.start()
    monkeypatch.setattr(live, "OF_ONE_ACTOR", 1)
    follower = site.follow(label)
    site.write(label, b"x\n")
    follower.has(b"x\n")
    answer = site.client.get("/events")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "too-many-requests", "1")
    monkeypatch.setattr(live, "OF_ALL", 1)
    other = token_for(site.driven.store, Actor(name="bob", roles=frozenset({Role.READER})))
    answer = site.client.get("/events", headers={"authorization": f"Bearer {other}"})
    assert (answer.status_code, "already" in answer.json()["detail"]) == (429, True)
    # A remote client asks again instead.
    with RemoteFarm(HttpClient(site.address, site.token)) as farm:
        parts = farm.log(int(label.split(".")[0]), "build", follow=True)
        assert next(parts) == b"x\n"
        whole = site.end(label, b"y\n")
        assert b"".join(parts) == b"y\n"
    assert follower.whole() == whole


def test_a_follower_outlives_the_server(tmp_path: Path) -> None:
    """Two servers at one address after each other, as in a rolling restart."""
    with driven_farm(tmp_path) as driven, ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        address = first.enter_context(served(driven.settings))
        site = Site(driven, address)
        stack.callback(site.leases.close)
        label = site.start()
        site.write(label, b"one\n")
        got: list[bytes] = []
        farm = stack.enter_context(RemoteFarm(HttpClient(address, site.token)))
        thread = threading.Thread(target=lambda: got.extend(farm.log(1, "build", follow=True)))
        thread.start()
        until(lambda: got == [b"one\n"], "the first line")
        first.close()
        site.write(label, b"two\n")
        stack.enter_context(served(driven.settings, port=urlsplit(address).port or 0))
        until(lambda: b"".join(got) == b"one\ntwo\n", "the second line")
        whole = site.end(label, b"three\n")
        thread.join(30)
        assert b"".join(got) == whole


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/builds/999/log?follow=true", 404),
        ("/builds/1/log?follow=true&attempt=9", 404),
        ("/builds/1/log?follow=perhaps", 400),
        ("/builds/1/log?follow=true&tail=-1", 400),
        ("/events?build=0", 400),
    ],
)
def test_a_wrong_request_is_refused_before_it_stays_open(site: Site, path: str, status: int) -> None:
    site.start()
    assert site.client.get(path).status_code == status


# --- events -----------------------------------------------------------------------------------------------------


class Heard(threading.Thread):
    """Reads events as a browser does."""

    def __init__(self, site: Site, headers: dict[str, str] | None = None, **query: Any) -> None:
        super().__init__(daemon=True)
        self.blocks: list[dict[str, str]] = []
        self._site, self._headers, self._query = site, headers or {}, query
        self.start()
        until(lambda: self.blocks, "the first event")

    def run(self) -> None:
        with self._site.client.stream("GET", "/events", params=self._query, headers=self._headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            block: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    block[name] = value
                elif block:
                    self.blocks.append(block)
                    block = {}

    def changes(self) -> list[tuple[int, str | None, str]]:
        found = [json.loads(one["data"]) for one in self.blocks if one["event"] == "change"]
        return [(one["build"], one["step"], one["status"]) for one in found]


def test_events_are_heard_by_all_or_for_one_build(site: Site) -> None:
    label = site.start()
    build = int(label.split(".")[0])
    every, one, other = Heard(site), Heard(site, build=build), Heard(site, build=build + 1000)
    site.write(label, b"x\n")
    site.end(label)
    site.leases.publish({"build": build, "step": None, "status": "finished", "outcome": "cancelled", "secret": "x"})
    for heard in (every, one):
        until(lambda heard=heard: (build, None, "finished") in heard.changes(), "the event")
    assert (build, "build", "finished") in one.changes()
    assert other.changes() == []
    assert "secret" not in str(one.blocks)


def test_a_client_that_comes_back_gets_from_sql_what_it_missed(site: Site) -> None:
    before = Heard(site)
    last = before.blocks[0]["id"]
    label = site.start()
    build = int(label.split(".")[0])
    site.write(label, b"x\n")
    site.end(label)
    for heard in (Heard(site, {"last-event-id": last}), Heard(site, after=last, build=build)):
        until(lambda heard=heard: (build, "build", "finished") in heard.changes(), "the missed event")
        found = [one for one in heard.changes() if one[0] == build]
        steps = ("dispatched", "running", "finished")
        assert found[0] == (build, None, "ready")
        assert [one for one in found if one[1] == "build"] == [(build, "build", status) for status in steps]
        ids = [int(one["id"]) for one in heard.blocks[1:] if "id" in one]
        assert ids == sorted(ids)


def test_a_client_is_told_what_cannot_be_had_any_more(site: Site) -> None:
    long_ago = int((datetime.now(UTC) - timedelta(hours=2)).timestamp() * 1e6)
    heard = Heard(site, {"last-event-id": str(long_ago)})
    until(lambda: len(heard.blocks) > 1, "the word")
    assert (heard.blocks[1]["event"], "an hour" in heard.blocks[1]["data"]) == ("lost", True)
    assert Heard(site, {"last-event-id": "nonsense"}).blocks[0]["event"] == "ready"


def test_without_a_broker_there_are_no_events(tmp_path: Path) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven, served(driven.settings) as address:
        headers = {"authorization": f"Bearer {token_for(driven.store, EVE)}"}
        answer = httpx.get(f"{address}/api/v1/events", headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "farm-not-running")


def test_an_event_of_another_form_reaches_no_client(site: Site) -> None:
    heard = Heard(site, build=777)
    for forged in ({"build": 777}, {"build": 777, "status": "lost"}, {"build": 777, "status": "ready", "reason": [1]}):
        site.leases.publish(forged)
    site.leases.publish({"build": 777, "step": "fetch", "status": "ready"})
    until(heard.changes, "the event")
    assert heard.changes() == [(777, "fetch", "ready")]


def test_a_reader_that_takes_nothing_is_told_that_events_are_lost() -> None:
    async def slow() -> list[BuildEvent | Lost | None]:
        listener = Listener(None)
        at = datetime.now(UTC)
        for number in range(3000):
            listener.give(BuildEvent(build=number, status=Status.READY, at=at + timedelta(seconds=number)))
        found = [await listener.next() for _ in range(1001)]
        listener.give(BuildEvent(build=5000, status=Status.READY, at=at))
        listener.end()
        return [*found, await listener.next(), await listener.next()]

    found = asyncio.run(slow())
    assert [one.build for one in found[:1000] if isinstance(one, BuildEvent)] == list(range(1000))
    lost = found[1000]
    assert isinstance(lost, Lost)
    assert "1000 events waited" in lost.why
    assert (getattr(found[1001], "build", None), found[1002]) == (5000, None)


def test_events_and_logs_of_a_private_project_are_its_members_alone(site: Site) -> None:
    farm, store = site.driven.farm, site.driven.store
    farm.new_project("hidden", targets=["demo"], is_private=True)
    farm.grant("hidden", "ann", Role.PACKAGER)
    ann = {"authorization": f"Bearer {token_for(store, Actor(name='ann', roles=frozenset({Role.READER})))}"}
    build = farm.enqueue(git=URL, project="hidden", arches=["x86_64"])
    site.driven.to_build(build.id)
    label = f"{build.id}.build.x86_64.1"
    site.driven.start(label)
    site.write(label, b"secret words\n")
    for follow in (False, True):
        query = {"step": "build", "arch": "x86_64", "follow": follow}
        assert site.client.get(f"/builds/{build.id}/log", params=query).status_code == 404
    log = site.client.get(f"/builds/{build.id}/log", params={"step": "build", "arch": "x86_64"}, headers=ann)
    assert log.content == b"secret words\n"
    seen: dict[str, list[str]] = {}
    for name, headers in (("eve", site.headers), ("ann", ann)):
        with site.client.stream("GET", "/events", headers=headers) as answer:
            lines = answer.iter_lines()
            while next(lines) != "event: ready":
                pass
            site.leases.publish({"build": build.id, "step": "build", "status": Status.FINISHED, "project": "main"})
            open_ = farm.enqueue(git=URL, target="demo", arches=["x86_64"]).id
            site.leases.publish({"build": open_, "step": None, "status": Status.FINISHED})
            seen[name] = []
            while not seen[name] or f'"build":{open_},' not in seen[name][-1]:
                seen[name] += [line for line in (next(lines),) if line.startswith('data: {"')]
    assert [f'"build":{build.id},' in line for line in seen["eve"]] == [False]
    assert [f'"build":{build.id},' in line for line in seen["ann"]] == [True, False]
