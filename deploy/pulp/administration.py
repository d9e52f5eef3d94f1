"""Administers a Pulp through its API: the administrator, requests, and secrets in files.

Owns the messages that an administrator gets when a request fails. Does not start any Pulp.
"""

import argparse
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.pulp.errors import PulpError
from deploy.pulp.local import LocalPulp

_TIMEOUT_S = 30.0
PASSWORD_BYTES = 24
_SHOWN_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True)
class Account:
    username: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Administration:
    """A Pulp and a user who may make users there. `domain` is the domain of the roles; None without domains."""

    url: str
    admin: Account
    domain: str | None = None
    ca: Path | None = None


def local(pulp: LocalPulp) -> Administration:
    return Administration(url=pulp.url, admin=Account(username=pulp.username, password=pulp.password))


def administration_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a Pulp and its administrator."""
    parser.add_argument("--url", required=True, help="Pulp's base URL, without a path")
    parser.add_argument("--admin", default="admin", help="the administrator (admin)")
    parser.add_argument("--admin-password-file", type=Path, required=True)
    parser.add_argument("--domain", help="the domain of the roles, in a Pulp with domains")
    parser.add_argument("--ca", type=Path, help="a bundle of certificates to trust")


def administration(given: argparse.Namespace) -> Administration:
    """The Pulp and its administrator from those options. Raises PulpError."""
    admin = Account(username=given.admin, password=read_secret(given.admin_password_file))
    return Administration(url=given.url, admin=admin, domain=given.domain, ca=given.ca)


@contextmanager
def api_of(where: Administration) -> Iterator[httpx.Client]:
    """A client with the administrator's credentials."""
    root = "/pulp/api/v3/" if where.domain is None else f"/pulp/{where.domain}/api/v3/"
    auth = (where.admin.username, where.admin.password)
    verify = True if where.ca is None else httpx.create_ssl_context(str(where.ca))
    with httpx.Client(base_url=f"{where.url.rstrip('/')}{root}", auth=auth, timeout=_TIMEOUT_S, verify=verify) as api:
        yield api


def ask(api: httpx.Client, method: str, path: str, **what: Any) -> Any:
    """The answer's JSON, None if it has none. Raises PulpError, with a message for an administrator."""
    # A path that Pulp gave begins at the server's root.
    url = api.base_url.copy_with(raw_path=path.encode()) if path.startswith("/") else path
    try:
        answer = api.request(method, url, **what)
    except httpx.TransportError as error:
        raise PulpError(
            f"Pulp at {api.base_url} does not answer: {error}; see that it runs and --url is right"
        ) from error
    if answer.is_success:
        return answer.json() if answer.content else None
    words = answer.text[:_SHOWN_CHARACTERS]
    match answer.status_code:
        case httpx.codes.UNAUTHORIZED:
            raise PulpError(f"Pulp at {api.base_url} does not accept the administrator's name or password")
        case httpx.codes.FORBIDDEN:
            raise PulpError(f"Pulp at {api.base_url} does not let this user do that: {words}; use an administrator")
        case code:
            raise PulpError(f"Pulp answered {method} {answer.url.path} with {code}: {words}")


def domain_href(api: httpx.Client, where: Administration) -> str | None:
    """The domain, None in a Pulp without. Raises PulpError."""
    if where.domain is None:
        return None
    found = ask(api, "GET", "domains/", params={"name": where.domain})["results"]
    if not found:
        raise PulpError(f"Pulp at {where.url} has no domain {where.domain!r}; make it first: pulp domain create")
    return str(found[0]["pulp_href"])


def read_secret(path: Path) -> str:
    """Raises PulpError."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise PulpError(f"{path} cannot be read: {error.strerror}") from error


def kept_secret(path: Path) -> str:
    """The content of the file; if it does not exist, a new secret, which is written to it. Raises PulpError."""
    return read_secret(path) if path.exists() else _new_secret(path)


def _new_secret(path: Path) -> str:
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{password}\n")
    except OSError as error:
        raise PulpError(f"{path} cannot be written: {error.strerror}") from error
    return password
