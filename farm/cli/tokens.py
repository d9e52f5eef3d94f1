"""`farm token`: access tokens of the farm's server."""

from typing import Annotated

import typer

from farm.cli.options import JsonOption, complete_project
from farm.cli.session import connected, console, emit, say
from farm.cli.text import clean
from farm.model.actor import Role
from farm.model.amounts import ago

token = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@token.callback()
def about() -> None:
    """Make, list and revoke access tokens of the farm's server.

    A person or a program that uses the server sends a token with each request. The token says as whom it acts, and in
    which roles: reader, packager, maintainer, operator or admin (docs/trust.md). The farm keeps no copy of it.

    \b
    Examples:
      farm token new --role packager --actor ann --expires 90d
      farm token list
      farm token revoke 3
    """


@token.command()
def new(
    role: Annotated[
        list[Role], typer.Option(metavar="ROLE", help="A role of its bearer; repeat for more.", show_default=False)
    ],
    actor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name as which its bearer acts; default: you.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(metavar="TEXT", help="Its purpose, shown by `farm token list`.")] = "token",
    project: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="The roles hold in this project alone.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 12h, 90d; 366d at most.")] = "90d",
    json: JsonOption = False,
) -> None:
    """Make a token, and print it.

    The token is printed once, alone on standard output; it cannot be shown again.

    \b
    Examples:
      farm token new --role packager --actor ann --name laptop
      farm token new --role reader --expires 12h > token
      farm token new --role packager --actor ci --project mylib
    """
    from farm.service.tokens import parse_expiry

    with connected() as farm:
        made = farm.new_token(name=name, roles=role, bearer=actor, expires=parse_expiry(expires), project=project)
    if json:
        from farm.service import documents

        emit({"token": documents.token(made.token), "secret": made.secret})
        return
    one = made.token
    console().print(made.secret, soft_wrap=True)
    where = f" in {one.project}" if one.project else ""
    say(
        f"token {one.id} of {clean(one.actor)} ({', '.join(one.roles)}{where}) is valid until "
        f"{one.expires_at:%Y-%m-%d %H:%M} UTC; keep it now, it is not shown again"
    )


@token.command("list")
def list_(json: JsonOption = False) -> None:
    """List the tokens, with the expired and the revoked ones.

    \b
    Example:
      farm token list
    """
    with connected() as farm:
        found = farm.tokens()
    if json:
        from farm.service import documents

        emit({"tokens": [documents.token(one) for one in found]})
    elif found:
        from farm.cli import tables

        console().print(tables.token_table(found, console().width))
    else:
        console().print("no tokens; `farm token new -h` shows how to make one")


@token.command()
def revoke(
    number: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=10**18 - 1, help="The token's number.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:
    """Take all rights from a token, at once.

    \b
    Example:
      farm token revoke 3
    """
    with connected() as farm:
        revoked = farm.revoke_token(number)
    if json:
        from farm.service import documents

        emit({"token": documents.token(revoked)})
    else:
        say(
            f"token {revoked.id} of {clean(revoked.actor)}, made {ago(revoked.created_at)} ago, gives no right any more"
        )
