"""Access tokens: the secret is nowhere, and no text but a valid token is taken for one."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farm.errors import BadRequest, NotLoggedIn
from farm.model.actor import Role
from farm.model.token import NewToken
from farm.service.connections import Connections
from farm.service.service import FarmService
from farm.service.tokens import parse_expiry
from tests.driven_farm import driven_farm
from tests.typed import Typed


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Typed]:
    with driven_farm(tmp_path, with_redis=False) as driven:
        yield Typed(driven)


@pytest.fixture
def service(typed: Typed) -> Iterator[FarmService]:
    service = FarmService(Connections.open(typed.driven.settings))
    yield service
    service.close()


@pytest.fixture
def made(typed: Typed) -> NewToken:
    return typed.driven.farm.new_token(name="laptop", roles=[Role.PACKAGER, Role.READER], bearer="ann")


def test_the_database_has_no_secret(typed: Typed, made: NewToken) -> None:
    secret = made.secret.split("_", 2)[2].encode()
    for path in typed.driven.settings.data.glob("farm.db*"):
        assert secret not in path.read_bytes()


def test_only_the_whole_token_is_a_token(service: FarmService, made: NewToken) -> None:
    assert service.bearer(made.secret).id == made.token.id
    other = "A" if made.secret[-1] != "A" else "B"
    for text in (
        *("", "farm", made.secret[:-1], made.secret + "x", made.secret[:-1] + other, f" {made.secret}"),
        *(made.secret.replace("farm_1", "farm_2"), made.secret.replace("farm_1", "farm_01")),
        *(f"farm_{'9' * 18}_{'A' * 43}", f"farm_{'9' * 40}_{'A' * 43}", "farm_1_" + "é" * 43, "\0" * 50),
    ):
        with pytest.raises(NotLoggedIn) as raised:
            service.bearer(text)
        assert made.secret[7:-1] not in str(raised.value)


def test_a_token_expires(service: FarmService, typed: Typed) -> None:
    made = typed.driven.farm.new_token(name="x", roles=[Role.READER], expires=timedelta(microseconds=1))
    with pytest.raises(NotLoggedIn, match="is expired since"):
        service.bearer(made.secret)


def test_a_use_is_written_once_a_minute(typed: Typed, made: NewToken) -> None:
    store, now = typed.driven.store, datetime.now(UTC)
    for seconds, noted in ((0, 0), (30, 0), (61, 61)):
        store.note_use(store.tokens()[0], now + timedelta(seconds=seconds))
        assert store.tokens()[0].last_used_at == now + timedelta(seconds=noted)


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-1d", "1.5d", "90 days", "9999999d", "٣d"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="use 12h or 90d"):
        parse_expiry(text)


# --- typed ------------------------------------------------------------------------------------------------------


def test_a_token_is_typed_listed_and_revoked(typed: Typed, service: FarmService) -> None:
    result = typed("token", "new", "--role", "packager", "--actor", "bob", "--name", "ci", "--expires", "12h")
    assert re.fullmatch(r"farm_1_[\w-]{43}\n", result.stdout)
    assert "token 1 of bob (packager) is valid until" in result.stderr
    assert service.bearer(result.stdout.strip()).actor == "bob"
    listed = typed.ok("token", "list")
    assert re.search(r"1 +bob +packager +valid +\S+ +\d+ s ago +ci", listed)
    assert result.stdout.strip() not in listed
    assert "gives no right any more" in typed("token", "revoke", "1").stderr
    assert json.loads(typed.ok("token", "list", "--json"))["tokens"][0]["revoked_by"] == "ann"


def test_with_json_the_secret_is_in_the_first_document_alone(typed: Typed) -> None:
    made = json.loads(typed.ok("token", "new", "--role", "reader", "--json"))
    assert made["secret"].startswith("farm_1_")
    assert (made["token"]["actor"], made["token"]["roles"]) == ("ann", ["reader"])
    assert "secret" not in typed.ok("token", "list", "--json")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["new"], 2, "--role"),
        (["new", "--role", "king"], 2, "'reader', 'packager', 'maintainer', 'operator', 'admin'"),
        (["new", "--role", "reader", "--expires", "soon"], 20, "use 12h or 90d"),
        (["new", "--role", "reader", "--expires", "367d"], 20, "at most 366 days"),
        (["new", "--role", "reader", "--actor", ""], 20, "owner ''"),
        (["revoke", "9"], 23, "there is no token 9"),
        (["revoke", "x"], 2, "'x'"),
    ],
)
def test_a_mistake_has_words_and_a_code(typed: Typed, words: list[str], code: int, says: str) -> None:
    result = typed("token", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
