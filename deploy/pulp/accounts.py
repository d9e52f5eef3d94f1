"""Service accounts in Pulp for the farm: one may publish, one may look. deploy/pulp/service-account runs it.

Owns which rights each has, which is the smallest set that tests/live/test_pulp_accounts.py found to do. Roles named
creator make the account the owner of what it creates, so it has no rights on what others made.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp

_TIMEOUT_S = 30.0
_PASSWORD_BYTES = 24
_SHOWN_CHARACTERS = 500
_KINDS = ("repository", "publication", "distribution")


class Purpose(StrEnum):
    PUBLISHER = "publisher"
    READER = "reader"

    @property
    def roles(self) -> tuple[str, ...]:
        """Pulp's own, which its upgrades keep up to date."""
        match self:
            case Purpose.PUBLISHER:
                made = [f"{plugin}.{plugin}{kind}_creator" for plugin in ("rpm", "file") for kind in _KINDS]
                return (*made, "rpm.rpm_package_uploader", "file.file_uploader", "core.upload_creator")
            case Purpose.READER:
                return tuple(f"{plugin}.{plugin}{kind}_viewer" for plugin in ("rpm", "file") for kind in _KINDS)


@dataclass(frozen=True, kw_only=True)
class Account:
    username: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Administration:
    """A Pulp and someone who may make users there. `domain` is where the roles hold; None without domains."""

    url: str
    admin: Account
    domain: str | None = None
    ca: Path | None = None


def make_publisher(pulp: LocalPulp) -> Account:
    """For the workers that publish. Safe to repeat; each time with a new password."""
    return make_account(local(pulp), Purpose.PUBLISHER)


def make_reader(pulp: LocalPulp) -> Account:
    """For the scheduler and for people, who look at repositories. Safe to repeat; each time with a new password."""
    return make_account(local(pulp), Purpose.READER)


def local(pulp: LocalPulp) -> Administration:
    return Administration(url=pulp.url, admin=Account(username=pulp.username, password=pulp.password))


def make_account(where: Administration, purpose: Purpose, *, username: str = "", password: str = "") -> Account:
    """A user with the roles of its purpose, made or brought to that: its password is set and roles that it lacks are
    added. Others that it has stay. Raises PulpError.
    """
    account = Account(
        username=username or f"farm-{purpose}", password=password or secrets.token_urlsafe(_PASSWORD_BYTES)
    )
    with _api(where) as api:
        href = _user(api, account)
        domain = _domain(api, where)
        held = {
            role["role"]
            for role in _ask(api, "GET", f"{href}roles/", params={"limit": 1000})["results"]
            if role["content_object"] is None and role.get("domain") == domain
        }
        for role in purpose.roles:
            if role not in held:
                given = {"role": role, "content_object": None} | ({"domain": domain} if domain else {})
                _ask(api, "POST", f"{href}roles/", json=given)
    return account


def _user(api: httpx.Client, account: Account) -> str:
    found = _ask(api, "GET", "users/", params={"username": account.username})["results"]
    if not found:
        made = _ask(api, "POST", "users/", json={"username": account.username, "password": account.password})
        return str(made["pulp_href"])
    if found[0]["is_staff"] or found[0].get("is_superuser"):
        raise PulpError(f"{account.username!r} is an administrator of this Pulp; choose another --name")
    _ask(api, "PATCH", found[0]["pulp_href"], json={"password": account.password, "is_active": True})
    return str(found[0]["pulp_href"])


def _domain(api: httpx.Client, where: Administration) -> str | None:
    if where.domain is None:
        return None
    found = _ask(api, "GET", "domains/", params={"name": where.domain})["results"]
    if not found:
        raise PulpError(f"Pulp at {where.url} has no domain {where.domain!r}; make it first: pulp domain create")
    return str(found[0]["pulp_href"])


@contextmanager
def _api(where: Administration) -> Iterator[httpx.Client]:
    root = "/pulp/api/v3/" if where.domain is None else "/pulp/default/api/v3/"
    auth = (where.admin.username, where.admin.password)
    verify = True if where.ca is None else httpx.create_ssl_context(str(where.ca))
    with httpx.Client(base_url=f"{where.url.rstrip('/')}{root}", auth=auth, timeout=_TIMEOUT_S, verify=verify) as api:
        yield api


def _ask(api: httpx.Client, method: str, path: str, **what: Any) -> Any:
    # A path that Pulp gave begins at the server's root.
    url = api.base_url.copy_with(raw_path=path.encode()) if path.startswith("/") else path
    try:
        answer = api.request(method, url, **what)
    except httpx.TransportError as error:
        raise PulpError(
            f"Pulp at {api.base_url} does not answer: {error}; see that it runs and --url is right"
        ) from error
    if answer.is_success:
        return answer.json()
    words = answer.text[:_SHOWN_CHARACTERS]
    match answer.status_code:
        case httpx.codes.UNAUTHORIZED:
            raise PulpError(f"Pulp at {api.base_url} does not accept the administrator's name or password")
        case httpx.codes.FORBIDDEN:
            raise PulpError(f"Pulp at {api.base_url} does not let this user make users: {words}; use an administrator")
        case code:
            raise PulpError(f"Pulp answered {method} {answer.url.path} with {code}: {words}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy/pulp/service-account",
        description="Makes a user in Pulp with only the rights that the farm needs. Safe to repeat.",
    )
    parser.add_argument("purpose", choices=[str(purpose) for purpose in Purpose], help="what the account may do")
    parser.add_argument("--url", required=True, help="Pulp's base URL, without a path")
    parser.add_argument("--admin", default="admin", help="who makes it (admin)")
    parser.add_argument("--admin-password-file", type=Path, required=True)
    parser.add_argument("--name", default="", help="the account's user name (farm-publisher or farm-reader)")
    help_text = "the account's password; written, readable by its owner only, when the file is not there"
    parser.add_argument("--password-file", type=Path, required=True, help=help_text)
    parser.add_argument("--domain", help="where the rights hold, in a Pulp with domains")
    parser.add_argument("--ca", type=Path, help="a bundle of certificates to trust")
    given = parser.parse_args()
    try:
        admin = Account(username=given.admin, password=_read(given.admin_password_file))
        where = Administration(url=given.url, admin=admin, domain=given.domain, ca=given.ca)
        password = _read(given.password_file) if given.password_file.exists() else _new_password(given.password_file)
        made = make_account(where, Purpose(given.purpose), username=given.name, password=password)
    except PulpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"{made.username} may do what a {given.purpose} does; for the farm's processes:")
    print(f"  FARM_REPOSITORIES=pulp\n  FARM_PULP_URL={given.url}\n  FARM_PULP_USERNAME={made.username}")
    print(f"  FARM_PULP_PASSWORD_FILE={given.password_file.absolute()}")
    if given.domain:
        print(f"  FARM_PULP_DOMAIN={given.domain}")
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise PulpError(f"{path} cannot be read: {error.strerror}") from error


def _new_password(path: Path) -> str:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{password}\n")
    except OSError as error:
        raise PulpError(f"{path} cannot be written: {error.strerror}") from error
    return password


if __name__ == "__main__":
    sys.exit(main())
