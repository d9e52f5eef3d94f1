"""The login at Pulp: as seldom as possible, and again when that can help."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pulp_glue.common.exceptions import PulpAuthenticationFailed, PulpNotAutorized

from farm.config import Settings
from farm.repositories.pulp.server import PulpServer


class Api:
    """The part of pulp-glue's HTTP client that the login needs: sessions are numbered."""

    def __init__(self, made: list[str]) -> None:
        self.operations = {"login": ("post", "/login/")}
        self.session: Mapping[str, str] = {}
        self._made = made

    def log_in(self, path: str, username: str, password: str) -> Mapping[str, str]:
        self._made.append(username)
        return {"sessionid": str(len(self._made))}

    def use_session(self, cookies: Mapping[str, str]) -> None:
        self.session = cookies


@pytest.fixture
def made() -> list[str]:
    return []


@pytest.fixture
def server(tmp_path: Path) -> PulpServer:
    url = "http://127.0.0.1:9"
    return PulpServer(Settings(data=tmp_path, repositories="pulp", pulp_url=url, pulp_username="u", pulp_password="p"))


REFUSED, NOT_ALLOWED = PulpAuthenticationFailed("x"), PulpNotAutorized("x")


def test_threads_share_one_session(server: PulpServer, made: list[str]) -> None:
    apis: list[Any] = [Api(made) for _ in range(3)]
    for api in apis:
        assert server.sign_in(api)
    assert [api.session["sessionid"] for api in apis] == ["1", "1", "1"]
    assert made == ["u"]


def test_a_refused_session_is_replaced_once_for_all_that_had_it(server: PulpServer, made: list[str]) -> None:
    apis: list[Any] = [Api(made) for _ in range(3)]
    for api in apis:
        server.sign_in(api)
    assert all(server.sign_in(api, refused=REFUSED) for api in apis)
    assert [api.session["sessionid"] for api in apis] == ["2", "2", "2"]
    assert len(made) == 2


def test_a_refusal_of_a_fresh_session_is_about_rights(server: PulpServer, made: list[str]) -> None:
    api: Any = Api(made)
    server.sign_in(api)
    assert not server.sign_in(api, refused=NOT_ALLOWED)
    assert len(made) == 1
