"""Limits on how often a client asks: per account over all servers, and on wrong tokens per address."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from farm.broker.rates import Rates
from farm.client.http import HttpClient
from farm.client.remote import RemoteFarm
from farm.config import Settings
from farm.model.actor import Actor, Role
from farm.server import limits
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served, token_for
from tests.waiting import until

ORDER = {"git": "https://example.org/hello.git", "target": "demo", "arches": ["x86_64"]}
ANN = Actor(name="ann", roles=frozenset({Role.ADMIN}))
BOB = Actor(name="bob", roles=frozenset({Role.READER}))


@contextmanager
def servers(driven: DrivenFarm, count: int = 1, **more: str) -> Iterator[list[httpx.Client]]:
    """Clients of so many servers of one farm, with these settings."""
    settings = Settings.from_env({**driven.env, **more})
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                httpx.Client(base_url=f"{stack.enter_context(served(settings))}/api/v1", trust_env=False, timeout=60)
            )
            for _ in range(count)
        ]


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path) as driven:
        yield driven


def bearer(driven: DrivenFarm, actor: Actor) -> dict[str, str]:
    return {"authorization": f"Bearer {token_for(driven.store, actor)}"}


@pytest.fixture
def long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test runs into the next window of time."""
    for name in ("_REQUESTS_WINDOW_S", "_ENQUEUES_WINDOW_S", "_LOGINS_WINDOW_S"):
        monkeypatch.setattr(limits, name, 3600)


@pytest.mark.usefixtures("long_window")
def test_requests_of_an_account_are_counted_over_all_servers(
    driven: DrivenFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_REQUESTS_WINDOW_S", 10**7)
    ann, other, bob = bearer(driven, ANN), bearer(driven, ANN), bearer(driven, BOB)
    with servers(driven, 2, FARM_RATE_REQUESTS="1") as (first, second):
        rates = Rates(driven.settings)
        rates.count("request", "ann", 10**7 - 3, window_s=10**7)
        rates.close()
        turns = ((first, ann), (second, other), (first, ann), (second, ann), (second, bob))
        statuses = [client.get("/whoami", headers=headers).status_code for client, headers in turns]
        refused = first.get("/whoami", headers=ann)
    assert statuses == [200, 200, 200, 429, 200]
    assert (refused.json()["code"], int(refused.headers["retry-after"]) >= 1) == ("too-many-requests", True)
    assert "more than 1 requests a second" in refused.json()["detail"]


@pytest.mark.usefixtures("long_window")
def test_builds_are_counted_and_a_batch_is_let_in_whole(driven: DrivenFarm) -> None:
    ann = bearer(driven, ANN)
    with servers(driven, FARM_RATE_ENQUEUES="3") as (client,):
        for orders, status in ((2, 201), (5, 201), (1, 429)):
            answer = client.post("/batches", headers=ann, json={"builds": [ORDER] * orders})
            assert answer.status_code == status, answer.text
        assert client.post("/builds", headers=ann, json=ORDER).status_code == 429
        assert len(client.get("/builds", headers=ann).json()["builds"]) == 7


@pytest.mark.usefixtures("long_window")
def test_wrong_tokens_slow_an_address_down_and_valid_ones_go_on(
    driven: DrivenFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LATER_S", 0.0)
    ann, bob = bearer(driven, ANN), bearer(driven, BOB)
    with servers(driven) as (client,):
        assert client.get("/whoami", headers=ann).status_code == 200
        wrong = {"authorization": "Bearer farm_1_" + "A" * 43}
        statuses = [client.get("/whoami", headers=wrong).status_code for _ in range(limits._MOST + 1)]
        assert statuses == [401] * limits._MOST + [429]
        assert client.get("/whoami", headers=ann).status_code == 200, "it was valid a moment ago"
        assert client.get("/whoami", headers=bob).status_code == 429
        assert client.get("/whoami").status_code == 401, "without a token nothing is looked up"


def test_the_answer_to_a_wrong_token_comes_later_each_time() -> None:
    delays = [limits.delay_s(before) for before in range(limits._MOST)]
    assert delays[:6] == [0] * 6
    assert delays == sorted(delays)
    assert (0 < delays[6] < 1, delays[-1]) == (True, 5)


def test_without_redis_a_process_counts_for_itself(tmp_path: Path) -> None:
    rates = Rates(Settings.from_env({"FARM_DATA": str(tmp_path)}))
    found = [rates.count("request", "ann", 1, window_s=3600)[0] for _ in range(3)]
    assert (found, rates.count("request", "bob", 1, window_s=3600)[0]) == ([0, 1, 2], 0)
    rates.close()


def test_a_client_waits_for_its_turn(driven: DrivenFarm) -> None:
    token = token_for(driven.store, ANN)
    with servers(driven, FARM_RATE_REQUESTS="2") as (client,):
        address = str(client.base_url).removesuffix("/api/v1/")
        headers = {"authorization": f"Bearer {token}"}
        until(lambda: client.get("/whoami", headers=headers).status_code == 429, "a refusal")
        with RemoteFarm(HttpClient(address, token)) as farm:
            assert farm.whoami().name == "ann"
