"""`farm audit`: the log of who changed what."""

from typing import Annotated

import typer

from farm.cli.options import JsonOption
from farm.cli.session import connected, console, emit, say


def audit(
    actor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the acts of this actor.", show_default=False)
    ] = None,
    verb: Annotated[
        str | None, typer.Option(metavar="VERB", help="Only such acts: cancel, enqueue, drain …", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only since then: 12h, 7d, 2026-11-27T12:00 (UTC).", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="The number of acts, at most.")
    ] = 50,
    json: JsonOption = False,
) -> None:
    """Show who changed what, the newest act first.

    Each act that changes something has one record, with the address or user that it came from and how it ended; acts
    that were refused too.

    \b
    Examples:
      farm audit --since 7d
      farm audit --actor ann --verb cancel --json
    """
    from farm.service.audit import parse_since

    after = parse_since(since) if since is not None else None
    with connected() as farm:
        found = farm.audit(actor=actor, verb=verb, since=after, limit=limit)
    if json:
        from farm.service import documents

        emit({"audit": [documents.audit(one) for one in found]})
    elif found:
        from farm.cli import tables

        console().print(tables.audit_table(found, console().width))
        if len(found) == limit:
            say(f"the newest {limit}; --limit shows more")
    else:
        console().print("no acts" + (" like that" if actor or verb or since else " yet"))
