"""`farm login`, `farm logout`, `farm whoami`: the token with which commands use a farm's server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import JsonOption
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean

UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="The address of the server: https://farm.example.", show_default=False)
]


def login(
    url: UrlArgument,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="A file with the token; default: ask.", show_default=False),
    ] = None,
) -> None:
    """Keep a token for a farm's server.

    Asks for the token, or reads it from standard input or a file, and tries it. The token is kept for this address, in
    a file that only you can read. Commands use the server when FARM_URL has the address.

    \b
    Examples:
      farm login https://farm.example
      farm login https://farm.example --token-file token
      export FARM_URL=https://farm.example
    """
    from farm.client.http import HttpClient, check_token, check_url
    from farm.client.login import keep_token, read_token
    from farm.client.remote import RemoteFarm

    address = check_url(url)
    token = read_token(address, token_file) if token_file is not None else check_token(_ask())
    with RemoteFarm(HttpClient(address, token)) as farm:
        actor = farm.whoami()
    path = keep_token(address, token)
    say(f"{clean(actor.name)} ({', '.join(sorted(actor.roles))}) at {address}; the token is kept in {path}")
    say(f"to use it: export FARM_URL={address}")


def _ask() -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt("Token", hide_input=True, err=True)
        return answer
    return sys.stdin.read(1000)


def logout(url: UrlArgument) -> None:
    """Delete the kept token of a farm's server.

    The token stays valid until it expires; an administrator can revoke it.

    \b
    Example:
      farm logout https://farm.example
    """
    from farm.client.login import forget_token

    say("the token is deleted from this machine" if forget_token(url) else "no token was kept for that address")


def whoami(json: JsonOption = False) -> None:
    """Show as whom commands act, and in which roles.

    \b
    Example:
      farm whoami
    """
    with connected() as farm:
        actor = farm.whoami()
    if json:
        emit({"actor": {"name": actor.name, "roles": sorted(actor.roles), "project": actor.project}})
    else:
        where = f" in {actor.project}" if actor.project else ""
        console().print(f"{clean(actor.name)} ({', '.join(sorted(actor.roles))}{where})")
