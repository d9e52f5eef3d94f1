"""Wrong settings of Pulp's account and address: each gives a message, soon, and loses nothing."""

import http.server
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.pulp.accounts import make_publisher
from deploy.pulp.local import LocalPulp
from farm.errors import RepositoryTrouble
from farm.repositories.base import RepositoryPackage
from tests.pulp_watch import NAME, Place, packages, place

SOON_S = 25.0  # no longer than a part of what it would wait for a Pulp that is away


@pytest.fixture(scope="module")
def farm(pulp: LocalPulp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(pulp, tmp_path_factory.mktemp("farm"), pulp_retry_s=30.0) as made:
        yield made


@pytest.fixture(scope="module")
def published(farm: Place, tmp_path_factory: pytest.TempPathFactory) -> list[RepositoryPackage]:
    """The content of the repository; each test adds to it."""
    first = packages(tmp_path_factory.mktemp("first"), "first")
    farm.backend.add(NAME, first)
    return first


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "password": ({"pulp_password": "wrong"}, r"does not accept user 'admin'.*FARM_PULP_PASSWORD_FILE"),
    "user": ({"pulp_username": "nobody-of-that-name"}, r"does not accept user 'nobody-of-that-name'"),
    "no credentials": ({"pulp_username": "", "pulp_password": ""}, r"FARM_PULP_USERNAME"),
    "CA": ({"pulp_url": "https://127.0.0.1:1", "pulp_ca": Path("/no/such/ca.pem")}, r"FARM_PULP_CA=/no/such/ca\.pem"),
    "certificate": (
        {
            "pulp_url": "https://127.0.0.1:1",
            "pulp_cert": Path("/no/such/cert.pem"),
            "pulp_username": "",
            "pulp_password": "",
        },
        r"FARM_PULP_CERT=/no/such/cert\.pem",
    ),
    "content app": ({"pulp_url": "http://127.0.0.1:{content}"}, r"no Pulp.*FARM_PULP_URL"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_setting_is_said_in_words_soon(farm: Place, tmp_path: Path, wrong: str) -> None:
    more, words = WRONG[wrong]
    api, content = farm.pulp.home.ports()
    if "pulp_url" in more:
        more = {**more, "pulp_url": more["pulp_url"].format(api=api, content=content)}
    backend, began = farm.again(**more), time.monotonic()
    with pytest.raises(RepositoryTrouble, match=words) as refused:
        backend.add(NAME, packages(tmp_path, "refused"))
    assert time.monotonic() - began < SOON_S
    assert NAME.path in str(refused.value)
    lacking = [check for check in backend.check() if not check.is_ok]
    assert lacking
    assert re.search(words, lacking[0].found)
    assert lacking[0].remedy


def test_an_address_where_nothing_listens_is_found_by_the_check_soon(farm: Place) -> None:
    """The `add` waits for Pulp, which may be restarting."""
    backend, began = farm.again(pulp_url="http://127.0.0.1:9"), time.monotonic()
    (check,) = backend.check()
    assert not check.is_ok
    assert "127.0.0.1:9" in check.found
    assert time.monotonic() - began < SOON_S


@contextmanager
def web_server(page: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", [b"<html>hello</html>", b'{"hello": 1}', b"\xff\xfe", b"[]"])
def test_a_web_server_that_is_no_pulp_is_said_to_be_none(farm: Place, page: bytes) -> None:
    with web_server(page) as url:
        began = time.monotonic()
        with pytest.raises(RepositoryTrouble, match=r"no Pulp.*FARM_PULP_URL"):
            farm.again(pulp_url=url).current(NAME)
        assert time.monotonic() - began < SOON_S


def test_a_session_that_ended_in_pulp_is_started_again_by_all_threads(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path
) -> None:
    for when in ("/packages/upload/", "/modify/", "/publications/"):
        given = packages(tmp_path, f"session{len(published)}x", 6)
        farm.proxy.when_it_came("POST", when, lambda: farm.sql("DELETE FROM django_session") and None)
        farm.backend.add(NAME, given)
        published += given
    farm.assert_well(published)


def test_a_password_that_was_changed_meanwhile_is_said_in_words(
    farm: Place, published: list[RepositoryPackage], tmp_path: Path
) -> None:
    account = make_publisher(farm.pulp)
    backend = farm.again(pulp_username=account.username, pulp_password=account.password, pulp_prefix="changed")
    first = packages(tmp_path, "before")
    backend.add(NAME, first)
    changed = make_publisher(farm.pulp)
    given, began = packages(tmp_path, "after"), time.monotonic()
    with pytest.raises(RepositoryTrouble, match=f"does not accept user '{account.username}'"):
        backend.add(NAME, given)
    assert time.monotonic() - began < SOON_S
    right = farm.again(pulp_username=account.username, pulp_password=changed.password, pulp_prefix="changed")
    right.add(NAME, given)
    assert next(version.packages for version in right.versions(NAME)) == 2


#: The right that an account lacks, and the operation that its publisher is then refused.
ROLES = {
    "rpm.rpm_package_uploader": "content_rpm_packages_upload",
    "rpm.rpmdistribution_creator": "distributions_rpm_rpm_create",
}


@contextmanager
def role_taken(farm: Place, username: str, role: str) -> Iterator[None]:
    """The administrator has it meanwhile."""
    move = (
        "UPDATE core_userrole SET user_id = (SELECT id FROM auth_user WHERE username = %s) WHERE user_id = (SELECT id "
        "FROM auth_user WHERE username = %s) AND object_id IS NULL AND role_id = (SELECT pulp_id FROM core_role "
        "WHERE name = %s) RETURNING 1"
    )
    assert farm.sql(move, farm.pulp.username, username, role) == [1]
    yield
    assert farm.sql(move, username, farm.pulp.username, role) == [1]


def test_a_role_that_lacks_is_named_and_once_given_the_repeat_succeeds(farm: Place, tmp_path: Path) -> None:
    account = make_publisher(farm.pulp)
    for number, (role, operation) in enumerate(ROLES.items()):
        backend = farm.again(
            pulp_username=account.username, pulp_password=account.password, pulp_prefix=f"lacks{number}"
        )
        given = packages(tmp_path, f"role{number}x")
        with role_taken(farm, account.username, role):
            with pytest.raises(RepositoryTrouble, match=rf"'{account.username}'.*{operation}"):
                backend.add(NAME, given)
            lacking = [check for check in backend.check() if not check.is_ok and check.found == "not allowed"]
            assert [role in check.remedy for check in lacking] == [True]
        assert backend.add(NAME, given) == backend.current(NAME) == 1
