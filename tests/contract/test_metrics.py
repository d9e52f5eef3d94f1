"""/metrics: the figures are those of the farm, and their cost does not grow with its past."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from farm.model.actor import Actor, Role
from farm.model.outcome import Outcome
from farm.server import metrics
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served, token_for

EVE = Actor(name="eve", roles=frozenset({Role.READER}))
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def driven(tmp_path: Path, database_url: str) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path, database_url=database_url, with_redis=False) as driven:
        yield driven


def scraped(address: str, headers: dict[str, str]) -> Figures:
    answer = httpx.get(f"{address}/metrics", headers=headers)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain"), answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def enqueue(driven: DrivenFarm) -> int:
    requests = [driven.farm.request(git="https://example.org/a.git", target="demo", arches=["x86_64"])]
    return driven.store.add_batch(requests, owner="ann").builds[0].id


def test_the_figures_are_those_of_the_farm(driven: DrivenFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_SETTLED", timedelta(0))
    with served(driven.settings) as address:
        headers = {"authorization": f"Bearer {token_for(driven.store, EVE)}"}
        before = scraped(address, headers)
        assert not any(name == "farm_builds_finished_total" for name, _ in before)
        driven.finish(enqueue(driven))
        failed = enqueue(driven)
        driven.to_build(failed)
        driven.fail(f"{failed}.build.x86_64.1")
        waiting = enqueue(driven)
        with driven.store.writing() as connection:
            created_at = datetime.now(UTC) - timedelta(minutes=10)
            connection.execute(
                sa.text("UPDATE build SET created_at = :at WHERE id = :id").bindparams(
                    sa.bindparam("at", created_at, type_=sa.DateTime(timezone=True)), id=waiting
                )
            )
        httpx.get(f"{address}/api/v1/builds/99", headers=headers)
        httpx.get(f"{address}/api/v1/builds")
        found = scraped(address, headers)
        again = scraped(address, headers)
    source = (("arch", ""), ("queue", "source"))
    assert found["farm_queue_ready_steps", source] == 1
    assert 595 < found["farm_queue_oldest_wait_seconds", source] < 700
    assert found["farm_builds_finished_total", (("outcome", "succeeded"),)] == 1
    assert found["farm_builds_finished_total", (("outcome", "failed"),)] == 1
    assert found["farm_step_seconds_count", (("arch", ""), ("step", "fetch"))] == 2
    assert again["farm_builds_finished_total", (("outcome", "failed"),)] == 1, "counted once"
    http = {labels: value for (name, labels), value in found.items() if name == "farm_http_request_seconds_count"}
    assert http[("method", "GET"), ("route", "/api/v1/builds/{build_id}"), ("status", "404")] == 1
    assert http[("method", "GET"), ("route", "/api/v1/builds"), ("status", "401")] == 1


def test_troubles_and_publications_are_counted_with_their_build(driven: DrivenFarm) -> None:
    build = enqueue(driven)
    began_at = datetime.now(UTC)
    driven.to_build(build)
    driven.start(f"{build}.build.x86_64.1")
    driven.succeed(f"{build}.build.x86_64.1")
    driven.start(f"{build}.upload.x86_64.1", "publish@one")
    driven.succeed(f"{build}.upload.x86_64.1")
    with driven.store.writing() as connection:
        connection.execute(sa.text("UPDATE step SET troubles = 2, deaths = 1 WHERE kind = 'build'"))
    found = driven.store.ended_work(began_at, datetime.now(UTC))
    assert found.outcomes == {Outcome.SUCCEEDED: 1}
    assert {one.kind: (one.retries, one.losses) for one in found.troubles}["build"] == (2, 1)
    (published,) = [one for one in found.attempts if one.is_publication]
    assert (published.kind, published.ran_s is not None) == ("upload", True)
    assert driven.store.ended_work(datetime.now(UTC), datetime.now(UTC)).attempts == ()


def test_the_past_costs_nothing(tmp_path: Path) -> None:
    """SQLite says by which index it finds what has ended."""
    with driven_farm(tmp_path, with_redis=False) as driven:
        asked: list[str] = []
        engine = driven.store._engine
        sa.event.listen(engine, "before_cursor_execute", lambda _c, _k, text, *_: asked.append(text))
        driven.store.ended_work(datetime.now(UTC), datetime.now(UTC))
        driven.store.queue_figures()
        with engine.connect() as connection:
            for text in [one for one in asked if one.startswith("SELECT")]:
                values = tuple("x" for _ in range(text.count("?")))
                plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())
                for table in ("build", "step", "attempt"):
                    assert f"SCAN {table}'" not in plan, (text, plan)
