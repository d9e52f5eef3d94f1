"""A content guard on the farm's repositories in Pulp. `deploy/pulp/content-guard` runs it.

The guard requires a header that a reverse proxy adds for the clients that it admits: build hosts, which have no
credential of Pulp, by their network, people by their login. Owns the guard and its distributions; not the proxy.
"""

import argparse
import base64
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.pulp.administration import (
    Administration,
    administration,
    administration_options,
    api_of,
    ask,
    domain_href,
    kept_secret,
)
from deploy.pulp.errors import PulpError

NAME = "farm"
HEADER = "X-Farm-Reader"
_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """`count` distributions were open before; `href` is the guard's."""

    count: int
    href: str


def set_guard(where: Administration, prefix: str, secret: str) -> Guarded:
    """Guard all distributions below the prefix, and, in a domain, also those that are made there later. Safe to repeat,
    also with another secret. Raises PulpError.
    """
    with api_of(where) as api:
        guard = _guard(api, secret)
        domain = domain_href(api, where)
        if domain is not None:
            # The farm makes a distribution for each version, and none of them may be open until this runs again.
            ask(api, "PATCH", domain, json={"default_content_guard": guard})
        return Guarded(count=_guard_all(api, prefix, guard), href=guard)


def header_value(secret: str) -> str:
    """The header value that the proxy sends: Pulp expects base64."""
    return base64.b64encode(secret.encode()).decode()


def _guard(api: httpx.Client, secret: str) -> str:
    wanted = {"name": NAME, "header_name": HEADER, "header_value": secret}
    found = ask(api, "GET", "contentguards/core/header/", params={"name": NAME})["results"]
    if not found:
        return str(ask(api, "POST", "contentguards/core/header/", json=wanted)["pulp_href"])
    ask(api, "PATCH", found[0]["pulp_href"], json=wanted)
    return str(found[0]["pulp_href"])


def _guard_all(api: httpx.Client, prefix: str, guard: str) -> int:
    count = 0
    for kind in ("rpm/rpm", "file/file"):
        asked = {"name__startswith": f"{prefix}/", "limit": _AT_ONCE, "ordering": "name"}
        seen = 0
        while found := ask(api, "GET", f"distributions/{kind}/", params=asked | {"offset": seen})["results"]:
            for distribution in found:
                if distribution["content_guard"] != guard:
                    ask(api, "PATCH", distribution["pulp_href"], json={"content_guard": guard})
                    count += 1
            seen += len(found)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy/pulp/content-guard",
        description="Lets only clients of a reverse proxy read the farm's repositories. Safe to repeat.",
    )
    administration_options(parser)
    parser.add_argument("--prefix", default="farm", help="FARM_PULP_PREFIX (farm)")
    help_text = "the secret of the proxy; a missing file is written, readable by its owner only"
    parser.add_argument("--secret-file", type=Path, required=True, help=help_text)
    given = parser.parse_args()
    try:
        secret = kept_secret(given.secret_file)
        guarded = set_guard(administration(given), given.prefix, secret)
    except PulpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"{guarded.count} distributions were open and are guarded now; for clients that it admits, the proxy adds")
    print(f"  proxy_set_header {HEADER} <base64 of the content of {given.secret_file}>;")
    print(f"and for all others  proxy_set_header {HEADER} '';")
    print("Give this to the publish workers, so that the distributions that they make later are guarded too:")
    print(f"  FARM_PULP_CONTENT_GUARD={guarded.href}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
