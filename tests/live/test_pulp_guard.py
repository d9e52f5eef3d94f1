"""The content guard for the farm's repositories: they are read through the proxy alone. Also with domains."""

import secrets
from pathlib import Path

import httpx
import pytest
from plumbum import local

from deploy.pulp.accounts import Purpose, make_account, make_publisher
from deploy.pulp.administration import Account, Administration, ask
from deploy.pulp.errors import PulpError
from deploy.pulp.guard import HEADER, header_value
from deploy.pulp.local import LocalPulp
from deploy.pulp.processes import until
from farm.repositories import RepositoryKind, RepositoryName
from farm.repositories.pulp import PulpRepositories
from tests.pulp_server import QUICK_PASSWORDS, local_pulp, pulp_settings

_SCRIPT = Path(__file__).parent.parent.parent / "deploy/pulp/content-guard"

_WITHIN_S = 60.0
SOURCE = RepositoryName(target="demo", kind=RepositoryKind.SOURCE)

pytestmark = pytest.mark.live


def test_only_the_proxy_reads_guarded_repositories_and_others_stay_open(pulp: LocalPulp, tmp_path: Path) -> None:
    prefix = f"t{secrets.token_hex(4)}"
    publisher = make_publisher(pulp)
    _served(pulp, publisher, f"{prefix}/one")
    _served(pulp, publisher, f"other-{prefix}")
    assert _code(pulp, f"{prefix}/one") == httpx.codes.OK
    secret = tmp_path / "secret"
    words = ["--url", pulp.url, "--admin-password-file", str(pulp.password_file), "--prefix", prefix]
    assert "1 distributions were open" in local[str(_SCRIPT)](*words, "--secret-file", str(secret))
    _assert_guarded(pulp, f"{prefix}/one", secret)
    assert _code(pulp, f"other-{prefix}") == httpx.codes.OK
    _served(pulp, publisher, f"{prefix}/two")
    again = local[str(_SCRIPT)](*words, "--secret-file", str(secret))
    assert "1 distributions were open" in again
    _assert_guarded(pulp, f"{prefix}/two", secret)

    (guard,) = [line.partition("=")[2] for line in again.splitlines() if "FARM_PULP_CONTENT_GUARD=" in line]
    given = {"pulp_prefix": prefix, "pulp_username": publisher.username, "pulp_password": publisher.password}
    repositories = PulpRepositories(pulp_settings(pulp, tmp_path, pulp_content_guard=guard, **given))
    repositories.add(SOURCE, [])
    for version in ("0", "current"):
        _assert_guarded(pulp, f"{prefix}/demo/source/{version}", secret)


def test_in_a_domain_later_distributions_are_guarded_and_the_account_has_no_rights_elsewhere(tmp_path: Path) -> None:
    with local_pulp(workers=1, settings={**QUICK_PASSWORDS, "DOMAIN_ENABLED": True}) as pulp:
        admin = Account(username=pulp.username, password=pulp.password)
        settings = {"location": str(pulp.home.data / "media")}
        storage = {"storage_class": "pulpcore.app.models.storage.FileSystem", "storage_settings": settings}
        with _client(pulp, admin, "default") as api:
            ask(api, "POST", "domains/", json={"name": "builds", **storage})
        where = Administration(url=pulp.url, admin=admin, domain="builds")
        make_account(where, Purpose.PUBLISHER)
        publisher = make_account(where, Purpose.PUBLISHER)
        _served(pulp, publisher, "farm/one", "builds")
        secret = tmp_path / "secret"
        words = ["--url", pulp.url, "--admin-password-file", str(pulp.password_file), "--domain", "builds"]
        assert "1 distributions were open" in local[str(_SCRIPT)](*words, "--secret-file", str(secret))
        _served(pulp, publisher, "farm/two", "builds")
        for name in ("builds/farm/one", "builds/farm/two"):
            _assert_guarded(pulp, name, secret)
        with _client(pulp, publisher, "default") as api, pytest.raises(PulpError, match="does not let"):
            ask(api, "POST", "repositories/file/file/", json={"name": "mine"})


def _assert_guarded(pulp: LocalPulp, name: str, secret: Path) -> None:
    until(lambda: _code(pulp, name) == httpx.codes.FORBIDDEN, _WITHIN_S, "the guard")
    assert _code(pulp, name, {HEADER: header_value("guessed")}) == httpx.codes.FORBIDDEN
    assert _code(pulp, name, {HEADER: header_value(secret.read_text().strip())}) == httpx.codes.OK


def _client(pulp: LocalPulp, account: Account, domain: str = "") -> httpx.Client:
    auth = (account.username, account.password)
    root = f"{pulp.url}/pulp/{domain}/api/v3/" if domain else f"{pulp.url}/pulp/api/v3/"
    return httpx.Client(base_url=root, auth=auth, timeout=60)


def _served(pulp: LocalPulp, publisher: Account, name: str, domain: str = "") -> None:
    with _client(pulp, publisher, domain) as api:
        repository = ask(api, "POST", "repositories/file/file/", json={"name": name})["pulp_href"]
        ask(api, "POST", "publications/file/file/", json={"repository": repository})
        wanted = {"name": name, "base_path": name, "repository": repository}
        ask(api, "POST", "distributions/file/file/", json=wanted)
    place = f"{domain}/{name}" if domain else name
    until(lambda: _code(pulp, place) != httpx.codes.NOT_FOUND, _WITHIN_S, f"{place} to be served")


def _code(pulp: LocalPulp, name: str, headers: dict[str, str] | None = None) -> int:
    return httpx.get(f"{pulp.content_url}{name}/", headers=headers).status_code
