"""Service accounts in Pulp for the farm: one may publish, one may only read. deploy/pulp/service-account runs it.

Owns the rights of each, which are the smallest set with which tests/live/test_pulp_accounts.py passes. Roles named
creator make the account the owner of the objects that it creates, so it has no rights on those of others.
"""

import argparse
import secrets
import sys
from enum import StrEnum
from pathlib import Path

import httpx

from deploy.pulp.administration import (
    PASSWORD_BYTES,
    Account,
    Administration,
    administration,
    administration_options,
    api_of,
    ask,
    domain_href,
    kept_secret,
    local,
)
from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp

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


def make_publisher(pulp: LocalPulp) -> Account:
    """Make the account of the workers that publish. Safe to repeat; each time it gets a new password."""
    return make_account(local(pulp), Purpose.PUBLISHER)


def make_reader(pulp: LocalPulp) -> Account:
    """Make the account of the scheduler and of people, which read repositories. Safe to repeat; each time it gets a new
    password."""
    return make_account(local(pulp), Purpose.READER)


def make_account(where: Administration, purpose: Purpose, *, username: str = "", password: str = "") -> Account:
    """Make a user with the roles of its purpose, or change it: its password is set and missing roles are added. Its
    other roles stay. Raises PulpError.
    """
    account = Account(
        username=username or f"farm-{purpose}", password=password or secrets.token_urlsafe(PASSWORD_BYTES)
    )
    with api_of(where) as api:
        href = _user(api, account)
        domain = domain_href(api, where)
        held = {
            role["role"]
            for role in ask(api, "GET", f"{href}roles/", params={"limit": 1000})["results"]
            if role["content_object"] is None and role.get("domain") == domain
        }
        for role in purpose.roles:
            if role not in held:
                given = {"role": role, "content_object": None} | ({"domain": domain} if domain else {})
                ask(api, "POST", f"{href}roles/", json=given)
    return account


def _user(api: httpx.Client, account: Account) -> str:
    found = ask(api, "GET", "users/", params={"username": account.username})["results"]
    if not found:
        made = ask(api, "POST", "users/", json={"username": account.username, "password": account.password})
        return str(made["pulp_href"])
    if found[0]["is_staff"] or found[0].get("is_superuser"):
        raise PulpError(f"{account.username!r} is an administrator of this Pulp; choose another --name")
    ask(api, "PATCH", found[0]["pulp_href"], json={"password": account.password, "is_active": True})
    return str(found[0]["pulp_href"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy/pulp/service-account",
        description="Makes a user in Pulp with only the rights that the farm needs. Safe to repeat.",
    )
    parser.add_argument("purpose", choices=[str(purpose) for purpose in Purpose], help="the rights of the account")
    parser.add_argument("--name", default="", help="the account's user name (farm-publisher or farm-reader)")
    administration_options(parser)
    help_text = "the account's password; written, readable by its owner only, when the file is not there"
    parser.add_argument("--password-file", type=Path, required=True, help=help_text)
    given = parser.parse_args()
    try:
        password = kept_secret(given.password_file)
        made = make_account(administration(given), Purpose(given.purpose), username=given.name, password=password)
    except PulpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"{made.username} may do what a {given.purpose} does; for the farm's processes:")
    print(f"  FARM_REPOSITORIES=pulp\n  FARM_PULP_URL={given.url}\n  FARM_PULP_USERNAME={made.username}")
    print(f"  FARM_PULP_PASSWORD_FILE={given.password_file.absolute()}")
    if given.domain:
        print(f"  FARM_PULP_DOMAIN={given.domain}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
