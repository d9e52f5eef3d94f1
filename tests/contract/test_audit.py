"""The audit log: one record for each act that changes something, from HTTP and from the command line alike."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from farm import Farm
from farm.config import Settings
from farm.errors import FarmError, NotPermitted
from farm.model.actor import Actor, Role
from farm.model.audit import AuditRecord
from tests.driven_farm import DrivenFarm, driven_farm
from tests.served import served, token_for
from tests.typed import Typed

EVE = Actor(name="eve", roles=frozenset({Role.READER}))
ORDER = {"git": "https://me:hunter2@example.org/hello.git", "target": "demo", "arches": ["x86_64"]}


@pytest.fixture
def driven(tmp_path: Path, database_url: str) -> Iterator[DrivenFarm]:
    with driven_farm(tmp_path, database_url=database_url) as driven:
        yield driven


def test_a_record_says_who_did_what_from_where_and_how_it_ended(driven: DrivenFarm) -> None:
    driven.env["FARM_DATABASE_URL"] = driven.settings.database_url
    typed = Typed(driven)
    typed.ok("build", "--git", str(ORDER["git"]), "-t", "demo", "-a", "x86_64")
    typed.ok("cancel", "1")
    assert typed("cancel", "1").exit_code == 24
    with Farm.connect(driven.settings, actor=EVE) as farm, pytest.raises(NotPermitted):
        farm.cancel(1)
    found = [(one.actor, one.verb, one.subject, one.outcome) for one in driven.farm.audit()]
    assert found == [
        ("eve", "cancel", "build 1", "not-permitted"),
        ("ann", "cancel", "build 1", "wrong-state"),
        ("ann", "cancel", "build 1", "done"),
        ("ann", "enqueue", "batch 1", "done"),
    ]
    assert {one.origin for one in driven.farm.audit()} == {"user root"}
    assert "hunter2" not in str(driven.farm.audit())


def test_acts_over_http_have_the_address_that_the_settings_believe(driven: DrivenFarm) -> None:
    env = {**driven.env, "FARM_DATABASE_URL": driven.settings.database_url}
    headers = {"authorization": f"Bearer {token_for(driven.store, EVE)}", "x-forwarded-for": "192.0.2.7"}
    for believed, origin in ({}, "127.0.0.1"), ({"FARM_SERVER_PROXIES": "127.0.0.1"}, "192.0.2.7"):
        with served(Settings.from_env(env | believed)) as address:
            answer = httpx.post(f"{address}/api/v1/builds", headers=headers, json=ORDER)
        assert answer.status_code == 403
        newest = driven.farm.audit(limit=1)[0]
        assert (newest.actor, newest.origin, newest.verb, newest.outcome) == ("eve", origin, "enqueue", "not-permitted")


def test_records_are_filtered_and_paged(driven: DrivenFarm) -> None:
    for number in range(7):
        with suppress(FarmError):
            driven.farm.cancel(number + 1)
        driven.farm.drain_host(f"h{number}", force=True)
    found = driven.farm.audit(limit=100)
    assert [one.id for one in found] == sorted((one.id for one in found), reverse=True)
    assert {one.subject for one in driven.farm.audit(verb="drain")} == {f"host h{number}" for number in range(7)}
    assert driven.farm.audit(actor="bob") == ()
    assert driven.farm.audit(since=datetime.min.replace(tzinfo=UTC), limit=100) == found
    assert driven.farm.audit(since=found[3].at, limit=100) == found[:4]
    assert driven.farm.audit(since=datetime.now(UTC) + timedelta(hours=1)) == ()
    admin = Actor(name="ann", roles=frozenset({Role.ADMIN}))
    headers = {"authorization": f"Bearer {token_for(driven.store, admin)}"}
    with served(driven.settings) as address:
        seen: list[int] = []
        query = {"limit": "3", "since": found[12].at.isoformat()}
        while query:
            page = httpx.get(f"{address}/api/v1/audit", params=query, headers=headers).json()
            seen += [one["id"] for one in page["records"]]
            query = query | {"before": str(page["next"])} if page["next"] else {}
    assert seen == [one.id for one in found[:13]]


def test_the_database_refuses_to_change_a_record(driven: DrivenFarm) -> None:
    driven.farm.drain_host("one", force=True)
    with (
        pytest.raises(Exception, match="append-only"),
        driven.store.writing() as connection,
    ):
        connection.execute(sa.text("UPDATE audit SET actor = 'bob'"))
    assert driven.farm.audit()[0].actor == "ann"


def test_old_records_go_only_where_the_setting_says_so(driven: DrivenFarm) -> None:
    old = AuditRecord(
        id=0, at=datetime.now(UTC) - timedelta(days=40), actor="ann", origin="user root", verb="drain",
        subject="host one", detail="", outcome="done",
    )  # fmt: skip
    driven.store.add_audit(old)
    typed = Typed(driven)
    env = {"FARM_DATABASE_URL": driven.settings.database_url}
    assert json.loads(typed("gc", "--json", **env).stdout)["gc"]["audit_records"] == 0
    env["FARM_KEEP_AUDIT_DAYS"] = "30"
    assert "1 records would be removed" in typed("gc", "--dry-run", **env).stdout
    assert "1 records were removed" in typed("gc", **env).stdout
    assert {one.verb for one in driven.farm.audit()} == {"collect"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "soon"), "use 90min, 12h, 7d"),
        (("--since", "0001-01-01T00:00+23:00"), "is no time"),
        (("--verb", "destroy"), "the verbs are enqueue"),
    ],
)
def test_a_wrong_filter_is_named(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven:
        result = Typed(driven)("audit", *words)
    assert (result.exit_code, says in result.stderr) == (20, True)


def test_the_table_and_the_document(tmp_path: Path) -> None:
    with driven_farm(tmp_path, with_redis=False) as driven:
        typed = Typed(driven)
        assert "no acts yet" in typed.ok("audit")
        typed.ok("token", "new", "--role", "reader", "--actor", "bob")
        assert "token 1 of bob" in typed.ok("audit", "--since", "1h", "--verb", "make-tokens")
        (record,) = json.loads(typed.ok("audit", "--json"))["audit"]
        assert (record["actor"], record["subject"], record["outcome"]) == ("ann", "token 1 of bob", "done")
        assert record["detail"].startswith("reader, until ")


def test_a_page_costs_the_same_after_a_million_acts(tmp_path: Path) -> None:
    """SQLite says by which index it finds the first of the asked times."""
    with driven_farm(tmp_path, with_redis=False) as driven:
        asked: list[str] = []
        engine = driven.store._engine
        sa.event.listen(engine, "before_cursor_execute", lambda _c, _k, text, *_: asked.append(text))
        driven.store.audit(since=datetime.now(UTC))
        with engine.connect() as connection:
            (text,) = [one for one in asked if one.startswith("SELECT")]
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", ("x",) * text.count("?")).all())
    assert "SEARCH audit USING COVERING INDEX ix_audit_at_id (at>?)" in plan
    assert "SCAN audit'" not in plan
